"""Our models against what upstream's own code computes, from a folder of cases (one sub-folder a model).

`SCDRUGMAP_PARITY=FOLDER pytest -k parity` runs the same checks against another folder of that layout. A model's entry
in `CHECKS` says how its arrays are compared; sizes, lengths, seeds and tolerances come from `case.json` and the
checkpoint. A model whose folder is not there is reported as skipped.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from places import PARITY

from scdrugmap.models import MODELS, load_model
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.encoder import Encoder
from scdrugmap.models.core.tokenizer import Tokens
from scdrugmap.models.scbert.tokens import log_normalised
from scdrugmap.models.scgpt.tokens import bin_range, bin_values
from scdrugmap.models.uce.tokens import sampling_weights
from scdrugmap.models.uce.upstream import upstream_weights

CASES = Path(os.environ.get("SCDRUGMAP_PARITY") or PARITY)


@dataclass(frozen=True)
class Case:
    """One folder: the checkpoint in upstream's layout, an input, and what upstream makes of it."""

    key: str
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "case.json").read_text())

    @property
    def tolerance(self) -> dict[str, Any]:
        return self.settings["tolerance"]

    @property
    def expected(self) -> Mapping[str, np.ndarray]:
        return np.load(self.folder / "expected.npz", allow_pickle=False)

    @property
    def cells(self) -> ad.AnnData:
        return ad.read_h5ad(self.folder / "input.h5ad")

    def load(self, **settings: Any) -> Encoder:
        return load_model(self.key, weights=self.folder / "checkpoint", device="cpu", **settings)


def padded(tokens: Tokens, flat: np.ndarray, fill: float, width: int) -> np.ndarray:
    """Entries (T,) as rows (C, width)."""
    out = np.full((len(tokens), width), fill, dtype=flat.dtype)
    for cell in range(len(tokens)):
        part = flat[tokens.cell(cell)]
        out[cell, : len(part)] = part
    return out


def hidden_of(encoder: Encoder, tokens: Tokens, cell: int) -> np.ndarray:
    """Last hidden states (L, D) of one cell."""
    batch = encoder.tokenizer.collate(tokens, np.array([cell]))
    with torch.inference_mode():
        return encoder.network.hidden(**{name: torch.from_numpy(a) for name, a in batch.items()})[0].numpy()


def scgpt_tokens(case: Case) -> None:
    encoder, expected = case.load(max_length=case.settings["max_length"]), case.expected
    tokens, width = encoder.tokenize(case.cells), expected["gene_ids"].shape[1]
    np.testing.assert_array_equal(tokens.lengths, expected["lengths"])
    pad_id, pad_value = encoder.tokenizer.pad_id, encoder.tokenizer.pad_value
    np.testing.assert_array_equal(padded(tokens, tokens.ids, pad_id, width), expected["gene_ids"])
    np.testing.assert_array_equal(padded(tokens, tokens.values, pad_value, width), expected["values"])


def scgpt_embedding(case: Case) -> None:
    got = case.load(max_length=case.settings["max_length"]).embed(case.cells)
    np.testing.assert_allclose(got, case.expected["embedding"], rtol=0, atol=case.tolerance["embedding_atol"])


def scgpt_hidden(case: Case) -> None:
    encoder = case.load(max_length=case.settings["max_length"], normalise=False)
    tokens, expected, atol = encoder.tokenize(case.cells), case.expected, case.tolerance["hidden_atol"]
    np.testing.assert_allclose(encoder.encode(tokens), expected["cls_hidden"], rtol=0, atol=atol)
    for place, cell in enumerate(expected["hidden_last_cells"]):
        np.testing.assert_allclose(
            hidden_of(encoder, tokens, cell), expected[f"hidden_last_{place}"], rtol=0, atol=atol
        )


