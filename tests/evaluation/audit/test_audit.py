from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from scdrugmap.cli.data import data
from scdrugmap.data.simulate import simulate
from scdrugmap.errors import InvalidInput, UnknownName
from scdrugmap.evaluation.audit.audit import audit
from scdrugmap.evaluation.audit.findings import _together
from scdrugmap.evaluation.audit.overlap import SHARED


def apart(adata):
    """One AnnData a data set, as files are."""
    return [adata[adata.obs["dataset"] == name].copy() for name in adata.obs["dataset"].unique()]


def small(**options):
    return simulate(**{"n_cells": 120, "n_genes": 250, "n_samples": 4, "seed": 3} | options)


def said(found, kind: str, level: str | None = None) -> str:
    return "\n".join(one.said for one in found.findings if one.kind == kind and level in (None, one.level))


@pytest.fixture(scope="module")
def copied():
    """Three data sets of three studies that share 15 sensitive cells."""
    return simulate(n_cells=180, n_genes=250, n_samples=6, n_datasets=3, n_studies=3, duplicates=15, seed=5)


def test_planted_copies_are_found_and_counted(copied):
    found = audit(apart(copied))
    assert dict(found.shared.schema) == {name: kind() for name, kind in SHARED.items()}
    assert found.shared.select("cells", "same_label", "contrary", "samples").rows() == [(15, 15, 0, 0)] * 3
    assert set(found.shared["smaller"]) == {60}
    assert said(found, "shared cells", "problem").count("share 15 cells a pair (25% of a smaller set at most)") == 1


def test_one_file_of_several_data_sets_is_the_same_as_several_files(copied):
    assert audit([copied]).to_record() == audit(apart(copied)).to_record()


def test_contrary_labels_are_told(copied):
    sets = apart(copied)
    shared = [name.split("_")[-1] for name in sets[1].obs_names]
    first = [number for number, name in enumerate(sets[0].obs_names) if name.split("_")[-1] in shared][:4]
    assert len(first) == 4
    sets[0].obs.iloc[first, sets[0].obs.columns.get_loc("response")] = "resistant"
    found = audit(sets)
    a, b = sets[0].obs["dataset"].iloc[0], sets[1].obs["dataset"].iloc[0]
    assert found.shared.filter(a=a, b=b).select("cells", "same_label", "contrary").row(0) == (15, 11, 4)
    found = audit(sets[:2])
    assert "share 15 cells (25% of the smaller set), 4 of them under contrary labels" in said(found, "shared cells")


def test_copies_inside_one_data_set_are_counted():
    adata = small()
    twice = anndata.concat([adata, adata[:7]], index_unique="-")
    twice.uns = dict(adata.uns)
    found = audit([twice])
    assert found.shared.select("cells", "contrary").row(0) == (7, 0)
    assert "holds 7 copies of its own cells" in said(found, "copies")


def test_what_hangs_together_is_said_once():
    groups = dict(_together(pl.DataFrame([("a", "b"), ("d", "e"), ("c", "e"), ("b", "f")], ["a", "b"], orient="row")))
    assert {names: rows.height for names, rows in groups.items()} == {("a", "b", "f"): 2, ("c", "d", "e"): 2}


def test_independent_data_sets_share_nothing():
    found = audit(apart(small(n_datasets=2, n_studies=2)))
    assert found.shared.is_empty()
    assert "No cell stands in two of the 2 data sets" in said(found, "shared cells", "good")


def test_samples_and_patients_of_one_study_are_shared_and_of_two_are_not():
    sets = apart(small(n_datasets=2))
    for one in sets:
        one.obs["patient_or_line"] = pd.Categorical(["P1"] * one.n_obs)
    assert audit(sets).shared["patients_or_lines"].to_list() == [1]
    assert "share 1 patient or line" in said(audit(sets), "shared units")
    sets[1].obs["study"] = "simulated-other"
    assert audit(sets).shared.is_empty()


def test_barcodes_that_return_with_other_values_raise_suspicion():
    sets = apart(small(n_datasets=2))
    sets[1].obs_names = [f"again_{name.split('_')[-1]}" for name in sets[0].obs_names[: sets[1].n_obs]]
    found = audit(sets)
    assert found.shared["same_barcodes"].item() == sets[1].n_obs
    assert "may be the same cells, processed otherwise" in said(found, "shared cells", "caution")


def test_a_label_that_is_the_sample_is_a_problem():
    found = audit([small(confounded=True, n_samples=2)])
    row = found.confounding.row(by_predicate=pl.col("unit") == "sample", named=True)
    assert (row["units"], row["units_sensitive"], row["units_resistant"], row["auroc"]) == (2, 1, 1, 1.0)
    assert "label = sample: all sensitive cells are of one sample" in said(found, "label", "problem")
    possible = {row["split_by"]: row["possible"] for row in found.splits.iter_rows(named=True)}
    assert possible == {"cell": True, "sample": False, "patient_or_line": False}
    assert found.splits.filter(split_by="sample")["reason"].item().startswith("confounded (label = sample)")


def test_samples_of_one_label_each_are_a_caution():
    found = audit([small(confounded=True, n_samples=12, n_cells=240)])
    assert "each of 12 samples has one label (6 sensitive, 6 resistant)" in said(found, "label", "caution")
    assert "A split by sample is fair." in said(found, "label", "caution")
    few = audit([small(confounded=True, n_samples=4)])
    assert "but with 2 of a class its interval says little" in said(few, "label", "caution")


