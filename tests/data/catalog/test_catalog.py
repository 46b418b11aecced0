from __future__ import annotations

import csv
import itertools
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from places import FACTS
from pydantic import ValidationError

from scdrugmap.data.catalog.card import CONFIDENCE
from scdrugmap.data.catalog.catalog import (
    CATALOG,
    DATASETS,
    cell_count,
    facets,
    pool_of,
    published_groups,
    read_card,
    table,
)
from scdrugmap.data.catalog.regimens import split_regimen
from scdrugmap.errors import InvalidInput, UnknownName

CLASSES = ("cells_sensitive", "cells_resistant")
NOT_STATED = {"", "NA", "Unknown", "NA (less information is provided in this letter to editor)"}
# catalogue.csv tells of this slip in its note and holds the right word already.
SLIP_IN_NOTE = ("gse164897-vemurafenib-trametinib", "cancer_subtype")


def read(name):
    with (FACTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


CATALOGUE = read("catalogue.csv")
FACET_TABLE = read("facets.csv")
TOML = (CATALOG / "gse139386.toml").read_text("utf-8")
TOML_WITHOUT_CELLS = "\n".join(line for line in TOML.splitlines() if not line.startswith("cells_"))
PAPER = [key for key, card in DATASETS.items() if card.collection != "added"]


def members(row):
    return row["members_as_published"].split(";") if row["facet"] != "all" else keys_of(row["collection"])


def keys_of(collection):
    return [row["key"] for row in CATALOGUE if row["collection"] == collection]


# ---- what the source says -----------------------------------------------------------------------------------------


def test_the_cards_are_the_rows_of_the_source_in_its_order():
    assert [row["key"] for row in CATALOGUE] == PAPER
    assert [len(keys_of(c)) for c in ("primary", "external")] == [36, 24]
    preprint = [key for key in keys_of("external") if DATASETS[key].in_preprint]
    assert (len(preprint), cell_count(preprint).total) == (17, 18_856)


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row["key"])
def test_every_published_value_can_be_had_from_the_card(row):
    card = DATASETS[row["key"]]
    same = ("collection", "accession", "subgroup", "tissue", "cancer_type", "cancer_subtype", "drug_type", "regimen")
    same += ("organism", "time_point", "label_basis", "raw_data", "protocol", "processing")
    for field in same:
        if (card.key, field) != SLIP_IN_NOTE:
            stated = "" if row[field] in NOT_STATED else row[field]
            assert (card.published(field) or "") == stated, field
    assert card.published("material") == row["source"]
    assert card.published("public_since") == datetime.strptime(row["public_since"], "%b %d, %Y").date()
    assert (f"Data{card.series}", card.in_preprint) == (row["series"], row["in_preprint"] == "yes")
    for field in ("samples_sensitive", "samples_resistant", "samples_total", "pmid"):
        assert str(card.published(field) or "") == row[field], field
    if card.cells_source != "derived from facet sums":
        for field in (*CLASSES, "cells"):
            assert ("" if card.published(field) is None else str(card.published(field))) == row[field], field


CORRECTED = {
    "gse140440": {"material": "DU145 and PC3 cell lines"},
    "gse150930": {
        "cancer_type": "MALT lymphoma",
        "cancer_subtype": "Mucosa-associated lymphoid tissue (MALT) lymphoma",
    },
    "gse164897-vemurafenib-cobimetinib": {"subgroup": "GSE164897_vemurafenib + cobimetinib"},
    "gse164897-vemurafenib-trametinib": {"cancer_subtype": "BRAFV600E-mutant melanoma"},
    "gse207422-toripalimab-carboplatin": {
        "regimen": "toripalimab + carboplatin + (docetaxel or pemetrexed or gemcitabine)"
    },
    "gse207422-sintilimab-carboplatin": {
        "regimen": "sintilimab + carboplatin + (docetaxel or pemetrexed or gemcitabine)"
    },
    "gse247684-a375": {
        "cancer_type": "Melanoma",
        "cancer_subtype": "BRAFV600E-mutant melanoma",
        "material": "A375 cell line",
        "samples_total": 18,
    },
    "gse247684-pc9": {
        "cancer_type": "Non-small cell lung cancer",
        "cancer_subtype": "EGFR-mutated non-small cell lung cancer (NSCLC)",
        "material": "PC9 cell line",
        "samples_total": 18,
    },
    "gse247689-cov362": {"material": "COV362 cell line"},
    "gse247689-ovsaho": {"material": "Ovsaho cell line"},
    "gse154930-hct116": {"material": "HCT116 cell line"},
    "gse154930-sw480": {"material": "SW480 cell line"},
    "gse120575-anti-ctla4-pd1": {"public_since": date(2018, 10, 5)},
    "gse262288": {
        "cancer_type": "Breast cancer",
        "cancer_subtype": "Metastatic HR+/HER2- breast cancer",
        "drug_type": "Targeted therapy",
    },
} | {
    f"gse131984-{arm}": {"public_since": date(2020, 4, 8)}
    for arm in ("jq1", "palbociclib", "jq1-paclitaxel", "jq1-palbociclib")
}