def scgpt_truncation(case: Case) -> None:
    encoder = case.load(max_length=case.settings["truncation"]["max_length"], compat="upstream")
    tokens, expected = encoder.tokenize(case.cells), case.expected
    width = expected["trunc_gene_ids"].shape[1]
    pad_id, pad_value = encoder.tokenizer.pad_id, encoder.tokenizer.pad_value
    np.testing.assert_array_equal(padded(tokens, tokens.ids, pad_id, width), expected["trunc_gene_ids"])
    np.testing.assert_array_equal(padded(tokens, tokens.values, pad_value, width), expected["trunc_values"])
    atol = case.tolerance["embedding_atol"]
    np.testing.assert_allclose(encoder.encode(tokens), expected["trunc_embedding"], rtol=0, atol=atol)


def scgpt_ties(case: Case) -> None:
    row, low, high = (case.expected[name] for name in ("ties_row", "ties_bin_lo", "ties_bin_hi"))
    ours = bin_values(row)
    assert ((ours >= low) & (ours <= high)).all()
    got_low, got_high = bin_range(row)
    np.testing.assert_array_equal(got_low, low)
    np.testing.assert_array_equal(got_high, high)


GENEFORMER_VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "embedding_last_layer": {"emb_layer": 0},
    "embedding_cls": {"emb_mode": "cls"},
    "embedding_cls_last_layer": {"emb_mode": "cls", "emb_layer": 0},
}
TGPT_VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {"compat": "upstream"},
    "embedding_no_token_type": {"compat": "upstream", "token_types": False},
    "embedding_vocab_only": {},
    "embedding_vocab_only_no_token_type": {"token_types": False},
}


def check_ids(encoder: Encoder, case: Case, tail: str = "") -> None:
    """Ids and lengths of all cells, exactly."""
    tokens, ids = encoder.tokenize(case.cells), case.expected[f"input_ids{tail}"]
    np.testing.assert_array_equal(tokens.lengths, case.expected[f"lengths{tail}"])
    np.testing.assert_array_equal(padded(tokens, tokens.ids, encoder.tokenizer.pad_id, ids.shape[1]), ids)


def check_variants(case: Case, variants: dict[str, dict[str, Any]], **settings: Any) -> None:
    """Every embedding of `expected.npz`, in batches and cell by cell."""
    for name in (name for name in case.expected if name.startswith("embedding")):
        encoder = case.load(**settings, **variants[name])
        for batch_size in (None, 1):
            got, atol = encoder.embed(case.cells, batch_size=batch_size), case.tolerance["embedding_atol"]
            np.testing.assert_allclose(got, case.expected[name], rtol=0, atol=atol, err_msg=name)


def check_hidden(encoder: Encoder, case: Case, stem: str) -> None:
    """Hidden states of the cells that were run alone."""
    tokens, expected = encoder.tokenize(case.cells), case.expected
    for place, cell in enumerate(expected["hidden_last_cells"]):
        if f"{stem}_{place}" in expected:
            with torch.inference_mode():
                got = encoder.network.hidden(torch.from_numpy(tokens.ids[tokens.cell(cell)])[None])[0]
            np.testing.assert_allclose(
                got, expected[f"{stem}_{place}"], rtol=0, atol=case.tolerance["hidden_atol"], err_msg=stem
            )


def geneformer_tokens(case: Case) -> None:
    check_ids(case.load(max_length=case.settings["model_input_size"]), case)


def geneformer_embedding(case: Case) -> None:
    check_variants(case, GENEFORMER_VARIANTS, max_length=case.settings["model_input_size"])


def geneformer_hidden(case: Case) -> None:
    for emb_layer, stem in ((-1, "hidden_second_last"), (0, "hidden_last")):
        check_hidden(case.load(max_length=case.settings["model_input_size"], emb_layer=emb_layer), case, stem)


def tgpt_tokens(case: Case) -> None:
    check_ids(case.load(max_length=case.settings["max_len"], compat="upstream"), case)
    check_ids(case.load(max_length=case.settings["max_len"]), case, "_vocab_only")


