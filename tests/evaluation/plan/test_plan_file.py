from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from places import ROOT

from scdrugmap.data.catalog.catalog import facets
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, ScDrugMapError, UnknownName
from scdrugmap.evaluation.cells.dataset_summary import DatasetSummary
from scdrugmap.evaluation.plan import expand as one_question
from scdrugmap.evaluation.plan.expand import expand_grid
from scdrugmap.evaluation.plan.experiments import catalogue, expand
from scdrugmap.evaluation.plan.grid import Grid
from scdrugmap.evaluation.plan.plan_file import Ask, Plan, read_plan, resolve

PLANS = sorted((ROOT / "benchmarks" / "plans").glob("*.toml"))
PAPER = [path for path in PLANS if path.stem.startswith("paper-")]
TEN = {"scfoundation", "scgpt", "geneformer", "uce", "cellplm", "scbert", "celllm", "tgpt", "llama3-8b", "gpt-4o-mini"}


@pytest.fixture
def no_weights(monkeypatch):
    """Weights are named without being looked for."""
    monkeypatch.setattr(one_question, "_weights", lambda model, *args, **kwargs: f"weights of {model}")


def written(folder: Path, text: str) -> Plan:
    path = folder / "mine.toml"
    path.write_text(text)
    return read_plan(path)


def asking(more: str, data: str = "keys = ['gse149214']") -> str:
    return f"title = 'Mine'\n[data.some]\n{data}\n[[ask]]\nmodels = ['hvg']\n{more}"


def outline(name: str, **facts) -> DatasetSummary:
    plain = {"studies": (name,), "collection": "user", "n_cells": 10, "classes": ("resistant", "sensitive")}
    plain["facets"] = dict.fromkeys(("tissue", "cancer_type", "drug_type", "regimen"), "one")
    return DatasetSummary(name=name, origin=name, content=f"sha256:{name}", **plain | facts)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_can_be_read(path):
    assert read_plan(path).title


def test_there_is_a_plan_for_each_table_of_the_paper():
    tables = {f"paper-{protocol}-{facet}" for protocol in ("pooled", "cross-data") for facet in
              ("tissue", "cancer-type", "drug-type", "regimen")}  # fmt: skip
    assert tables <= {path.stem for path in PLANS}


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_plan_of_the_paper_asks_all_its_models_about_the_whole_catalogue(path, no_weights):
    asked = read_plan(path)
    found = expand(asked, catalogue(asked))
    assert len({one.run_id for one in found}) == len(found) > 0
    external = path.stem == "paper-external"
    assert {one.model for one in found} >= TEN - ({"gpt-4o-mini"} if external else set())
    assert {one.strategy for one in found} == {"freeze", "lora"} | (set() if external else {"prompt"})
    assert {(one.model, one.strategy) for one in found if one.model == "gpt-4o-mini"} <= {("gpt-4o-mini", "prompt")}
    if external:
        assert {(len(one.train), len(one.datasets)) for one in found} == {(36, 60)}
        return
    (facet,) = {one.facet for one in found}
    groups = {value: set(keys) for value, keys in facets("primary")[facet].items()}
    assert all(set(one.datasets) == groups[one.facet_value] for one in found)
    several = {value for value, keys in groups.items() if len(keys) > 1}
    assert {one.facet_value for one in found} == (several if "cross" in path.stem else set(groups))


@pytest.mark.parametrize("path", [path for path in PAPER if "cross" in path.stem], ids=lambda path: path.stem)
def test_zero_shot_is_asked_of_all_on_the_same_cells_and_each_curve_has_one_reserve(path, no_weights):
    asked = read_plan(path)
    found = expand(asked, catalogue(asked))
    whole, curve = ([one for one in found if one.reserve == reserve] for reserve in (0, 50))
    assert len(whole) + len(curve) == len(found)
    assert {one.shots for one in whole} == {0}
    assert {one.strategy for one in whole} == {"freeze", "lora", "prompt"}
    assert {one.model for one in whole} >= TEN
    designs = {(one.facet_value, one.split_by): one.design for one in whole}
    assert all(one.design == designs[one.facet_value, one.split_by] for one in whole)
    assert {one.shots for one in curve} == {0, 1, 5, 10, 50}
    assert {one.strategy for one in curve} == {"freeze"}