def test_the_corrections_are_these_and_no_others():
    found = {key: {c.field: c.corrected for c in DATASETS[key].corrections} for key in PAPER}
    assert {key: fields for key, fields in found.items() if fields} == CORRECTED
    for key in CORRECTED:
        for correction in DATASETS[key].corrections:
            assert correction.published == DATASETS[key].published(correction.field) != correction.corrected
            assert correction.why.endswith(".")
    assert DATASETS[SLIP_IN_NOTE[0]].published(SLIP_IN_NOTE[1]) == "B+E2:E57RAFV600E-mutant melanoma"


def test_one_accession_has_one_date_article_and_archive():
    for field in ("public_since", "pmid", "raw_data", "protocol"):
        by_study = {card.study: set() for card in DATASETS.values()}
        for card in DATASETS.values():
            by_study[card.study].add(getattr(card, field))
        assert all(len(values) == 1 for values in by_study.values()), field


# ---- facets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FACET_TABLE, ids=lambda row: f"{row['collection']}-{row['facet']}-{row['value'][:20]}")
def test_published_facets_are_rebuilt_with_their_sums(row):
    rebuilt = facets(row["collection"], published=True)[row["facet"]][row["value"]]
    assert sorted(rebuilt) == sorted(members(row))
    as_rows = facets(row["collection"])[row["facet"]].get(row["value"])
    summed = as_rows if row["value"] == "Acute lymphoblastic leukemia" else rebuilt  # its members are misnamed
    count = cell_count(summed)
    assert (count.sensitive, count.resistant, count.total) == tuple(int(row[c]) for c in (*CLASSES, "cells"))
    assert count.uncounted == ()


@pytest.mark.parametrize("collection", ["primary", "external"])
def test_published_facets_have_no_values_that_the_source_lacks(collection):
    published = facets(collection, published=True)
    for facet in ("all", "tissue", "cancer_type", "drug_type"):
        stated = {row["value"] for row in FACET_TABLE if (row["collection"], row["facet"]) == (collection, facet)}
        assert set(published[facet]) == stated


def test_our_facets_leave_the_published_ones_only_where_a_correction_says_so():
    differing = {
        (row["collection"], row["facet"], row["value"])
        for row in FACET_TABLE
        if sorted(facets(row["collection"])[row["facet"]].get(row["value"], [])) != sorted(members(row))
    }
    platinum = "{} + carboplatin + (docetaxel or pemetrexed or emcitabine)"
    assert differing == {
        ("primary", "cancer_type", "Chronic lymphocytic leukemia"),
        ("primary", "cancer_type", "Acute lymphoblastic leukemia"),
        ("primary", "regimen", platinum.format("toripalimab")),
        ("primary", "regimen", platinum.format("sintilimab")),
        ("external", "cancer_type", "Ovarian cancer"),
        ("external", "cancer_type", "Melanoma"),
        ("external", "cancer_type", "Non-small cell lung cancer"),
        ("external", "drug_type", "Immunotherapy"),
        ("external", "drug_type", "Targeted therapy"),
        ("external", "tissue", "Organoid"),
        ("external", "tissue", "Tumor tissue"),
    }
    ours = facets("external")
    assert "gse247684-a375" in ours["cancer_type"]["Melanoma"]
    assert "gse247684-pc9" in ours["cancer_type"]["Non-small cell lung cancer"]
    assert "gse262288" in ours["drug_type"]["Targeted therapy"]
    assert facets("primary")["cancer_type"]["MALT lymphoma"] == ["gse150930"]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("collection", [None, "primary", "external"])