def tgpt_embedding(case: Case) -> None:
    check_variants(case, TGPT_VARIANTS, max_length=case.settings["max_len"])


def tgpt_hidden(case: Case) -> None:
    for token_types, stem in ((True, "hidden_last"), (False, "hidden_last_no_token_type")):
        settings = {"max_length": case.settings["max_len"], "compat": "upstream", "token_types": token_types}
        check_hidden(case.load(**settings), case, stem)


def load_uce(case: Case, **settings: Any) -> Encoder:
    sizes = case.settings["settings"]
    return case.load(heads=sizes["nhead"], sample_size=sizes["sample_size"], **settings)


def upstream_uce(case: Case) -> Encoder:
    """Upstream's sampling, rounding and padding, with the case's seed and batches."""
    batch_size = case.settings["settings"]["batch_size"]
    return load_uce(case, compat="upstream", seed=case.settings["rng"]["seed"], upstream_batch_size=batch_size)


def uce_tokens(case: Case) -> None:
    encoder, expected = upstream_uce(case), case.expected
    tokens = encoder.tokenize(case.cells)
    ids = encoder.tokenizer.token_ids[tokens.ids]
    pad_id, width = case.settings["settings"]["pad_token_idx"], expected["tokens"].shape[1]
    np.testing.assert_array_equal(tokens.lengths, expected["seq_len"])
    np.testing.assert_array_equal(padded(tokens, ids, pad_id, width), expected["tokens"])
    np.testing.assert_array_equal(padded(tokens, np.ones_like(ids), 0, width), expected["mask"])
    chosen = case.cells[:, expected["gene_names"].tolist()].X.toarray()
    for ours in (sampling_weights, upstream_weights):
        got, atol = np.stack([ours(row) for row in chosen]), case.tolerance["sampling_weight"]
        np.testing.assert_allclose(got, expected["sampling_weight"], rtol=0, atol=atol)


def uce_embedding(case: Case) -> None:
    upstream, own, expected = upstream_uce(case), load_uce(case), case.expected
    tokens, tolerance = upstream.tokenize(case.cells), case.tolerance
    np.testing.assert_allclose(upstream.embed(case.cells), expected["embedding"], rtol=0, atol=tolerance["embedding"])
    for batch_size in (None, 1, 3):  # padding is not seen, so each cell is as if alone
        got = own.encode(tokens, batch_size)
        np.testing.assert_allclose(got, expected["embedding_bs1"], rtol=0, atol=tolerance["embedding_bs1"])


def uce_hidden(case: Case) -> None:
    encoder, expected, tolerance = upstream_uce(case), case.expected, case.tolerance
    tokens, cells = encoder.tokenize(case.cells), expected["hidden_last_cells"].tolist()
    batches = encoder.tokenizer.plan(tokens, None, 0)
    assert [rows.tolist() for rows in batches] == case.settings["batches"]
    for rows in batches:
        arrays = encoder.tokenizer.collate(tokens, rows)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.inference_mode():
            hidden, cls = encoder.network.hidden(**batch).numpy(), encoder.network.decoded(**batch)
        np.testing.assert_allclose(cls, expected["cls_prenorm"][rows], rtol=0, atol=tolerance["cls_prenorm"])
        for place, cell in enumerate(rows):
            if cell in cells:
                wanted = expected["hidden_last"][cells.index(cell)][: hidden.shape[1]]
                np.testing.assert_allclose(hidden[place], wanted, rtol=0, atol=tolerance["hidden_last"])