def test_the_smoke_plan_needs_nothing_but_itself(settings):
    grid = Grid.from_plan(read_plan(ROOT / "benchmarks" / "plans" / "smoke.toml"), settings, fetch=False)
    assert {one.name for one in grid.summaries} == {
        "simulated-cohort", "simulated-trial-1", "simulated-trial-2", "simulated-trial-3"
    }  # fmt: skip
    assert all(name.startswith("simulated") for one in grid.experiments for name in one.datasets)
    assert {one.strategy for one in grid.experiments} == {"freeze", "lora"}
    assert {(one.protocol, one.split_by) for one in grid.experiments} == {
        ("pooled", "cell"), ("pooled", "sample"), ("cross-data", "study"), ("cross-data", "dataset")
    }  # fmt: skip
    assert {one.shots for one in grid.experiments} == {None, 0, 5}
    assert {one.train for one in grid.experiments if one.train} == {
        (f"simulated-trial-{number}",) for number in (1, 2, 3)
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (asking("model = 1"), "'ask.1.model' is not a key of a plan. Possible: models, data,"),
        (asking("", "file = 'a'"), "'data.some.file' is not a key of a plan. Possible: keys, collection,"),
        (asking("protocol = 'loo'"), "ask.1.protocol = 'loo': Input should be 'pooled' or 'cross-data'"),
        (asking("split_by = 'donor'"), "ask.1.split_by.1 = 'donor': Input should be 'cell', 'sample'"),
        (asking("heads = ['forest']"), "There is no head called 'forest'. Known: mlp"),
        (asking("folds = 1"), "ask.1.folds = 1: Input should be greater than or equal to 2"),
        (asking("shots = [-1]"), "ask.1.shots.1 = -1: Input should be greater than or equal to 0"),
        (asking("data = 'other'"), "ask 1 names data 'other', which is not here; here are some"),
        (asking("train = 'each'"), 'train needs protocol = "cross-data"'),
        (asking("options.forest = { trees = 3 }"), "There is neither a strategy nor a head called 'forest'"),
        (asking("", "keys = ['gse1492']"), "There is no data set called 'gse1492'. Did you mean 'gse149214'?"),
        (asking("", "keys = []"), "names no data set; give keys, collection, files or simulate"),
        (asking("").replace("hvg", "hvgg"), "There is no model called 'hvgg'. Did you mean 'hvg'?"),
        ("title = 'Mine'\n[data.some]\nkeys = ['gse149214']", "ask: Field required"),
        ("title = ", "mine.toml is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_file_key_and_what_is_possible(tmp_path, text, said):
    with pytest.raises(InvalidInput, match=re.escape(said)) as caught:
        written(tmp_path, text)
    assert str(caught.value).startswith("mine.toml")
    assert "\n" not in caught.value.line
    assert caught.value.remedy


def test_a_plan_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.toml")


def test_files_are_looked_for_in_the_given_folder_and_then_beside_the_plan(tmp_path):
    text = asking("", "files = ['*.h5ad']")
    with pytest.raises(InvalidInput, match=r"data.some.files: there is no '\*.h5ad' in"):
        resolve(written(tmp_path, text))
    (tmp_path / "b.h5ad").touch()
    (tmp_path / "a.h5ad").touch()
    assert resolve(written(tmp_path, text)) == {"some": [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]}
    given = tmp_path / "given"
    given.mkdir()
    (given / "c.h5ad").touch()
    assert resolve(written(tmp_path, text), given) == {"some": [given / "c.h5ad"]}
    assert resolve(written(tmp_path, text), tmp_path / "nowhere")["some"][0] == tmp_path / "a.h5ad"


def test_simulated_cells_are_called_after_their_table_and_wrong_arguments_are_named(tmp_path):
    text = asking("", "simulate = { n_cells = 40, n_genes = 50, n_samples = 4, n_datasets = 2, seed = 5 }")
    (adata,) = resolve(written(tmp_path, text))["some"]
    assert set(adata.obs["dataset"]) == {"simulated-some-1", "simulated-some-2"}
    plain = simulate(n_cells=40, n_genes=50, n_samples=4, n_datasets=2, seed=5)
    assert (adata.X != plain.X).nnz == 0
    assert set(adata.obs["patient_or_line"]).isdisjoint(plain.obs["patient_or_line"])
    with pytest.raises(InvalidInput, match=r"data.some.simulate: .*n_cell"):
        resolve(written(tmp_path, asking("", "simulate = { n_cell = 40 }")))


def test_lists_multiply_and_equal_questions_count_once(tmp_path):
    known = {"some": [outline("a"), outline("b")]}
    text = asking("split_by = ['cell', 'sample']\nseeds = [0, 1]\nheads = ['logistic', 'knn']")
    found = expand(written(tmp_path, text), known)
    assert len(found) == 8
    twice = text + "\n[[ask]]\nmodels = ['hvg']\nheads = 'knn'\nseeds = [1, 2]"
    assert len(expand(written(tmp_path, twice), known)) == 9
    apart = expand(written(tmp_path, text + "\napart = true"), known)
    assert {one.facet_value for one in apart} == {"a", "b"}


def test_each_trains_alone_where_it_has_both_classes(tmp_path):
    known = {"some": [outline("a"), outline("b"), outline("c", classes=("resistant",))]}
    text = asking("protocol = 'cross-data'\nsplit_by = 'dataset'\nheads = ['knn']\ntrain = 'each'")
    found = expand(written(tmp_path, text), known)
    assert [one.train for one in found] == [("a",), ("b",)]
    assert {one.datasets for one in found} == {("a", "b", "c")}


def test_named_data_sets_or_tables_train(tmp_path):
    known = {"some": [outline("a"), outline("b")], "more": [outline("c", collection="primary")]}
    text = asking("protocol = 'cross-data'\nsplit_by = 'dataset'\nheads = ['knn']\ntrain = TRAIN")
    for train, names in (("['some']", ("a", "b")), ("['b']", ("b",)), ("'primary'", ("c",))):
        (found,) = expand(written(tmp_path, text.replace("TRAIN", train)), known)
        assert found.train == names
    with pytest.raises(InvalidInput, match="ask 1: train names 'd'"):
        expand(written(tmp_path, text.replace("TRAIN", "['d']")), known)
    with pytest.raises(InvalidInput, match="leaves nothing to train on, or nothing to test"):
        expand(written(tmp_path, text.replace("TRAIN", "['some', 'more']")), known)


def test_a_facet_value_with_nothing_to_leave_out_is_not_asked(tmp_path):
    far = outline("c", facets=dict.fromkeys(("tissue", "cancer_type", "drug_type", "regimen"), "other"))
    known = {"some": [outline("a", studies=("s",)), outline("b", studies=("s",)), far]}
    text = asking("protocol = 'cross-data'\nsplit_by = ['dataset', 'study']\nfacet = 'tissue'\nheads = ['knn']")
    found = expand(written(tmp_path, text), known)
    assert [(one.facet_value, one.split_by) for one in found] == [("one", "dataset")]


def test_strategies_are_for_the_models_that_can_and_options_for_whom_they_name():
    question, known = one_question.Experiment("", "", ()), [outline("a")]
    options = {"lora": {"r": 4}, "mlp": {"epochs": 3}, "freeze": {}}
    found = expand_grid(
        question, known, ["constant", "hvg-pca", "scgpt-mini"], None, ["freeze", "lora"], [0], options=options
    )
    assert [(one.model, one.strategy, dict(one.options)) for one in found] == [
        ("constant", "freeze", {}),
        ("hvg-pca", "freeze", {"epochs": 3}),
        ("scgpt-mini", "freeze", {"epochs": 3}),
        ("scgpt-mini", "lora", {"r": 4}),
    ]
    with pytest.raises(InvalidInput, match="'hvg' cannot be asked with the strategy lora"):
        expand_grid(question, known, ["hvg"], None, ["lora"], [0])
    with pytest.raises(InvalidInput, match="no strategy 'tune'"):
        expand_grid(question, known, ["hvg"], None, ["tune"], [0])
    with pytest.raises(UnknownName, match="no option 'rank'"):
        expand_grid(question, known, ["scgpt-mini"], None, ["lora"], [0], options={"lora": {"rank": 4}})


def test_the_wording_of_a_prompt_is_part_of_the_experiment(monkeypatch):
    question, known = one_question.Experiment("", "", ()), [outline("a")]
    (found,) = expand_grid(question, known, ["gpt-4o-mini"], None, ["prompt"], [0])
    monkeypatch.setattr(one_question, "prompt_hash", lambda: "other words")
    (other,) = expand_grid(question, known, ["gpt-4o-mini"], None, ["prompt"], [0])
    assert found.run_id != other.run_id


def test_settings_of_a_model_are_part_of_the_experiment_and_are_checked():
    question, known = one_question.Experiment("", "", ()), [outline("a")]
    (found,) = expand_grid(
        question, known, ["scgpt-mini"], None, ["freeze"], [0], knobs={"scgpt-mini": {"max_length": 300}}
    )
    assert found.settings == (("max_length", 300),)
    with pytest.raises(UnknownName, match="no setting called 'length'"):
        expand_grid(question, known, ["scgpt-mini"], None, ["freeze"], [0], knobs={"scgpt-mini": {"length": 3}})


def test_two_data_sets_of_one_name_and_other_cells_are_refused(tmp_path):
    other = outline("a", n_cells=11)
    known = {"some": [outline("a")], "more": [DatasetSummary(**vars(other) | {"content": "sha256:other"})]}
    with pytest.raises(ScDrugMapError, match="called 'a' and hold other cells"):
        Grid.over(written(tmp_path, asking("")), known)


def test_every_key_of_a_question_is_documented():
    text = (ROOT / "docs" / "reproducing.md").read_text()
    table = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    assert {f"`{name}`" for name in Ask.model_fields} <= set(re.findall(r"`\w+`", table))


def test_the_documented_costs_are_what_the_command_computes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    work = importlib.import_module("cost").of_plan
    text = (ROOT / "docs" / "reproducing.md").read_text()
    for name in ("paper-pooled-tissue", "paper-cross-data-tissue", "paper-external"):
        cells = work(ROOT / "benchmarks" / "plans" / f"{name}.toml")
        frozen, lora = (cells["scgpt", strategy] / 1e6 for strategy in ("freeze", "lora"))
        assert f"| `{name}.toml` | {frozen:.2f} million | {lora:.1f} million |" in text