def test_facets_hold_each_set_once(collection, published):
    for facet, values in facets(collection, published=published).items():
        keys = [key for value, group in values.items() for key in group if value != "Acute lymphoblastic leukemia"]
        assert len(keys) == len(set(keys)), facet
        assert values.keys() == {value for value, group in values.items() if group}


def test_both_collections_together_use_the_broader_cancer_names():
    together = facets()["cancer_type"]
    assert {"Non-small cell lung cancer", "Hepatocellular cancer"}.isdisjoint(together)
    assert {"gse149214", "gse240118-sotorasib", "gse247684-pc9"} <= set(together["Lung cancer"])
    assert {"gse175716", "gse255830"} <= set(together["Liver cancer"])


def test_an_unknown_collection_is_named():
    with pytest.raises(UnknownName, match="'validation'") as caught:
        facets("validation")
    assert "primary, external" in caught.value.remedy


# ---- cells that only sums pin down ---------------------------------------------------------------------------------


def sums_over_unknown_sets():
    """Linear system of the published sums: 0/1 matrix (n_rows, n_sets), right-hand sides (n_rows, 2), set names."""
    known = {row["key"]: [int(row[c]) for c in CLASSES] for row in CATALOGUE if row["cells"]}
    unknown = [row["key"] for row in CATALOGUE if not row["cells"]]
    matrix, sums = [], []
    for row in FACET_TABLE:
        truth = ["gse153697", "gse158457"] if row["value"] == "Acute lymphoblastic leukemia" else members(row)
        matrix.append([float(key in truth) for key in unknown])
        sums.append([int(row[c]) - sum(known[key][i] for key in truth if key in known) for i, c in enumerate(CLASSES)])
    return np.array(matrix), np.array(sums), unknown


def solve(matrix, sums, group):
    """Cells of a group of sets, (2,) int, if the sums pin them down, else None."""
    weights, *_ = np.linalg.lstsq(matrix.T, group, rcond=None)
    return np.rint(weights @ sums).astype(int) if np.allclose(weights @ matrix, group, atol=1e-9) else None


def test_the_published_sums_contradict_neither_themselves_nor_the_rows():
    matrix, sums, unknown = sums_over_unknown_sets()
    residual = sums - matrix @ np.linalg.lstsq(matrix, sums, rcond=None)[0]
    assert np.abs(residual).max() < 1e-6
    assert np.linalg.matrix_rank(matrix) == len(published_groups().pools) + 2 < len(unknown)


def test_derived_cells_are_the_only_ones_that_the_sums_pin_down():
    matrix, sums, unknown = sums_over_unknown_sets()
    for index, key in enumerate(unknown):
        card = DATASETS[key]
        cells = solve(matrix, sums, np.eye(len(unknown))[index])
        found = None if cells is None else tuple(cells)
        assert found == (None if card.cells is None else (card.cells_sensitive, card.cells_resistant)), key
        assert card.cells_source == (None if cells is None else "derived from facet sums")


@pytest.mark.parametrize("pool", published_groups().pools, ids=lambda pool: pool.members[0])
def test_pools_follow_from_the_sums_and_cannot_be_split(pool):
    matrix, sums, unknown = sums_over_unknown_sets()
    for size in range(1, len(pool.members) + 1):
        for part in itertools.combinations(pool.members, size):
            cells = solve(matrix, sums, np.array([float(key in part) for key in unknown]))
            if size == len(pool.members):
                assert tuple(cells) == (pool.cells_sensitive, pool.cells_resistant)
            else:
                assert cells is None, part


