"""What an audit, a split, a test and a plan say of data: each verdict on both sides of the number that decides it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from scdrugmap.cli.data import _MARKS
from scdrugmap.data.catalog.catalog import DATASETS
from scdrugmap.evaluation.analysis.score_matrix import DROPPED, ScoreMatrix, with_names
from scdrugmap.evaluation.analysis.significance import compare_blocks
from scdrugmap.evaluation.audit.audit import _CONF, _DATASETS, _SPLITS
from scdrugmap.evaluation.audit.findings import ORDER, Finding, find
from scdrugmap.evaluation.audit.overlap import SHARED
from scdrugmap.evaluation.cells.cell_table import CellMetadata
from scdrugmap.evaluation.plan.eta import in_words
from scdrugmap.evaluation.plan.preflight import Preflight, estimate_hours
from scdrugmap.evaluation.splits.protocols import warnings


# ---- an audit ------------------------------------------------------------------------------------------------------
def findings(cells: tuple[int, int] = (80, 80), *, shared=(), confounding=(), splits=(), sets: int = 1, cards=()):
    """Audit so many data sets with so many sensitive and resistant cells each; the rest is what tables hold."""
    sets_of = [{"dataset": f"d{i}", "study": f"s{i}", "source": "cells", "sensitive": cells[0], "resistant": cells[1]}
               for i in range(sets)]  # fmt: skip
    tables = ((sets_of, _DATASETS), (shared, SHARED), (confounding, _CONF), (splits, _SPLITS))
    frames = [pl.DataFrame([{name: row.get(name) for name in types} for row in rows], schema=types)
              for rows, types in tables]  # fmt: skip
    return find(*frames, cards)


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.level, one.said) for one in found]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        pytest.param((0, 0), "d0 has no labelled cell: it can be predicted, but neither train nor be scored.",
                     id="no labelled cell"),
        pytest.param((0, 90), "d0 has no sensitive cell among 90: others can be tested on it, without an AUROC.",
                     id="no sensitive cell"),
        pytest.param((90, 0), "d0 has no resistant cell among 90: others can be tested on it, without an AUROC.",
                     id="no resistant cell"),
        pytest.param((49, 50), "d0 has 49 sensitive cells only: its scores hang on a handful.", id="few sensitive"),
        pytest.param((50, 49), "d0 has 49 resistant cells only: its scores hang on a handful.", id="few resistant"),
        pytest.param((9, 8), "d0 has 9 sensitive and 8 resistant cells only: its scores hang on a handful.", id="few"),
        pytest.param((50, 50), "", id="fifty of each are enough"),
    ],
)  # fmt: skip
def test_an_audit_says_where_cells_of_a_class_are_few_or_absent(cells, said):
    assert told(findings(cells)) == ([("caution", said)] if said else [])


UNIT = {"group": "d0", "unit": "sample", "units": 12, "units_sensitive": 6, "units_resistant": 6, "units_mixed": 0,
        "auroc": 1.0}  # fmt: skip
ALONE = "A split by cell tells samples apart, and a split by sample cannot be made."


@pytest.mark.parametrize(
    ("row", "level", "said"),
    [
        pytest.param({"units_sensitive": 1}, "problem", f"all sensitive cells are of one sample. {ALONE}", id="one S"),
        pytest.param({"units_resistant": 1}, "problem", f"all resistant cells are of one sample. {ALONE}", id="one R"),
        pytest.param({"units_sensitive": 1, "units_resistant": 1}, "problem",
                     "all sensitive cells are of one sample and all resistant cells are of one sample.", id="one each"),
        pytest.param({"units_sensitive": 4}, "caution", "is fair, but with 4 of a class its interval says little.",
                     id="four samples of a class"),
        pytest.param({"units_sensitive": 5}, "caution", "A split by sample is fair.", id="five samples of a class"),
        pytest.param({"units_mixed": 3, "auroc": 0.61}, "caution", "recognising the sample alone gives AUROC 0.61",
                     id="labels go with mixed samples"),
        pytest.param({"units_mixed": 3, "auroc": 0.6}, "good", "labels do not go with the sample: recognising it gives",
                     id="labels do not go with mixed samples"),
    ],
)  # fmt: skip
def test_an_audit_says_how_labels_go_with_samples(row, level, said):
    ((found, text),) = told(findings(confounding=[UNIT | row]))
    assert found == level
    assert said in text


def test_an_audit_says_why_a_split_by_mixed_samples_cannot_be_made():
    split = {"group": "d0", "protocol": "pooled", "split_by": "sample", "possible": False, "reason": "Too few."}
    mixed = UNIT | {"units_mixed": 3, "auroc": 0.5}
    assert told(findings(confounding=[mixed], splits=[split])) == [
        ("caution", "d0: it cannot be split by sample. Too few.")
    ]


PAIR = dict.fromkeys(SHARED, 0) | {"a": "d0", "b": "d1", "smaller": 100}


@pytest.mark.parametrize(
    ("row", "level", "said", "apart"),
    [
        pytest.param({"cells": 5}, "problem", "d0 and d1 share 5 cells (5% of the smaller set). A", False, id="copies"),
        pytest.param({"cells": 5, "contrary": 2}, "problem", ", 2 of them under contrary labels", False, id="contrary"),
        pytest.param({"samples": 1}, "caution", "d0 and d1 share 1 sample: to leave one of", True, id="a sample"),
        pytest.param({"same_barcodes": 11}, "caution", "share 11 barcodes on cells whose", False, id="many barcodes"),
        pytest.param({"same_barcodes": 10}, "good", "No cell stands in two", True, id="barcodes by chance"),
        pytest.param({"b": "d0", "cells": 1}, "caution", "d0 holds 1 copy of its own cells;", True, id="own copies"),
    ],
)
def test_an_audit_says_what_two_data_sets_share(row, level, said, apart):
    found = {one.level: one.said for one in findings(shared=[PAIR | row], sets=2)}
    assert said in found[level]
    assert found.get("good", "").startswith("No cell stands in two of the 2 data sets") == apart


def test_verdicts_are_listed_and_marked_with_the_gravest_first():
    rows = [UNIT | {"units_sensitive": 1}, UNIT | {"group": "d1", "units_mixed": 3, "auroc": 0.5}]
    found = findings((9, 90), confounding=rows, cards=[DATASETS["gse149214"]])
    assert [one.level for one in found] == sorted((one.level for one in found), key=list(_MARKS).index)
    assert {one.level for one in found} == set(ORDER)
    assert _MARKS == {"problem": "x", "caution": "!", "unknown": "?", "good": "v"}


# ---- splits --------------------------------------------------------------------------------------------------------
LEAKS = "leaks: every sample has one label, and a split by cell puts its cells on both sides"


def cohort(labels: str, samples: str) -> CellMetadata:
    """One cell a letter; a sample is a patient."""
    named = np.array(list(samples))
    full = {"s": "sensitive", "r": "resistant"}
    label = np.array([full[letter] for letter in labels], dtype=object)
    same = np.full(len(named), "d")
    return CellMetadata(np.arange(len(named)).astype(str), same, same, named, named, label, np.arange(len(named)))


@pytest.mark.parametrize(
    ("labels", "samples", "split_by", "said"),
    [
        pytest.param("ssrr", "aabc", "sample", ["confounded (label = sample): all sensitive cells are of one sample"],
                     id="one sensitive sample"),
        pytest.param("ssrr", "abcc", "sample", ["confounded (label = sample): all resistant cells are of one sample"],
                     id="one resistant sample"),
        pytest.param("ssrr", "abcd", "cell", [LEAKS], id="pure samples, split by cell"),
        pytest.param("ssrr", "abcd", "sample", [], id="pure samples, kept whole"),
        pytest.param("srsr", "aabb", "cell", [], id="samples of both labels"),
    ],
)  # fmt: skip
def test_a_split_warns_of_labels_that_go_with_samples(labels, samples, split_by, said):
    assert warnings(cohort(labels, samples), split_by) == said


# ---- tests over data sets ------------------------------------------------------------------------------------------
def compared(n: int, difference: float, dropped: int = 0):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.01, (n, 3)) + difference * np.arange(3)
    entries = pl.DataFrame({"model": list("abc"), "head": "mlp", "strategy": "freeze", "variant": "", "shots": None})
    gone = [("entry", f"e{i}", 1, n, "") for i in range(dropped)]
    table = ScoreMatrix(
        "f1", with_names(entries.with_columns(pl.col("shots").cast(pl.Int64))), tuple(map(str, range(n))), values,
        pl.DataFrame(gone, schema=DROPPED, orient="row"),
    )  # fmt: skip
    return " ".join(compare_blocks(table, draws=10).remarks)


@pytest.mark.parametrize(("n", "few"), [(6, True), (7, False)], ids=["six data sets", "seven data sets"])
def test_a_comparison_says_where_no_difference_between_two_entries_can_be_shown(n, few):
    assert ("no difference between two entries can be shown, however large" in compared(n, 1.0)) == few


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        pytest.param(1.0, "the entries are not all alike.", id="entries that differ on every data set"),
        pytest.param(0.0, "the entries are not shown to differ at all, so that no pair should be read.", id="noise"),
    ],
)
def test_a_comparison_says_whether_entries_differ_at_all(difference, said):
    assert said in compared(8, difference)


@pytest.mark.parametrize(
    ("dropped", "said"), [(0, ""), (1, "1 entry."), (2, "2 entries.")], ids=["nothing", "one entry", "two entries"]
)
def test_a_comparison_says_what_it_left_out(dropped, said):
    assert compared(8, 1.0, dropped).endswith(f"Left out, since they were not scored everywhere: {said}") == bool(said)
    assert ("Left out" in compared(8, 1.0, dropped)) == bool(said)


# ---- what a plan lacks ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        pytest.param(((), 0, {}, {}), [], id="nothing is lacking"),
        pytest.param((tuple("abc"), 5, {}, {}), ["3 of the plan's 5 catalogue data sets have no cells on this machine: "
                     "a, b, c. "], id="three data sets are all named"),
        pytest.param((tuple("abcd"), 5, {}, {}), ["a, b, c and 1 more. "], id="of four data sets three are named"),
        pytest.param(((), 0, {"uce": 1}, {}), ["uce has no weights here: 1 experiment would be"], id="weights"),
        pytest.param(((), 0, {}, {"gpt": 2}), ["costs money: 2 experiments need your consent."], id="consent"),
    ],
)  # fmt: skip
def test_a_plan_says_what_it_lacks(lacking, said, settings):
    found = list(Preflight(*lacking).sentences(settings))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_a_plan_of_baselines_has_no_price():
    assert estimate_hours([], {}) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "unknown"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
    ids=["unknown", "seconds", "minutes from 90 s on", "minutes", "hours from 90 min on"],
)
def test_a_duration_is_said_as_a_person_would(seconds, said):
    assert in_words(seconds) == said
