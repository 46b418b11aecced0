"""What must stay as it is, to the letter: run ids, the committed results, the key of a cached embedding, `--help`.

Each is compared with a file in tests/golden. Where it was meant to change, write the files anew and look at the diff:

    UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/test_golden.py
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from typer import rich_utils
from typer.testing import CliRunner

from scdrugmap.cli import cli
from scdrugmap.data.dedupe import fingerprint
from scdrugmap.data.simulate import simulate
from scdrugmap.embeddings import store
from scdrugmap.embeddings.compute import content, settings_hash, shard_key
from scdrugmap.embeddings.pending import Key, waiting
from scdrugmap.evaluation.experiment import Experiment, sorted_options
from scdrugmap.evaluation.results.run_record import Run
from scdrugmap.evaluation.results.store import SCORES, build_scores
from scdrugmap.models import load_model
from scdrugmap.settings import CHECKOUT

GOLDEN = CHECKOUT / "tests" / "golden"
RESULTS = CHECKOUT / "cache" / "results"
LORA = sorted_options({"r": 4, "alpha": 8, "lr": 1e-4, "gradient_checkpointing": True})
POOLED = Experiment("hvg", "logistic", ("a", "b"), ("sha256:1", "sha256:2"))
TRANSFER = replace(POOLED, protocol="cross-data", split_by="study", shots=0)
EXPERIMENTS = {
    "freeze, pooled, by cell": POOLED,
    "freeze, pooled, by sample, other folds and seed": replace(POOLED, split_by="sample", folds=10, seed=3),
    "freeze, pooled, by patient or line": replace(POOLED, split_by="patient_or_line"),
    "freeze, pooled, a tissue": replace(POOLED, facet="tissue", facet_value="Lung"),
    "freeze, options of the head": replace(POOLED, head="mlp", options=sorted_options({"lr": 0.01, "epochs": 5})),
    "freeze, settings of the model and its weights": replace(
        POOLED, model="scgpt", weights="sha256:3", settings=sorted_options({"max_length": 600, "compat": "upstream"})
    ),
    "freeze, another recipe": replace(POOLED, recipe=2),
    "freeze, leave one study out": TRANSFER,
    "freeze, leave one data set out, few shots": replace(TRANSFER, split_by="dataset", shots=5, reserve=50),
    "freeze, one data set trains": replace(TRANSFER, split_by="dataset", train=("a",)),
    "lora, pooled": replace(POOLED, model="scgpt", strategy="lora", head="mlp", weights="sha256:3", options=LORA),
    "lora, few shots": replace(TRANSFER, model="scgpt", strategy="lora", head="mlp", shots=10, reserve=50),
    "prompt, no shots": replace(
        TRANSFER, model="gpt-4o-mini", strategy="prompt", head="prompt", weights="prompt:0123456789ab"
    ),
    "prompt, few shots and a setting without a value": replace(
        TRANSFER,
        **{"model": "gpt-4o-mini", "strategy": "prompt", "head": "prompt", "shots": 5, "reserve": 5},
        settings=sorted_options({"temperature": None, "top_k": 30}),
    ),
}
KEY = Key("scgpt-mini", "sha256:1", 2, "sha256:3", "sha256:4", 5)


def golden(name: str, text: str) -> str:
    """Return what the file of that name holds; with UPDATE_GOLDEN=1, after it was written anew."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def sha256(text: str | bytes) -> str:
    return "sha256:" + hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def canonical(table: pl.DataFrame) -> str:
    """Names, types and every value of a table; a number as the shortest text that is the number again."""
    head = [f"{name}: {kind}" for name, kind in table.schema.items()]
    return "\n".join([*head, *(json.dumps(row) for row in table.iter_rows())])


def verbs(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command and of all below it."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from verbs(below, (*words, name))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 columns without colours and no terminal, also where the machine would force one."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", False)
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", None)


def test_an_experiment_keeps_its_run_id():
    found = as_json({name: experiment.run_id for name, experiment in EXPERIMENTS.items()})
    assert found == golden("run_ids.json", found)
    assert len({experiment.run_id for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)


def test_an_experiment_that_was_written_down_keeps_its_run_id():
    written = {name: json.loads(json.dumps(experiment.as_dict())) for name, experiment in EXPERIMENTS.items()}
    again = {name: Experiment.from_dict(plain) for name, plain in written.items()}
    assert again == EXPERIMENTS


def test_every_committed_record_is_named_by_what_was_asked_and_reads_back_to_the_letter():
    records = sorted((RESULTS / "runs").glob("*.json"))
    assert records
    for path in records:
        text = path.read_text()
        run = Run.from_json(text)
        assert path.stem == run.run_id == json.loads(text)["run_id"]
        assert run.to_json() == text, path


def test_the_committed_scores_are_what_the_records_give_to_the_last_digit():
    table, rebuilt = pl.read_parquet(RESULTS / "scores.parquet"), build_scores(RESULTS)
    assert dict(table.schema) == dict(rebuilt.schema) == SCORES
    assert rebuilt.equals(table)
    # Of the file, and not of the rebuilt one: polars writes its own version into each.
    found = as_json(
        {
            "rows": table.height,
            "content": sha256(canonical(rebuilt)),
            "file": sha256((RESULTS / "scores.parquet").read_bytes()),
        }
    )
    assert found == golden("scores.json", found)


def test_a_cached_embedding_is_found_under_the_same_name(tmp_path):
    """joblib forgets what it has where the function's module, name, arguments or source change."""
    with waiting(KEY, lambda: np.ones((2, 3), dtype=np.float32)):
        store.embedding(tmp_path)(**KEY.arguments())
    written = {path.name: path for path in tmp_path.rglob("*") if path.is_file()}
    found = as_json(
        {
            "folder": str(written["output.pkl"].parent.relative_to(tmp_path)),
            "arguments": json.loads(written["metadata.json"].read_text())["input_args"],
            "source": inspect.getsource(store._embedding).splitlines(),
        }
    )
    assert found == golden("cached_embedding.json", found)


def test_the_key_of_an_embedding_stays_what_it_is():
    cells = simulate(n_cells=12, n_genes=300, n_samples=2, seed=5)
    encoder = load_model("scgpt-mini", device="cpu")
    shorter = load_model("scgpt-mini", device="cpu", max_length=300)
    found = as_json(
        {
            "fingerprint of the cells": fingerprint(cells),
            "content that the encoder sees": content(encoder, cells),
            "settings": settings_hash(encoder, None),
            "other settings": settings_hash(shorter, None),
            "key": shard_key(encoder, cells, 0).arguments(),
        }
    )
    assert found == golden("embedding_key.json", found)


def test_every_verb_explains_itself_in_the_same_words(plain):
    told = []
    for words in verbs(typer.main.get_command(cli)):
        asked = [*words, "--help"]
        answer = CliRunner().invoke(cli, asked, prog_name="scdrugmap")
        assert answer.exit_code == 0, answer.output
        lines = [line.rstrip() for line in answer.output.strip().splitlines()]
        told.append("\n".join([f"$ {' '.join(['scdrugmap', *asked])}", *lines, ""]))
    found = "\n".join(told)
    assert found == golden("help.txt", found)