def test_the_pools_hold_each_set_of_unknown_size_once():
    pooled = [key for pool in published_groups().pools for key in pool.members]
    assert sorted(pooled) == sorted(key for key in PAPER if DATASETS[key].cells is None)
    assert pool_of("gse163836") == pool_of("gse131984-paclitaxel")
    assert pool_of("gse139386") is None


def test_each_card_says_where_its_cells_come_from():
    assert DATASETS["gse163836"].cells_note.endswith(
        "Together with gse131984-paclitaxel it has 9,171 cells: 3,039 sensitive, 6,132 resistant."
    )
    assert DATASETS["gse138267"].cells_note.startswith("Derived")
    assert DATASETS["gse139386"].cells_note.startswith("The source gives these numbers")
    assert read_card("gse1", TOML_WITHOUT_CELLS).cells_note.startswith("The source does not say")


def test_a_part_of_a_pool_is_said_to_be_uncounted():
    count = cell_count(["gse139386", "gse163836"])
    assert (count.total, count.uncounted) == (6986, ("gse163836",))
    assert cell_count(["gse163836", "gse131984-paclitaxel", "gse163836"]).total == 9171


# ---- what is derived -----------------------------------------------------------------------------------------------


def test_confounding_agrees_with_a_count_over_the_sources_rows():
    primary = [DATASETS[key] for key in keys_of("primary")]
    assert sum("time point" in card.confounded for card in primary) == 22
    assert sum("sample" in card.confounded for card in primary) == 24
    assert sum(card.samples_total == 2 for card in primary) == 14
    assert {card.label_level for card in DATASETS.values()} == {"sample"}


@pytest.mark.parametrize(
    ("key", "confounded", "confidence", "begins"),
    [
        ("gse164897-vemurafenib", ("sample", "time point"), "very low", "Label = sample = time point"),
        ("gse175716", ("sample",), "low", "Label = sample:"),
        ("gse140440", ("time point",), "low", "Label = time point"),
        ("gse161801-imid-pre", (), "moderate", None),
        ("gse120575-anti-pd1", (), "high", None),
    ],
)
def test_confounding_confidence_and_warning_follow_from_basis_and_samples(key, confounded, confidence, begins):
    card = DATASETS[key]
    assert card.confounded == confounded
    assert card.confidence == confidence
    assert confidence in CONFIDENCE
    assert ("confounded" in card.flags) == bool(confounded)
    assert [w[: len(begins)] for w in card.warnings[:1]] == [begins] if begins else card.warnings == ()


def test_arms_of_one_study_share_their_controls():
    sharing = {key for key in PAPER if DATASETS[key].shares_controls_with}
    assert sharing == {key for key in PAPER if key.startswith(("gse131984-", "gse164897-"))}
    for key in sharing:
        card = DATASETS[key]
        assert set(card.shares_controls_with) == {k for k in sharing if DATASETS[k].study == card.study} - {key}
        assert card.cells_sensitive in (None, card.shared_sensitive_cells)
    assert "Shares 6,686 sensitive cells with 2 other data sets" in DATASETS["gse164897-vemurafenib"].warnings[1]
    assert DATASETS["gse131984-paclitaxel"].shared_sensitive_cells == 1061
    assert not any("shares_controls" in path.read_text("utf-8") for path in CATALOG.glob("*.toml"))


def test_a_handful_of_cells_is_warned_of():
    assert any("Only 8 sensitive cells" in warning for warning in DATASETS["gse164551"].warnings)


@pytest.mark.parametrize(
    ("regimen", "drugs"),
    [
        ("DARA-KRD (daratumumab + carfilzomib + dexamethasone)", ("daratumumab", "carfilzomib", "dexamethasone")),
        (
            "pomalidomide + dexamethasone OR lenalidomide + dexamethasone",
            ("pomalidomide", "dexamethasone", "lenalidomide"),
        ),
        ("toripalimab + (docetaxel or pemetrexed)", ("toripalimab", "docetaxel", "pemetrexed")),
        ("anti-CTLA4+PD-1", ("anti-CTLA4", "anti-PD-1")),
        ("anti-CD19 CAR-T", ("anti-CD19 CAR-T",)),
        ("oxaliplatin and 5-FU", ("oxaliplatin", "5-fluorouracil")),
        ("Camrelizumab combined with Anlotinib", ("camrelizumab", "anlotinib")),
        ("Cyclin-dependent kinase 4/6 inhibitors (CDK4/6is)", ("CDK4/6 inhibitors",)),
        ("KDM5-C70", ("KDM5-C70",)),
        ("", ()),
    ],
)
def test_a_regimen_is_split_into_its_drugs(regimen, drugs):
    assert split_regimen(regimen) == drugs