def tolerance_of(case: Case, array: str) -> dict[str, float]:
    """Read "rtol 1e-4, atol 1e-4" of the case."""
    words = case.settings["suggested_tolerance"][array].replace(",", "").split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def performer_embedding(case: Case) -> None:
    """Every pooling, in batches and cell by cell: upstream's result at one cell a forward."""
    for name in (name for name in case.expected if name.startswith("embedding")):
        pooling = name.removeprefix("embedding").lstrip("_")
        encoder = case.load(**({"pooling": pooling} if pooling else {}))
        for batch_size in (None, 3, 1):
            got = encoder.embed(case.cells, batch_size=batch_size)
            np.testing.assert_allclose(got, case.expected[name], **tolerance_of(case, "embedding"), err_msg=name)


def performer_hidden(case: Case) -> None:
    """What enters the first block and what leaves the last; pads are rows of zeros upstream and left out here."""
    encoder, expected = case.load(), case.expected
    tokens, close = encoder.tokenize(case.cells), tolerance_of(case, "hidden")
    for place, cell in enumerate(expected["hidden_cells"]):
        length, states = tokens.lengths[cell], expected[f"hidden_last_{place}"]
        np.testing.assert_allclose(hidden_of(encoder, tokens, cell)[:length], states[:length], **close)
        assert not states[length:].any()
    batch = encoder.tokenizer.collate(tokens, expected["hidden_cells"][:1])
    given = {name: torch.from_numpy(batch[name]) for name in ("ids", "genes") if name in batch}
    with torch.inference_mode():
        got = encoder.network.embed(**given)[0, : tokens.lengths[expected["hidden_cells"][0]]]
    np.testing.assert_allclose(got, expected["input_emb_0"][: len(got)], **close)


def performer_batches(case: Case) -> None:
    """With `compat`, a batch moves its cells as far as it does upstream."""
    for name, moved in case.settings["measured_max_abs_diff"].items():
        if found := re.fullmatch(r"batch_(all|\d+)_vs_1_(embedding|cls|mean)", name):
            pooling = {} if found[2] == "embedding" else {"pooling": found[2]}
            batch_size = None if found[1] == "all" else int(found[1])
            together = case.load(compat="upstream", **pooling).embed(case.cells, batch_size=batch_size)
            ours = np.abs(together - case.load(**pooling).embed(case.cells)).max()
            assert ours == pytest.approx(moved, rel=0, abs=tolerance_of(case, "embedding")["atol"]), name


def scbert_tokens(case: Case) -> None:
    encoder, expected = case.load(), case.expected
    tokens = encoder.tokenize(case.cells)
    np.testing.assert_array_equal(tokens.ids.reshape(expected["tokens"].shape), expected["tokens"])
    check_normalised(encoder, case)


def celllm_tokens(case: Case) -> None:
    encoder, expected = case.load(), case.expected
    tokens, width, ours = encoder.tokenize(case.cells), case.settings["dims"]["max_seq_len"], encoder.tokenizer
    np.testing.assert_array_equal(padded(tokens, tokens.ids, ours.pad_id, width), expected["tokens"])
    np.testing.assert_array_equal(padded(tokens, tokens.extra["genes"], ours.pad_gene, width), expected["gene_pos"])
    check_normalised(encoder, case)


def check_normalised(encoder: Encoder, case: Case) -> None:
    """Values before they are cut and rounded."""
    got = log_normalised(encoder.tokenizer.counts(Cells.from_anndata(case.cells))).toarray()
    np.testing.assert_allclose(got, case.expected["normalized"], **tolerance_of(case, "normalized"))


SCFOUNDATION_VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "alt_cell_t4_poolmax": {"pool": "max", "tgthighres": "t4"},
    "alt_rde_a5_all": {"variant": "rde", "tgthighres": "a5"},
    "alt_cell_f2_all": {"tgthighres": "f2"},
}


def load_scfoundation(case: Case, **settings: Any) -> Encoder:
    asked = case.settings["settings"]
    defaults = {"variant": asked["checkpoint_key"], "pool": asked["pool_type"], "tgthighres": asked["tgthighres"]}
    return case.load(**defaults | settings)