def test_labels_that_do_not_go_with_the_sample_are_good():
    found = audit([small(n_cells=400)])
    row = found.confounding.row(by_predicate=pl.col("unit") == "sample", named=True)
    assert row["units_mixed"] == 4
    assert 0.5 <= row["auroc"] < 0.6
    assert "labels do not go with the sample" in said(found, "label", "good")


def test_the_auroc_of_recognising_a_unit_is_that_of_its_share():
    adata = small(spread=0.3, n_cells=300)
    row = audit([adata]).confounding.row(by_predicate=pl.col("unit") == "sample", named=True)
    resistant = (adata.obs["response"] == "resistant").to_numpy()
    share = pd.Series(resistant).groupby(adata.obs["sample"].to_numpy()).transform("mean")
    assert row["auroc"] == pytest.approx(roc_auc_score(resistant, share))


def test_units_are_counted_by_class():
    adata = small()
    adata.obs.loc[adata.obs_names[:9], "response"] = np.nan
    found = audit([adata])
    assert found.datasets.select("sensitive", "resistant", "unlabelled").sum_horizontal().item() == 120
    assert found.datasets["unlabelled"].item() == 9
    units = found.units.filter(unit="sample")
    counted = pd.crosstab(adata.obs["sample"], adata.obs["response"])
    for row in units.iter_rows(named=True):
        assert (row["sensitive"], row["resistant"]) == tuple(counted.loc[row["name"], ["sensitive", "resistant"]])


def test_sets_without_labels_or_with_one_class_are_said():
    one, two = apart(small(n_datasets=2))
    one.obs["response"] = np.nan
    two = two[two.obs["response"] == "resistant"].copy()
    found = audit([one, two])
    assert "has no labelled cell" in said(found, "classes")
    assert "has no sensitive cell among" in said(found, "classes")
    assert not found.splits["possible"].any()
    assert found.confounding.is_empty()


def test_facets_say_what_stands_together():
    adata = small(n_datasets=3, n_studies=2, n_samples=6)
    names = adata.obs["dataset"].unique()
    adata.obs["tissue"] = adata.obs["dataset"].astype(str).map({names[0]: "Blood", names[1]: "Blood", names[2]: "Skin"})
    found = audit([adata], facet="tissue")
    groups = set(found.splits["group"])
    assert groups == {*names, "tissue Blood"}
    tried = found.splits.filter(group="tissue Blood")
    assert tried.filter(protocol="cross-data", split_by="dataset").select("possible", "folds").row(0) == (True, 2)
    everything = audit([adata]).splits.filter(group="all data sets", protocol="cross-data", split_by="study")
    assert everything["folds"].item() == 2
    with pytest.raises(InvalidInput, match="no facet called 'organ'"):
        audit([adata], facet="organ")


def test_scaled_values_stand_apart():
    sets = apart(small(n_datasets=4, n_samples=8, n_cells=240))
    for scaled in sets[:2]:
        scaled.uns["scdrugmap"] = {"input": {"value_type": "zscore"}}
    groups = set(audit(sets).splits["group"]) - {one.obs["dataset"].iloc[0] for one in sets}
    assert groups == {"all data sets", "all data sets of z-scores"}


def test_two_data_sets_of_one_name_are_refused():
    with pytest.raises(InvalidInput, match="Two of the data sets are called"):
        audit([small(), small(seed=4)])


def test_cards_say_what_they_know_where_cells_are_missing(settings):
    keys = ["gse164897-vemurafenib", "gse164897-vemurafenib-cobimetinib"]
    found = audit(keys, settings=settings)
    assert set(found.datasets["source"]) == {"card"}
    assert "share 6,686 sensitive cells by their cards; not checked" in said(found, "card", "problem")
    assert "are of one study (GSE164897)" in said(found, "card", "caution")
    assert "not on this machine, so that nothing was checked" in said(found, "card", "unknown")
    assert found.splits.is_empty()
    assert not said(found, "shared cells")
    with pytest.raises(UnknownName):
        audit(["gse-nothing"], settings=settings)


def test_a_built_set_is_read_and_meets_the_card_of_its_study(settings, tmp_path):
    adata = small(confounded=True)
    adata.obs["study"], adata.obs["dataset"] = "GSE164897", "gse164897-vemurafenib"
    settings.data.mkdir(parents=True)
    adata.write_h5ad(settings.data / "gse164897-vemurafenib.h5ad")
    found = audit(["gse164897-vemurafenib", "gse164897-vemurafenib-cobimetinib"], settings=settings)
    assert found.datasets["source"].to_list() == ["cells", "card"]
    assert "gse164897-vemurafenib, gse164897-vemurafenib-cobimetinib are of one study" in said(found, "card", "caution")


def test_the_gravest_comes_first(copied):
    levels = [one.level for one in audit([copied]).findings]
    assert levels == sorted(levels, key=["problem", "caution", "unknown", "good"].index)
    assert levels[0] == "problem"


def test_the_command_line_prints_people_a_table_and_programs_json(copied, settings, tmp_path):
    files = []
    for one in apart(copied):
        files.append(str(tmp_path / f"{one.obs['dataset'].iloc[0]}.h5ad"))
        one.write_h5ad(files[-1])
    shown = CliRunner().invoke(data, ["audit", *files])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("share 15 cells a pair (25% of a smaller set at most)") == 1
    assert "split_by" in shown.stdout
    read = json.loads(CliRunner().invoke(data, ["audit", *files, "--json"]).stdout)
    assert read["shared"] == audit(files).to_record()["shared"]
    assert {one["level"] for one in read["findings"]} >= {"problem"}
