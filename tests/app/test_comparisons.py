"""Every sentence of the app that compares two numbers, on both sides of the comparison, and where they are equal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from scdrugmap.app.datasets import text as datasets_text
from scdrugmap.app.home import text as home_text
from scdrugmap.app.models import frames, text
from scdrugmap.app.models.tables import tests_columns as columns_of_tests
from scdrugmap.app.predict import text as predict_text
from scdrugmap.app.transfer import text as transfer_text
from scdrugmap.app.ui import board as entries
from scdrugmap.app.ui import sentence

PICKS: dict[str, Any] = {
    "metric": "AUROC", "entry": "scGPT + MLP", "strategy": "freeze", "shots": "0", "other": None, "with": "",
    "split_by": "study",
}  # fmt: skip


# ---- home ----------------------------------------------------------------------------------------------------------
def figure(safe: float, constant: float, **more: Any) -> pl.DataFrame:
    model = {"title": "Model A", "kind": "foundation", "by_cell": 0.95, "safe": safe, "constant": constant}
    return pl.DataFrame([model | {"safe_name": "sample"} | more])


@pytest.mark.parametrize(
    ("safe", "constant", "verdict"),
    [
        pytest.param(0.81, 0.80, "**0.81**, above the 0.80 of", id="a model that beats the constant is above it"),
        pytest.param(0.79, 0.80, "**0.79**, not above the 0.80 of", id="a model under the constant is not above it"),
        pytest.param(0.80, 0.80, "**0.80**, not above the 0.80 of", id="a model at the constant is not above it"),
        pytest.param(0.804, 0.796, "**0.80**, not above the 0.80 of", id="two scores that print alike are not above"),
    ],
)
def test_home_says_whether_the_leak_safe_score_is_above_the_constant(safe, constant, verdict):
    assert verdict in home_text.headline(figure(safe, constant), "F1")


def test_home_speaks_of_the_best_model_and_names_the_best_baseline_beside_it():
    rows = pl.concat(
        [
            figure(0.70, 0.60, title="HVG", kind="baseline"),
            figure(0.65, 0.60, title="Best model"),
            figure(0.61, 0.60, title="Second model"),
            figure(0.50, 0.60, title="PCA", kind="baseline"),
        ]
    )
    said = home_text.headline(rows, "F1")
    assert "**Best model** scores" in said
    assert "Second model" not in said
    assert said.endswith("The best baseline, HVG, reaches 0.70.")
    assert "best baseline" not in home_text.headline(figure(0.70, 0.60, kind="baseline"), "F1")
    assert "best baseline" not in home_text.headline(figure(0.70, 0.60), "F1")


@pytest.mark.parametrize(
    ("p_resistant", "share"),
    [
        pytest.param([0.1, 0.2, 0.3, 0.4], "**0\u202f%**", id="no cell reaches the threshold"),
        pytest.param([0.1, 0.2, 0.5, 0.4], "**25\u202f%**", id="a cell at the threshold reaches it"),
        pytest.param([0.4, 0.6, 0.7, 0.9], "**75\u202f%**", id="cells above the threshold reach it"),
    ],
)
def test_the_share_of_cells_that_reach_the_threshold(p_resistant, share):
    assert predict_text.spread(pl.Series(p_resistant), 0.5).startswith(f"{share} of all cells reach 0.50")


def test_the_middle_half_is_said_from_its_lower_end_to_its_upper_one():
    said = predict_text.spread(pl.Series([0.0, 0.1, 0.5, 0.8, 1.0]), 0.5)
    assert said.endswith("the middle half lies between 0.10 and 0.80.")


# ---- numbers that a paper states -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "below"),
    [
        pytest.param([0.7, 0.8], "0 of 2 lie below it", id="all are above"),
        pytest.param([0.7, 0.5], "1 of 2 lie below it", id="one is below"),
        pytest.param([0.6, 0.5], "1 of 2 lie below it", id="one at its constant is not below it"),
        pytest.param([0.4, 0.5], "2 of 2 lie below it", id="all are below"),
    ],
)
def test_how_many_reported_numbers_lie_below_their_constant(values, below):
    assert below in text.reported_caption(pl.DataFrame({"value": values, "constant": [0.6, 0.6]}))


@pytest.mark.parametrize(
    ("value", "source", "named"),
    [
        pytest.param(0.6664, "reported", True, id="a number that prints as its constant"),
        pytest.param(0.668, "reported", False, id="a number above its constant"),
        pytest.param(0.665, "reported", False, id="a number below its constant"),
        pytest.param(0.6664, "measured", False, id="a number that was measured here"),
    ],
)
def test_only_reported_numbers_at_their_constant_are_told_as_such(value, source, named):
    row = {"title": "GPT", "on": "Lung", "value": value, "constant": 2 / 3, "prevalence": 0.5, "source": source}
    same = frames.at_constant(pl.DataFrame([row]))
    assert same.height == named
    assert ("Without the predictions nobody can tell the two apart" in text.at_constant(same)) == named


# ---- transfer ------------------------------------------------------------------------------------------------------
SIDES = [
    pytest.param(0.2, False, "better", id="an interval above the constant: better"),
    pytest.param(-0.2, False, "worse", id="an interval below the constant: worse"),
    pytest.param(0.2, True, "", id="a score above in an interval that holds the constant: nobody can tell"),
    pytest.param(-0.2, True, "", id="a score below in an interval that holds the constant: nobody can tell"),
    pytest.param(0.2, None, "", id="a score above without an interval: nobody can tell"),
    pytest.param(-0.2, None, "", id="a score below without an interval: nobody can tell"),
    pytest.param(0.0, False, "", id="no difference: nobody can tell"),
    pytest.param(None, None, "", id="no score: nobody can tell"),
]


@pytest.mark.parametrize(("better", "crosses", "side"), SIDES)
def test_a_score_is_on_a_side_of_its_constant_only_where_its_interval_is(better, crosses, side):
    assert transfer_text.against_constant(better, crosses) == side


@pytest.mark.parametrize(("better", "crosses", "side"), SIDES)
def test_the_sentence_of_a_pair_says_on_which_side_it_is(better, crosses, side):
    row = {"train": "a", "test": "b", "value": 0.7, "ci_low": 0.6, "ci_high": 0.8, "constant": 0.5}
    said = transfer_text.pair(row | {"better": better, "crosses": crosses}, PICKS)
    ends = {
        "better": "0.50: the model is clearly better.",
        "worse": "0.50: the model is clearly worse.",
        "": "0.50: the two cannot be told apart.",
    }
    assert said.endswith(ends[side])


def matrix(*pairs: tuple[float | None, bool | None]) -> pl.DataFrame:
    rows = [{"state": "measured", "better": better, "crosses": crosses} for better, crosses in pairs]
    rows += [{"state": "not run", "better": None, "crosses": None}]
    return pl.DataFrame(rows, schema={"state": pl.String, "better": pl.Float64, "crosses": pl.Boolean})


@pytest.mark.parametrize(
    ("pairs", "counts"),
    [
        pytest.param([(0.1, False)] * 3 + [(-0.1, False)], (4, 3, 1, 0), id="three clear it and one falls short"),
        pytest.param([(0.1, False)] + [(-0.1, False)] * 3, (4, 1, 3, 0), id="one clears it and three fall short"),
        pytest.param([(0.1, True), (-0.1, True), (0.1, None)], (3, 0, 0, 3), id="none can be told from it"),
        pytest.param([], (0, 0, 0, 0), id="nothing was measured"),
    ],
)
def test_the_sentence_above_the_matrix_counts_pairs_on_each_side(pairs, counts):
    n, above, below, rest = counts
    assert transfer_text.transfer(matrix(*pairs), PICKS).endswith(
        f"Of **{n}** measured pairs, **{above}** clear the constant classifier of the tested data set, "
        f"**{below}** fall short of it, and {rest} cannot be told from it."
    )


@pytest.mark.parametrize(
    ("other", "crosses", "colour", "dot"),
    [
        pytest.param(None, True, "colour: distance to the constant classifier of the column",
                     f"dot: the {sentence.INTERVAL} holds the constant", id="against the constant, with dots"),
        pytest.param(None, False, "colour: distance to the constant classifier of the column", "",
                     id="against the constant, without a dot"),
        pytest.param("hvg", False, "colour: difference",
                     f"dot: the intervals of the two overlap ({sentence.INTERVAL})", id="against an entry"),
    ],
)  # fmt: skip
def test_the_caption_of_the_matrix_says_what_colours_and_dots_compare(other, crosses, colour, dot):
    rows = {"train": ["a"], "test": ["b"], "n": [10], "seeds": [1], "crosses": [crosses], "state": ["measured"]}
    said = transfer_text.matrix_caption(pl.DataFrame(rows), PICKS | {"other": other}, "2026-01-01", simulated=False)
    assert said[2:4] == [colour, dot]


# ---- calibration ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overconfident", "sure"),
    [
        pytest.param(0.12, "on average, more sure than it is right.", id="farther from one half than it should be"),
        pytest.param(-0.12, "on average, less sure than it could be.", id="nearer to one half than it could be"),
        pytest.param(0.004, "on average, neither too sure nor too little.", id="too sure by 0.00"),
        pytest.param(-0.004, "on average, neither too sure nor too little.", id="too little sure by 0.00"),
    ],
)
def test_an_entry_is_more_sure_or_less_sure_than_it_is_right(overconfident, sure):
    row = {"title": "A", "ece": 0.2, "overconfident": overconfident, "brier": 0.2, "constant": 0.25}
    assert sure in text.calibration(pl.DataFrame([row]))


@pytest.mark.parametrize(
    ("brier", "side"),
    [
        pytest.param(0.2, "0.200 is below the 0.250 of", id="a better Brier score is below the constant's"),
        pytest.param(0.3, "0.300 is not below the 0.250 of", id="a worse Brier score is not below it"),
        pytest.param(0.25, "0.250 is not below the 0.250 of", id="the same Brier score is not below it"),
        pytest.param(0.2499, "0.250 is not below the 0.250 of", id="two Brier scores that print alike are not below"),
    ],
)
def test_a_brier_score_is_below_that_of_the_constant_or_not(brier, side):
    row = {"title": "A", "ece": 0.2, "overconfident": 0.1, "brier": brier, "constant": 0.25}
    assert side in text.calibration(pl.DataFrame([row]))


# ---- leakage gap ---------------------------------------------------------------------------------------------------
BOTH = {
    "protocol": "pooled", "facet": "all", "on": "set", "strategy": "freeze", "shots": "all", "design": "",
    "model": "a", "head": "mlp", "variant": "", "source": "measured", "ci_low": None, "ci_high": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "by_cell", "safe", "gap"),
    [
        pytest.param("f1", 0.9, 0.7, 0.2, id="a higher F1 by cell flatters"),
        pytest.param("f1", 0.7, 0.9, -0.2, id="a lower F1 by cell does not"),
        pytest.param("brier", 0.1, 0.3, 0.2, id="a lower Brier score by cell flatters"),
        pytest.param("brier", 0.3, 0.1, -0.2, id="a higher Brier score by cell does not"),
    ],
)
def test_a_leakage_gap_above_0_flatters_whatever_the_metric(metric, by_cell, safe, gap):
    sides = {"cell": by_cell, "sample": safe}
    board = pl.DataFrame([BOTH | {"metric": metric, "split_by": name, "value": sides[name]} for name in sides])
    assert entries.pairs(board, metric=metric)["gap"].item() == pytest.approx(gap)


def test_the_note_says_what_a_gap_above_0_means_and_says_nothing_without_an_interval():
    rows = pl.DataFrame({"gap_unit": ["sample", None], "gap_seeds": [3, None]})
    said = text.gap_note(rows)
    assert said.startswith("Gap: how much better the score is by cell than leak-safe, 95 % bootstrap interval over sam")
    assert said.endswith("means of 3 seeds. An interval above 0: the split by cell flatters.")
    none = pl.DataFrame({"gap_unit": [None], "gap_seeds": [None]}, schema={"gap_unit": pl.String, "gap_seeds": pl.Int8})
    assert text.gap_note(none) == "No interval: the predictions of these runs are not on this machine."


# ---- significance --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("smallest", "few"),
    [
        pytest.param(0.06, True, id="so few data sets that no pair can be told apart"),
        pytest.param(0.05, False, id="just enough data sets"),
        pytest.param(0.001, False, id="many data sets"),
    ],
)
def test_the_caption_of_mean_ranks_says_where_data_sets_are_few(smallest, few):
    found: Any = SimpleNamespace(smallest_p_holm=smallest, alpha=0.05, ranks=pl.DataFrame({"a": [1]}), n_datasets=4)
    said = text.significance_caption(found, {"metric": "F1", "protocol": "pooled", "split_by": "sample"})
    assert said[0].endswith("4 data sets (few: read the sentence above first)" if few else "4 data sets")


def test_the_table_of_tests_says_which_sign_is_better():
    assert columns_of_tests()["median_difference"]["help"] == "Over data sets; positive where the first is better."


# ---- captions that say what is not compared ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("split_by", "leaks"),
    [("cell", True), ("sample", False), ("patient_or_line", False), ("dataset", False), ("study", False)],
    ids=["by cell", "by sample", "by patient or line", "by data set", "by study"],
)
def test_only_a_split_by_cell_is_said_to_have_a_patient_on_both_sides(split_by, leaks):
    picks = {"split_by": split_by, "strategy": "any", "protocol": "pooled", "metric": "F1", "on": "a"}
    said = text.looking_at(picks, pl.DataFrame(schema={"source": pl.String}))
    assert ("cells of one patient stand on both sides" in said) == leaks
    assert ("were held out. Shown: nothing." in said) == (not leaks)


@pytest.mark.parametrize(
    ("same", "said"),
    [
        pytest.param(True, "", id="all points are tested on the same cells"),
        pytest.param(False, "5: tested on other cells of the target than the rest", id="one point is not"),
    ],
)
def test_a_point_of_a_few_shot_curve_on_other_cells_is_told(same, said):
    rows = {"train": [["a", "b"]] * 2, "shots": ["0", "5"], "n": [9, 8], "seeds": [1, 1], "same_cells": [True, same]}
    frame = pl.DataFrame(rows | {"interval": ["cells"] * 2, "test": ["c", "c"]})
    assert text.few_shot_caption(frame, "c", PICKS, "", simulated=False)[3] == said


@pytest.mark.parametrize("uncounted", [(), ("a",)], ids=["all cells are counted", "one data set has no count"])
def test_the_catalogue_says_of_how_many_data_sets_nobody_gives_the_cells(uncounted):
    cells: Any = SimpleNamespace(uncounted=uncounted, total=9)
    said = datasets_text.catalogue_caption(pl.DataFrame({"key": ["a", "b"]}), cells)[2]
    assert said == ("no source gives the cells of 1 of them" if uncounted else "")