def within(case: Case, name: str) -> dict[str, float]:
    """Tolerance of an array as numpy takes it; the case writes "rtol 1e-4, atol 1e-4"."""
    words = case.settings["suggested_tolerance"][name].replace(",", "").split()
    return {kind: float(value) for kind, value in zip(words[::2], words[1::2], strict=True)}


def scfoundation_tokens(case: Case) -> None:
    tokens, expected = load_scfoundation(case).tokenize(case.cells), case.expected
    np.testing.assert_array_equal(tokens.offsets, expected["token_offsets"])
    np.testing.assert_array_equal(tokens.ids, expected["token_gene_pos"])
    np.testing.assert_allclose(tokens.values, expected["token_values"], **within(case, "token_values"))


def scfoundation_embedding(case: Case) -> None:
    for name, settings in SCFOUNDATION_VARIANTS.items():
        encoder = load_scfoundation(case, **settings)
        for batch_size in (None, 1):
            got = encoder.embed(case.cells, batch_size)
            np.testing.assert_allclose(got, case.expected[name], **within(case, "embedding"), err_msg=name)


def scfoundation_hidden(case: Case) -> None:
    encoder, expected = load_scfoundation(case), case.expected
    tokens = encoder.tokenize(case.cells)
    for place, cell in enumerate(expected["hidden_cells"]):
        own = tokens.cell(cell)
        ids, values = torch.from_numpy(tokens.ids[own])[None], torch.from_numpy(tokens.values[own])[None]
        with torch.inference_mode():
            seen, hidden = encoder.network.embed(ids, values)[0], encoder.network.hidden(ids, values)[0]
        np.testing.assert_allclose(seen, expected[f"input_emb_{place}"], **within(case, "hidden"))
        np.testing.assert_allclose(hidden, expected[f"hidden_last_{place}"], **within(case, "hidden"))


CELLPLM_VARIANTS = {
    "embedding": ("upstream", "full"),
    "embedding_chunk": ("upstream", "chunk"),
    "embedding_argmax": ("upstream-argmax", "full"),
    "embedding_chunk_argmax": ("upstream-argmax", "chunk"),
}


def upstream_cellplm(case: Case, compat: str, batches: str) -> Encoder:
    """Upstream's contexts, and with compat="upstream" its random components."""
    size = {"full": 0, "chunk": case.settings["batches"]["chunk_batch_size"]}[batches]
    version = case.settings["files"]["pretrain_prefix"]
    return case.load(compat=compat, context_size=size, seed=case.settings["rng"]["seed"], variant=version)


def cellplm_input(case: Case) -> None:
    encoder, expected = upstream_cellplm(case, "upstream", "full"), case.expected
    tokens, cells = encoder.tokenize(case.cells), Cells.from_anndata(case.cells)
    genes = encoder.tokenizer.match(cells)
    np.testing.assert_array_equal(genes[genes >= 0], expected["gene_index"])
    assert cells.ensembl_ids is not None
    np.testing.assert_array_equal(cells.ensembl_ids[genes >= 0], expected["gene_ids"])
    values = np.zeros((len(tokens), len(encoder.tokenizer.genes)), dtype=np.float32)
    values[np.repeat(np.arange(len(tokens)), tokens.lengths), tokens.ids] = tokens.values
    atol = case.tolerance["values_log1p"]
    np.testing.assert_allclose(values[:, expected["gene_index"]], expected["values_log1p"], rtol=0, atol=atol)
    assert (np.delete(values, expected["gene_index"], axis=1) == 0).all()


def cellplm_contexts(case: Case) -> None:
    for batches, tail in (("full", ""), ("chunk", "_chunk")):
        encoder = upstream_cellplm(case, "upstream", batches)
        tokens = encoder.tokenize(case.cells)
        assert [rows.tolist() for rows in encoder.tokenizer.plan(tokens, 2, 1)] == case.settings["batches"][batches]
        np.testing.assert_array_equal(tokens.cells["uniform"], case.expected[f"gumbel_uniform{tail}"])


