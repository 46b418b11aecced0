"""What the registry contract and the parity cases do not tell about Geneformer."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import safetensors.torch
import torch
from places import PARITY
from scipy import sparse

from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import load_model
from scdrugmap.models.checkpoints.load import empty_network
from scdrugmap.models.checkpoints.unpickle import read_dictionary
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.geneformer import card, convert
from scdrugmap.models.geneformer.card import CARD, SIZES
from scdrugmap.models.geneformer.tokens import Tokenizer

CASES = PARITY / "geneformer"
PUBLISHED = {  # millions of parameters, as upstream's names and pages count them: with the masked-gene head
    "Geneformer-V1-10M": 10.3,
    "gf-12L-30M-i2048": 39.6,
    "Geneformer-V2-104M": 104.4,
    "Geneformer-V2-104M_CLcancer": 104.4,
    "Geneformer-V2-316M": 316.4,
}
VOCABULARY = {
    "ensembl": {"ENSG1": 4, "ENSG2": 5, "ENSG3": 6, "ENSG9OLD": 5},
    "symbols": {"A": 4, "B": 5, "C": 6},
    "medians": [1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 4.0],
    "specials": {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3},
    "positions": 16,
}
V1 = VOCABULARY | {"specials": {"<pad>": 0, "<mask>": 1}}


def tokenizer(vocabulary=VOCABULARY, **settings) -> Tokenizer:
    return Tokenizer(vocabulary, dict(CARD.settings) | settings)


def cells(counts, symbols, ensembl=None) -> Cells:
    matrix = sparse.csr_matrix(np.array(counts, dtype=np.float32))
    ids = None if ensembl is None else np.array(ensembl, dtype=str)
    return Cells(matrix, np.array(symbols, dtype=str), ids, "counts", None)


def sentences(tokens) -> list[list[int]]:
    return [tokens.ids[tokens.cell(index)].tolist() for index in range(len(tokens))]


def copy_of(case: str, to: Path) -> Path:
    return Path(shutil.copytree(CASES / case / "checkpoint", to / case))


def model_of(folder: Path) -> Path:
    return next(folder.glob("*/config.json")).parent


@pytest.mark.parametrize("variant", SIZES)
def test_sizes_give_the_published_number_of_parameters(variant):
    sizes = SIZES[variant]
    network = empty_network(CARD, sizes, dict(CARD.settings) | {"emb_layer": 0})
    dim, tokens = sizes["dim"], sizes["n_tokens"]
    head = dim * dim + dim + 2 * dim + tokens  # dense, its norm, one bias a token; the matrix is the word table
    total = sum(parameter.numel() for parameter in network.parameters()) + head
    assert round(total / 1e6, 1) == PUBLISHED[variant]
    assert set(card.CARD.variants) == set(PUBLISHED)


def test_genes_are_ranked_by_count_over_median_between_the_special_tokens():
    both = cells([[4, 1, 9], [0, 3, 0]], ["A", "B", "C"])
    assert sentences(tokenizer().tokenize(both)) == [[2, 6, 4, 5, 3], [2, 5, 3]]
    assert sentences(tokenizer(V1).tokenize(both)) == [[6, 4, 5], [5]]
    assert sentences(tokenizer(max_length=4).tokenize(both)) == [[2, 6, 4, 3], [2, 5, 3]]


def test_ties_go_by_token_whatever_the_order_of_the_columns():
    names, counts = np.array(["C", "A", "B"]), np.array([8, 4, 2])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        tied = cells([counts[order]], names[order])
        assert sentences(tokenizer().tokenize(tied)) == [[2, 4, 5, 6, 3]]


def test_columns_of_one_current_id_are_summed():
    merged = cells([[3, 2, 2]], ["A", "B", "old B"], ["ENSG1", "ENSG2", "ensg9old"])
    assert sentences(tokenizer().tokenize(merged)) == [[2, 5, 4, 3]]  # 2 + 2 over 1 before 3 over 2


def test_an_ensembl_id_decides_and_a_name_helps_where_there_is_none():
    found = tokenizer().match(
        cells(
            [[1] * 8],
            ["A", "B", "C", "ENSG3", "ensg1", "A", "x", "C"],
            ["ENSG2", "ENSG2.4", "nan", "", "None", "ENSG77", "", "<NA>"],
        )
    )
    assert found.tolist() == [5, -1, 6, 6, 4, -1, -1, 6]
    assert tokenizer().match(cells([[1, 1]], ["C", "ENSG9OLD"])).tolist() == [6, 5]


@pytest.mark.parametrize(
    ("vocabulary", "settings"),
    [
        (VOCABULARY, {"max_length": 2}),
        (VOCABULARY, {"max_length": 17}),
        (V1, {"max_length": 0}),
        (V1, {"max_length": "all"}),
        (V1, {"emb_mode": "cls"}),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(vocabulary, settings):
    with pytest.raises(InvalidInput):
        tokenizer(vocabulary, **settings)


@pytest.mark.parametrize("wrong", [{"emb_layer": -2}, {"emb_mode": "mean"}])
def test_unknown_readouts_are_refused(settings, wrong):
    with pytest.raises(InvalidInput, match="is not known"):
        load_model("geneformer", weights=CASES / "v2" / "checkpoint", device="cpu", **wrong)


@pytest.mark.parametrize("case", ["v1", "v2"])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_an_empty_cell_is_a_vector_of_zeros_and_leaves_the_others_alone(settings, case, batch_size):
    adata = ad.read_h5ad(CASES / case / "input.h5ad")
    encoder = load_model("geneformer", weights=CASES / case / "checkpoint", device="cpu")
    whole = encoder.embed(adata)
    filled = np.ones(adata.n_obs)
    filled[[2, 3]] = 0
    adata.X = sparse.csr_matrix(sparse.diags(filled) @ adata.X)
    got = encoder.embed(adata, batch_size=batch_size)
    assert not got[[2, 3]].any()
    np.testing.assert_allclose(got[filled > 0], whole[filled > 0], rtol=0, atol=1e-5)


def test_symbols_alone_find_the_same_genes(settings):
    adata = ad.read_h5ad(CASES / "v1" / "input.h5ad")
    names = read_dictionary(next(CASES.glob("v1/checkpoint/**/gene_name_id_dict*.pkl")), str)
    adata = adata[:, [adata.var["ensembl_id"][name] == names.get(name) for name in adata.var_names]].copy()
    assert adata.n_vars > 200
    encoder = load_model("geneformer", weights=CASES / "v1" / "checkpoint", device="cpu")
    by_id = encoder.embed(adata)
    del adata.var["ensembl_id"]
    np.testing.assert_array_equal(encoder.embed(adata), by_id)


def test_the_last_layer_is_neither_kept_nor_run_unless_it_is_asked_for(settings):
    folder = CASES / "v2" / "checkpoint"
    layers = json.loads((model_of(folder) / "config.json").read_text())["num_hidden_layers"]
    assert len(load_model("geneformer", weights=folder, device="cpu").network.blocks) == layers - 1
    assert len(load_model("geneformer", weights=folder, device="cpu", emb_layer=0).network.blocks) == layers


def test_a_fine_tuned_classifier_loads_and_its_head_is_listed_as_unused(settings, tmp_path):
    folder = copy_of("v2", tmp_path)
    file = model_of(folder) / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("cls.")}
    head = {"bert.pooler.dense.weight": torch.zeros(4, 4), "classifier.weight": torch.zeros(3, 4)}
    safetensors.torch.save_file(state | head, file)
    expected = load_model("geneformer", weights=CASES / "v2" / "checkpoint", device="cpu")
    got = load_model("geneformer", weights=folder, device="cpu")
    cells = ad.read_h5ad(CASES / "v2" / "input.h5ad")
    np.testing.assert_array_equal(got.embed(cells), expected.embed(cells))
    assert got.weights_hash != expected.weights_hash
    upstream = convert.read(convert.files(folder), CARD.settings)
    assert all(name.startswith((*convert.UNUSED, *upstream.unused)) for name in head)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("bert.encoder.layer.1.attention.self.key.bias"), "lacks the tensor .*layer.1.*key"),
        (lambda state: state.update({"bert.encoder.layer.7.output.dense.bias": torch.zeros(2)}), "does not know"),
        (lambda state: state.update({"bert.embeddings.LayerNorm.bias": torch.zeros(3)}), r"shape \(3,\)"),
        (lambda state: state["bert.embeddings.LayerNorm.bias"].fill_(torch.nan), "NaN"),
    ],
)
def test_a_tensor_that_lacks_or_is_foreign_is_named(settings, tmp_path, change, says):
    folder = copy_of("v2", tmp_path)
    file = model_of(folder) / "model.safetensors"
    state = safetensors.torch.load_file(file)
    change(state)
    safetensors.torch.save_file(state, file)
    with pytest.raises(WeightsInvalid, match=says):
        load_model("geneformer", weights=folder, device="cpu")


def edit(folder: Path, name: str, change) -> None:
    path = next(folder.glob(f"**/{name}*.pkl"))
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("token_dictionary", lambda tokens: tokens.popitem()),
        ("token_dictionary", lambda tokens: tokens.update(ENSG00000999999=len(tokens))),
        ("token_dictionary", lambda tokens: tokens.update({next(reversed(tokens)): 7})),
        ("token_dictionary", lambda tokens: tokens.update({"<cls>x": tokens.pop("<cls>")})),
        ("gene_median_dictionary", lambda medians: medians.update(dict.fromkeys(medians, 0.0))),
        ("gene_median_dictionary", lambda medians: (medians.clear(), medians.update(other=1.0))),
        ("ensembl_mapping_dict", lambda mapping: mapping.update(a=1)),
    ],
)
def test_dictionaries_of_another_model_are_refused(settings, tmp_path, name, change):
    folder = copy_of("v2", tmp_path)
    edit(folder, name, change)
    with pytest.raises(WeightsInvalid, match=name):
        load_model("geneformer", weights=folder, device="cpu")


def test_the_vocabulary_is_that_of_the_tokens_not_of_the_medians(settings, tmp_path):
    folder = copy_of("v2", tmp_path)
    edit(folder, "gene_median_dictionary", lambda medians: medians.pop(next(iter(medians))))
    whole = load_model("geneformer", weights=CASES / "v2" / "checkpoint", device="cpu").tokenizer
    without = load_model("geneformer", weights=folder, device="cpu").tokenizer
    assert len(without.medians) == len(whole.medians)
    assert 0 < len(whole.vocabulary["ensembl"]) - len(without.vocabulary["ensembl"]) < 5


def test_several_models_in_one_folder_are_told_apart_by_variant(settings, tmp_path):
    folder = copy_of("v1", tmp_path)
    shutil.copytree(CASES / "v2" / "checkpoint", folder, dirs_exist_ok=True)
    default = load_model("geneformer", weights=folder, device="cpu")
    assert default.tokenizer.framed
    assert load_model("geneformer", weights=folder, device="cpu", variant=card.DEFAULT).dim == default.dim
    first = load_model("geneformer", weights=folder, device="cpu", variant="Geneformer-V1-10M")
    assert not first.tokenizer.framed
    with pytest.raises(InvalidInput, match="no model directory 'V3'") as raised:
        load_model("geneformer", weights=folder, device="cpu", variant="V3")
    assert "Geneformer-V1-10M, Geneformer-V2-104M" in raised.value.remedy
    (folder / card.DEFAULT).rename(folder / "mine")
    with pytest.raises(InvalidInput, match="several models"):
        load_model("geneformer", weights=folder, device="cpu")
    assert load_model("geneformer", weights=folder, device="cpu", variant="mine").tokenizer.framed


def test_a_model_at_the_root_of_the_folder_is_found(settings, tmp_path):
    folder = copy_of("v2", tmp_path)
    for path in model_of(folder).iterdir():
        path.rename(folder / path.name)
    shutil.copytree(CASES / "v1" / "checkpoint" / "geneformer", folder / "geneformer", dirs_exist_ok=True)
    assert load_model("geneformer", weights=folder, device="cpu").tokenizer.framed


@pytest.mark.parametrize(
    ("lost", "named"),
    [("model.safetensors", "model.safetensors"), ("token_dictionary*", "token_dictionary_gc104M.pkl")],
)
def test_a_missing_file_is_named(settings, tmp_path, lost, named):
    folder = copy_of("v2", tmp_path)
    next(folder.glob(f"**/{lost}")).unlink()
    with pytest.raises(WeightsMissing, match=named):
        load_model("geneformer", weights=folder, device="cpu")


def test_the_conversion_holds_no_pickle(settings):
    encoder = load_model("geneformer", weights=CASES / "v1" / "checkpoint", device="cpu")
    kept = [path for path in settings.weights.rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".json", ".safetensors"}
    again = load_model("geneformer", weights=CASES / "v1" / "checkpoint", device="cpu")
    assert again.weights_hash == encoder.weights_hash
    np.testing.assert_array_equal(again.tokenizer.medians, encoder.tokenizer.medians)


def test_every_variant_asks_for_its_own_files():
    chosen = {variant: CARD.for_variant({"variant": variant}).weights.files for variant in SIZES}
    assert chosen[card.DEFAULT] == CARD.weights.files == CARD.for_variant(CARD.settings).weights.files
    assert all(name.startswith(variant) for variant, files in chosen.items() for name in files[:2])
    assert sum("gene_dictionaries_30m" in " ".join(files) for files in chosen.values()) == 2