@pytest.mark.parametrize("card", DATASETS.values(), ids=lambda card: card.key)
def test_cards_are_whole(card):
    assert card.key == card.key.lower()
    assert card.study.lower() in card.key
    assert card.geo_url.endswith(card.accession)
    assert card.pubmed_url == (f"https://pubmed.ncbi.nlm.nih.gov/{card.pmid}/" if card.pmid else "")
    assert card.drugs or card.regimen is None
    assert "emcitabine" not in card.drugs
    assert card.share_sensitive is None or 0 < card.share_sensitive < 1
    assert all(sentence.endswith(".") for sentence in (*card.warnings, *card.notes))


def test_titles_tell_the_sets_apart():
    assert len({card.title for card in DATASETS.values()}) == len(DATASETS)
    assert DATASETS["gse161801-pi-pre"].title == "GSE161801 carfilzomib + dexamethasone, pre-treatment"


def test_the_table_has_a_typed_row_for_each_set():
    rows = table()
    assert rows["key"].to_list() == list(DATASETS)
    assert rows.schema["cells"] == pl.Int64
    assert rows.schema["drugs"] == pl.List(pl.String)
    assert rows.schema["public_since"] == pl.Date
    gemcitabine = rows.filter(pl.col("drugs").list.contains("gemcitabine"), pl.col("collection") == "primary")
    assert gemcitabine["accession"].to_list() == ["GSE186960", "GSE207422", "GSE207422"]
    assert rows["share_sensitive"].is_null().sum() == sum(card.cells is None for card in DATASETS.values())


def test_the_record_of_a_card_holds_all_it_says():
    record = DATASETS["gse262288"].to_record()
    assert record.keys() >= set(DATASETS["gse262288"].to_row()) | {"notes", "raw_data", "geo_url", "pooled_with"}
    assert {c["field"]: c["published"] for c in record["corrections"]}["drug_type"] == "Immunotherapy"
    assert "slips" not in record


# ---- a card that is wrong -------------------------------------------------------------------------------------------


def test_cards_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        DATASETS["gse139386"].tissue = "Blood"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (TOML + 'colour = "blue"', "colour: Extra inputs"),
        (TOML.replace('tissue = "Cell line"', ""), "tissue: Field required"),
        (TOML.replace('"primary"', '"secondary"'), "collection: Input should be"),
        (TOML.replace("samples_sensitive = 1", "samples_sensitive = 0"), "samples_sensitive"),
        (TOML.replace("cells_resistant = 4622", ""), "belong together"),
        (TOML + '[[slips]]\nfield = "tissue"\npublished = "Cell line"\nwhy = "."', "the slip of 'tissue'"),
        (TOML + '[[slips]]\nfield = "colour"\npublished = "blue"\nwhy = "."', "the slip of 'colour'"),
        ('time_point = "pre"\n' + TOML, "not all samples can be 'pre'"),
        (TOML + "oops", "is not a data set card"),
        ('key = "other"\n' + TOML, "multiple values for keyword argument 'key'"),
    ],
)
def test_a_wrong_card_is_refused_by_file_and_field(text, complaint):
    with pytest.raises(InvalidInput, match=r"catalog/gse139386\.toml") as caught:
        read_card("gse139386", text)
    assert complaint in str(caught.value)


def test_unknown_names_are_helped():
    with pytest.raises(UnknownName, match="Did you mean 'gse139386'"):
        DATASETS["GSE139386"]
    with pytest.raises(UnknownName, match="no field called 'tisue'"):
        DATASETS["gse139386"].published("tisue")