def cellplm_embedding(case: Case) -> None:
    expected, tolerance = case.expected, case.tolerance
    assert {name for name in expected if name.startswith("embedding")} == set(CELLPLM_VARIANTS)
    for name, choices in CELLPLM_VARIANTS.items():
        got = upstream_cellplm(case, *choices).embed(case.cells)
        np.testing.assert_allclose(got, expected[name], rtol=0, atol=tolerance[name], err_msg=name)
    if not case.settings["input"]["has_obs_batch"]:
        got = case.load().embed(case.cells, batch_size=3)  # our default: one data set, one context, no noise
        np.testing.assert_allclose(got, expected["embedding_argmax"], rtol=0, atol=tolerance["embedding_argmax"])


def cellplm_hidden(case: Case) -> None:
    encoder, expected, tolerance = upstream_cellplm(case, "upstream", "full"), case.expected, case.tolerance
    tokens, network = encoder.tokenize(case.cells), encoder.network
    for rows in encoder.tokenizer.plan(tokens, None, 0):
        batch = {name: torch.from_numpy(part) for name, part in encoder.tokenizer.collate(tokens, rows).items()}
        uniform = batch.pop("uniform")
        with torch.inference_mode():
            hidden = network.hidden(**batch)
            pre_latent = network.last_norm(hidden)
            logits = network.component(pre_latent)
            chosen = network.choose(logits, uniform)
        got = {"hidden_last": hidden, "pre_latent": pre_latent, "cluster_logits": logits}
        for name, array in got.items():
            np.testing.assert_allclose(array, expected[name][rows], rtol=0, atol=tolerance[name], err_msg=name)
        np.testing.assert_array_equal(chosen, expected["cluster_onehot"][rows])


# How each model's case is compared: one function an aspect, named <model>_<aspect>.
CHECKS: dict[str, tuple[Callable[[Case], None], ...]] = {
    "scgpt": (scgpt_tokens, scgpt_embedding, scgpt_hidden, scgpt_truncation, scgpt_ties),
    "geneformer": (geneformer_tokens, geneformer_embedding, geneformer_hidden),
    "scbert": (scbert_tokens, performer_embedding, performer_hidden, performer_batches),
    "celllm": (celllm_tokens, performer_embedding, performer_hidden, performer_batches),
    "scfoundation": (scfoundation_tokens, scfoundation_embedding, scfoundation_hidden),
    "tgpt": (tgpt_tokens, tgpt_embedding, tgpt_hidden),
    "uce": (uce_tokens, uce_embedding, uce_hidden),
    "cellplm": (cellplm_input, cellplm_contexts, cellplm_embedding, cellplm_hidden),
}


def cases(key: str) -> list[Case]:
    """Cases of a model: its own folder, or each of its sub-folders."""
    folder = CASES / key
    return [Case(key, path.parent) for path in sorted([*folder.glob("case.json"), *folder.glob("*/case.json")])]


def parameters() -> Iterator[Any]:
    for key, checks in CHECKS.items():
        found = cases(key)
        if not found:
            yield pytest.param(None, None, id=key, marks=pytest.mark.skip(reason=f"no case for {key} in {CASES}"))
        for case in found:
            name = case.folder.relative_to(CASES).as_posix()
            yield from (pytest.param(case, check, id=f"{name}-{check.__name__.split('_', 1)[1]}") for check in checks)


@pytest.mark.parametrize(("case", "check"), list(parameters()))
def test_parity(case: Case, check: Callable[[Case], None], settings):
    check(case)


def test_every_foundation_model_is_compared_with_upstream():
    foundation = {key for key, card in MODELS.items() if card.kind == "foundation"}
    assert foundation == set(CHECKS)
    default = PARITY
    assert {path.name for path in default.iterdir()} == set(CHECKS)
