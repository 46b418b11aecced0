"""What the registry contract and the parity cases do not tell about UCE."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from places import PARITY
from scipy import sparse
from torch.nn import functional as F

from scdrugmap.errors import InvalidInput, WeightsInvalid, WeightsMissing
from scdrugmap.models import load_model
from scdrugmap.models.checkpoints.load import convert as convert_weights
from scdrugmap.models.checkpoints.load import empty_network
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.uce import convert
from scdrugmap.models.uce.card import CARD, VARIANTS
from scdrugmap.models.uce.tokens import CLOSE, CLS, N_SPECIALS, Tokenizer

CASE = PARITY / "uce"
CHECKPOINT = CASE / "checkpoint"
PROTEINS = "protein_embeddings/Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the case's checkpoint, to be changed."""
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "changed"))


@pytest.fixture
def state(folder) -> dict[str, torch.Tensor]:
    return torch.load(folder / "4layer_model.torch", weights_only=True)


def vocabulary(folder: Path) -> dict:
    return convert.read(convert.files(folder), CARD.settings).vocabulary


def rewrite(folder: Path, change) -> None:
    """Change the csv, every field as text."""
    path = folder / "species_chrom.csv"
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


def genes_and_turns(tokenizer: Tokenizer, sentence: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Genes of a sentence without its specials, and its chromosomes in order; the frame is checked on the way."""
    assert sentence[0] == CLS
    first = N_SPECIALS + len(tokenizer.genes)
    genes, turns, inside = [], [], False
    for token in sentence[1:]:
        if token == CLOSE:
            assert inside
            inside = False
        elif token >= first:
            assert not inside
            turns.append(int(token - first))
            inside = True
        else:
            assert inside
            genes.append(token - N_SPECIALS)
            assert tokenizer.chromosomes[genes[-1]] == turns[-1]
    assert not inside
    return np.array(genes), turns


def cells_of(counts, symbols=None) -> Cells:
    matrix = sparse.csr_matrix(np.array(counts, dtype=np.float32))
    names = [f"G{row}" for row in range(matrix.shape[1])] if symbols is None else symbols
    return Cells(matrix, np.array(names, dtype=str), None, "counts", None)


def tokenizer_of(n_genes: int = 60, **settings) -> Tokenizer:
    known = convert.toy([f"G{row}" for row in range(n_genes)], [])[1]
    return Tokenizer(known, dict(CARD.settings) | {"sample_size": 200} | settings)


def sentences(tokens) -> list[list[int]]:
    return [tokens.ids[tokens.cell(cell)].tolist() for cell in range(len(tokens))]


@pytest.fixture
def counts() -> np.ndarray:
    """Thirty cells x 60 genes, half of them zero."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 50, (30, 60)) * (rng.random((30, 60)) < 0.5)


def test_sentences_go_by_chromosome_and_start(counts):
    tokenizer = tokenizer_of()
    tokens, orders = tokenizer.tokenize(cells_of(counts)), set()
    for cell in range(len(tokens)):
        genes, turns = genes_and_turns(tokenizer, tokens.ids[tokens.cell(cell)])
        assert len(genes) == 200
        assert len(set(turns)) == len(turns)
        for turn in turns:
            assert (np.diff(tokenizer.starts[genes[tokenizer.chromosomes[genes] == turn]]) >= 0).all()
        assert (counts[cell, genes] > 0).all()
        orders.add(tuple(turns))
    assert len(orders) > 20  # of 30: the chromosomes of each cell are shuffled


def test_genes_are_drawn_by_log1p_of_their_count():
    row, drawn = np.array([0, 1, 3, 10, 100, 1000]), np.zeros(6)
    for seed in range(100):
        tokenizer = tokenizer_of(6, seed=seed)
        drawn += np.bincount(genes_and_turns(tokenizer, tokenizer.tokenize(cells_of([row])).ids)[0], minlength=6)
    weights = np.log1p(row) / np.log1p(row).sum()
    assert drawn[0] == 0
    np.testing.assert_allclose(drawn / drawn.sum(), weights, atol=4 * np.sqrt(0.25 / drawn.sum()))


def test_a_sentence_depends_on_the_cells_counts_alone(counts):
    tokenizer = tokenizer_of()
    whole = sentences(tokenizer.tokenize(cells_of(counts)))
    columns, rows = np.random.default_rng(1).permutation(60), np.arange(30)[::-1]
    names = [f"g{column}" for column in columns]  # case does not matter either
    moved = cells_of(counts[rows][:, columns], names)
    assert sentences(tokenizer.tokenize(moved)) == whole[::-1]
    split = np.concatenate([counts - counts // 3, counts // 3], axis=1)  # two columns of one gene are added up
    names = [f"G{column}" for column in range(60)] + [f"g{column}" for column in range(60)]
    assert sentences(tokenizer.tokenize(cells_of(split, names))) == whole
    assert sentences(tokenizer_of(seed=1).tokenize(cells_of(counts))) != whole
    assert (
        len({tuple(sentence) for sentence in sentences(tokenizer.tokenize(cells_of(counts[[0]] + np.eye(60))))}) == 60
    )


def test_upstream_draws_all_cells_from_one_generator(counts):
    tokenizer = tokenizer_of(compat="upstream", seed=5, upstream_batch_size=4)
    whole = tokenizer.tokenize(cells_of(counts))
    assert not tokenizer.independent
    assert sentences(tokenizer.tokenize(cells_of(counts[1:]))) != sentences(whole)[1:]
    np.random.seed(5)  # noqa: NPY002 (as upstream would be seeded)
    weights = np.log1p(counts[0]).astype(np.float32)
    drawn = np.random.choice(60, 200, p=weights / weights.sum())  # noqa: NPY002
    assert sorted(genes_and_turns(tokenizer, whole.ids[whole.cell(0)])[0]) == sorted(drawn)
    assert [rows.tolist() for rows in tokenizer.plan(whole, 2, 10)][-2:] == [[24, 25, 26, 27], [28, 29]]


def test_upstream_cuts_counts_off_and_we_do_not(counts, caplog):
    half = counts + 0.5 * (counts > 0)
    ours, upstream = tokenizer_of(), tokenizer_of(compat="upstream")
    with caplog.at_level(logging.WARNING):
        assert sentences(ours.tokenize(cells_of(half))) != sentences(ours.tokenize(cells_of(counts)))
        ours.tokenize(cells_of(half))
    assert [record.message for record in caplog.records if "not whole" in record.message] != []
    assert len(caplog.records) == 1  # once, however many chunks there are
    assert sentences(upstream.tokenize(cells_of(half))) == sentences(upstream.tokenize(cells_of(counts)))


@pytest.mark.parametrize("compat", ["", "upstream"])
def test_an_empty_cell_is_cls_alone(counts, compat):
    counts[2] = 0
    tokenizer = tokenizer_of(compat=compat)
    assert sentences(tokenizer.tokenize(cells_of(counts)))[2] == [CLS]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_size": 0},
        {"sample_size": 1526},  # <cls> and five chromosomes need 11 of 1536 positions
        {"sample_size": None},
        {"seed": -1},
        {"seed": "a"},
        {"compat": "old"},
        {"upstream_batch_size": 0},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        tokenizer_of(**wrong)


@pytest.mark.parametrize("heads", [-1, 3, "two"])
def test_heads_divide_the_width(heads):
    with pytest.raises(InvalidInput, match="does not divide the network's width of 1280"):
        empty_network(CARD, CARD.config, dict(CARD.settings) | {"heads": heads})


def test_heads_are_64_wide_unless_it_is_said(caplog):
    config = {name: size for name, size in CARD.config.items() if name != "heads"}
    network = empty_network(CARD, config, CARD.settings)
    assert network.blocks[0].attention.heads == 20
    narrow = empty_network(CARD, config | {"dim": 32}, CARD.settings)
    assert narrow.blocks[0].attention.heads == 1
    assert "runs with one head" in caplog.text


def test_33_layers_have_the_parameters_that_were_counted():
    network = empty_network(CARD, dict(CARD.config) | {"layers": 33}, CARD.settings)
    block = sum(p.numel() for p in network.blocks[0].parameters())
    assert sum(p.numel() for p in network.parameters()) == CARD.n_parameters + 29 * block


def test_variants_choose_the_file(folder):
    weights = folder / VARIANTS["4-layer"]
    assert convert.files(folder)["weights"] == weights
    paper = folder / VARIANTS["33-layer"]
    assert convert.files(folder, variant="33-layer")["weights"] == paper
    shutil.copy(weights, paper)
    assert convert.files(folder)["weights"] == weights
    assert convert.files(folder, variant="33-layer")["weights"] == paper
    weights.unlink()
    assert convert.files(folder)["weights"] == paper
    paper.rename(folder / "mine.torch")
    assert convert.files(folder)["weights"].name == "mine.torch"


def test_a_folder_without_a_file_is_refused(folder, settings):
    (folder / "species_offsets.pkl").unlink()
    with pytest.raises(WeightsMissing, match=r"lacks species_offsets\.pkl"):
        load_model("uce", weights=folder, device="cpu")


def test_only_human_rows_of_the_table_are_kept(state):
    checkpoint = convert_weights(CARD, convert, convert.files(CHECKPOINT), CARD.settings)
    known = checkpoint.vocabulary
    rows, ids = checkpoint.tensors["table"], np.array(known["tokens"])
    assert torch.equal(rows, state["pe_embedding.weight"][ids])
    assert len(ids) < len(state["pe_embedding.weight"])
    assert len(ids) == N_SPECIALS + len(known["genes"]) + len(set(known["chromosomes"]))
    assert {name.split(".")[0] for name in checkpoint.unused} == {"binary_decoder", "gene_embedding_layer"}


def test_the_table_of_places_is_read_with_care(folder):
    before = vocabulary(folder)
    first, second, third, fourth, fifth, sixth = before["genes"][:6]

    def change(table):
        human = table["species"] == "human"
        row = {name: table["gene_symbol"].str.upper().eq(name) & human for name in before["genes"][:6]}
        elsewhere = table[row[fifth]].assign(start="1")
        table.loc[row[second], "gene_symbol"] = second.lower()
        table.loc[row[third], "chromosome"] = ""
        table.loc[row[fourth], "start"] = ""
        other = table[row[sixth]].assign(gene_symbol=sixth.lower(), start="2")
        return pd.concat([other, table[~row[first]], elsewhere])

    rewrite(folder, change)
    after = vocabulary(folder)
    assert set(before["genes"]) - set(after["genes"]) == {first, third, fourth}  # without a place in the genome
    for key in ("starts", "chromosomes"):  # the lower-case one is found, and the first of two places counts
        had, has = (dict(zip(known["genes"], known[key], strict=True)) for known in (before, after))
        assert all(had[gene] == has[gene] for gene in has)
    ids = [dict(zip(known["genes"], known["tokens"][N_SPECIALS:], strict=False)) for known in (before, after)]
    assert all(ids[0][gene] == ids[1][gene] for gene in after["genes"])


def test_other_species_number_the_chromosomes(folder):
    before = vocabulary(folder)
    rewrite(folder, lambda table: table.assign(chromosome=table["chromosome"].str.cat(table["species"], sep=" ")))
    assert vocabulary(folder) == before  # the same order
    rewrite(folder, lambda table: table[table["species"] == "human"])
    assert vocabulary(folder)["tokens"] != before["tokens"]  # which is why the csv is never cut


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("species_chrom.csv", lambda text: text.replace("chromosome", "chrom", 1), "cannot be read as a table"),
        ("species_chrom.csv", lambda text: text.replace(",human", ",homo"), "places none of the"),
    ],
)
def test_places_that_say_nothing_are_refused(folder, name, change, says):
    (folder / name).write_text(change((folder / name).read_text()))
    with pytest.raises(WeightsInvalid, match=says):
        vocabulary(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("pos_encoder.pe"), r"lacks the tensor 'pos_encoder\.pe'"),
        (lambda state: state.pop("decoder.1.0.bias"), r"lacks the tensor 'decoder\.1\.0\.bias'"),
        (lambda state: state.update(foreign=torch.zeros(2)), "holds the tensor 'foreign'"),
        (lambda state: state.update({"pe_embedding.weight": torch.zeros(3)}), "where 2 axes are expected"),
        (lambda state: state.update({"pe_embedding.weight": torch.zeros(99, 24)}), "do not belong together"),
        (lambda state: state.update({"encoder.0.weight": torch.zeros(32, 23)}), r"shape \(32, 23\) where \(32, 24\)"),
        (lambda state: state["encoder.2.bias"].fill_(torch.nan), r"NaN or infinite numbers in 'encoder\.2\.bias'"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(folder, state, settings, change, says):
    change(state)
    torch.save(state, folder / "4layer_model.torch")
    with pytest.raises(WeightsInvalid, match=says) as caught:
        load_model("uce", weights=folder, device="cpu")
    assert str(folder) in str(caught.value)


def test_proteins_must_be_a_dictionary_of_symbols(folder):
    torch.save({1: torch.zeros(2)}, folder / PROTEINS)
    with pytest.raises(WeightsInvalid, match="holds no dictionary of gene symbols"):
        vocabulary(folder)
    (folder / PROTEINS).write_bytes(b"no torch file")
    with pytest.raises(WeightsInvalid, match="cannot be read as a torch file"):
        vocabulary(folder)


def test_files_of_the_old_torch_format_are_read(folder, state):
    before = vocabulary(folder)
    torch.save(state, folder / "4layer_model.torch", _use_new_zipfile_serialization=False)
    assert vocabulary(folder) == before


def write_random(folder: Path, sizes: dict[str, int], rng: np.random.Generator) -> None:
    """A checkpoint of these sizes in upstream's layout over made-up genes of two species."""
    width, proteins, inner, layers = (sizes[name] for name in ("dim", "proteins", "inner", "layers"))
    human = [f"GENE{row}" if row % 3 else f"Gene{row}" for row in range(sizes["genes"])]
    places = pd.DataFrame(
        {
            "species": ["human"] * len(human) + ["zebrafish"] * 9,
            "start": rng.permutation(5_000)[: len(human) + 9],
            "chromosome": [*rng.choice(["1", "2", "10", "X", "MT"], len(human)), *"123456789"],
            "gene_symbol": [name.upper() for name in human] + [f"zf{row}" for row in range(9)],
        }
    ).sample(frac=1, random_state=4)
    rows = 20 + len(human) + 7 + len(set(zip(places["species"], places["chromosome"], strict=True)))
    shapes = {"pe_embedding.weight": (rows, proteins), "pos_encoder.pe": (sizes["positions"], 1, width)}
    linears = {"encoder.0": (width, proteins), "gene_embedding_layer.0": (width, proteins)}
    norms = {"encoder.2": width}
    for layer in range(layers):
        at = f"transformer_encoder.layers.{layer}"
        linears |= {f"{at}.self_attn.out_proj": (width, width)}
        linears |= {f"{at}.linear1": (inner, width), f"{at}.linear2": (width, inner)}
        norms |= {f"{at}.norm1": width, f"{at}.norm2": width}
        shapes |= {f"{at}.self_attn.in_proj_weight": (3 * width, width), f"{at}.self_attn.in_proj_bias": (3 * width,)}
    out = sizes["out"]
    for index, (wide, narrow) in enumerate([(sizes["decoder"], width), (out, sizes["decoder"]), (out, out)]):
        linears[f"decoder.{index}.0"], norms[f"decoder.{index}.1"] = (wide, narrow), wide
    linears["decoder.3"] = (out, out)
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {f"{name}.{end}": (wide,) for name, wide in norms.items() for end in ("weight", "bias")}
    state = {name: torch.from_numpy(rng.normal(0, 0.3, shape).astype(np.float32)) for name, shape in shapes.items()}
    (folder / "protein_embeddings").mkdir(parents=True)
    torch.save(state, folder / "33l_8ep_1024t_1280.torch")
    torch.save({name: torch.zeros(proteins) for name in human}, folder / PROTEINS)
    places.to_csv(folder / "species_chrom.csv", index=False)
    (folder / "species_offsets.pkl").write_bytes(
        b"\x80\x02}(X\x05\x00\x00\x00humanK\x14X\x09\x00\x00\x00zebrafishK\x04u."
    )


def plain(state: dict[str, torch.Tensor], ids: list[int], layers: int, heads: int) -> torch.Tensor:
    """One sentence through the network as the spec words it: no batch, no padding, float64."""
    w = {name: tensor.double() for name, tensor in state.items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    x = w["pe_embedding.weight"][ids]
    x = norm(F.gelu(linear(x / x.norm(dim=1, keepdim=True), "encoder.0")), "encoder.2")
    x = x * x.shape[1] ** 0.5 + w["pos_encoder.pe"][: len(ids), 0]
    for layer in range(layers):
        at = f"transformer_encoder.layers.{layer}"
        mixed = x @ w[f"{at}.self_attn.in_proj_weight"].T + w[f"{at}.self_attn.in_proj_bias"]
        parts = []
        for q, k, v in zip(*(part.chunk(heads, 1) for part in mixed.chunk(3, 1)), strict=True):
            parts.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
        x = norm(x + linear(torch.cat(parts, 1), f"{at}.self_attn.out_proj"), f"{at}.norm1")
        x = norm(x + linear(linear(x, f"{at}.linear1").relu(), f"{at}.linear2"), f"{at}.norm2")
    cls = x[0]
    for index in range(3):
        cls = F.gelu(norm(linear(cls, f"decoder.{index}.0"), f"decoder.{index}.1"))
    cls = linear(cls, "decoder.3")
    return cls / cls.norm()


def test_a_checkpoint_of_other_sizes_agrees_with_plain_arithmetic(tmp_path, settings):
    rng = np.random.default_rng(11)
    sizes = {"genes": 50, "proteins": 11, "dim": 30, "inner": 17, "layers": 3, "positions": 90, "decoder": 13, "out": 9}
    write_random(tmp_path / "weights", sizes, rng)
    counts = rng.poisson(2, (5, 50)) * (rng.random((5, 50)) < np.linspace(0.02, 1, 5)[:, None])
    adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.var_names = [f"gene{row}" for row in range(50)]
    encoder = load_model("uce", weights=tmp_path / "weights", device="cpu", heads=5, sample_size=64)
    tokens = encoder.tokenize(adata)
    state = torch.load(tmp_path / "weights" / "33l_8ep_1024t_1280.torch", weights_only=True)
    places = pd.read_csv(tmp_path / "weights" / "species_chrom.csv", dtype={"chromosome": str})
    codes = sorted(set(places["species"] + "_" + places["chromosome"]))
    places = places.set_index("gene_symbol")
    first = len(state["pe_embedding.weight"]) - len(codes)
    expected = []
    for cell in range(len(tokens)):
        ids = encoder.tokenizer.token_ids[tokens.ids[tokens.cell(cell)]].tolist()
        genes = [(place, token - 20) for place, token in enumerate(ids) if 20 <= token < 70]
        for place, gene in genes:  # upstream's ids: 20 + the gene's place in the file, under its chromosome's token
            opening = max(before for before in range(place) if ids[before] >= first)
            assert codes[ids[opening] - first] == f"human_{places.loc[f'GENE{gene}', 'chromosome']}"
            assert counts[cell, gene] > 0
        expected.append(plain(state, ids, 3, 5).numpy())
    np.testing.assert_allclose(encoder.embed(adata), np.stack(expected), rtol=0, atol=2e-6)
