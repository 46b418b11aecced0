"""From CellPLM's own files (<version>.best.ckpt and <version>.config.json) to our network's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models.cellplm.card import CHECKPOINT, CONFIG, VARIANTS
from scdrugmap.models.checkpoints.checkpoint import TensorMapping, Upstream, linear, read_json, read_state, read_torch

VERSION = 1  # bump when the same files convert to something else
STATE = "model_state_dict"
TABLE = "embedder.feat_enc.emb"
MIXTURE = "latent.layers.1.inference"
HIDDEN = f"{MIXTURE}.inference_qzyx.0"
# A norm and position vectors that upstream never calls, the decoder, heads of fine-tuned models, and the parts of the
# mixture that only its loss needs; the embedding uses none of them.
UNUSED = (
    "embedder.norm0.",
    "embedder.pe_enc.",
    "decoder.",
    "head.",
    f"{MIXTURE}.inference_qzyx.2.var.",
    f"{MIXTURE}.y_mu.",
    f"{MIXTURE}.y_var.",
)
SIZES = {"dim": "enc_hid", "layers": "enc_layers", "clusters": "num_clusters", "latent": "post_latent_dim"}
# Values of the config under which upstream computes what `network` does.
EXPECTED = {
    "enc_mod": "flowformer",
    "latent_mod": "gmvae",
    "norm": "groupnorm",
    "cat_pe": False,
    "dsbn": False,
    "input_covariate": False,
}
HEADS = 8  # upstream's default, which the published configs leave out
PARTS = {
    "attention.q_proj": "self_attn.query_projection",
    "attention.k_proj": "self_attn.key_projection",
    "attention.v_proj": "self_attn.value_projection",
    "attention.out_proj": "self_attn.out_projection",
    "linear1": "_ff_block.0",
    "linear2": "_ff_block.3",
    "norm1": "norm1",
    "norm2": "norm2",
}


def files(folder: Path, *, variant: str = "", **_: object) -> dict[str, Path]:
    """Files of a folder in upstream's layout; raises `InvalidInput` where `variant` has to choose and does not.

    `variant` is the version before ".best.ckpt"; "" takes the only one, or the card's where there are several.
    """
    versions = sorted(path.name.removesuffix(CHECKPOINT) for path in folder.glob(f"*{CHECKPOINT}"))
    version = variant or (versions[0] if len(versions) == 1 else VARIANTS[0])
    if versions and version not in versions:
        message = f"'{folder}' holds {', '.join(versions)}" + (f", and no '{variant}'." if variant else ".")
        raise InvalidInput(message, "Give variant= one of those that it holds.")
    return {"weights": folder / (version + CHECKPOINT), "config": folder / (version + CONFIG)}


def read(paths: Mapping[str, Path], settings: Mapping[str, Any]) -> Upstream:
    """Read both files; raises `WeightsInvalid`."""
    file, weights = paths["config"], paths["weights"]
    described = read_json(file, ("gene_list", *SIZES.values()))
    for field, value in EXPECTED.items():
        if described.get(field, value) != value:
            message = f"'{file}' has {field} = {described[field]!r}; CellPLM's own is {value!r}."
            raise WeightsInvalid(message, "Use the config that came with the weights.")
    genes = described["gene_list"]
    if not isinstance(genes, list) or not all(isinstance(gene, str) for gene in genes) or len(set(genes)) < len(genes):
        message = f"'{file}' has a gene_list that is no list of distinct names."
        raise WeightsInvalid(message, "Use the config that came with the weights.")
    content = read_torch(weights)
    if not isinstance(content, Mapping) or STATE not in content:
        message = f"'{weights}' holds no '{STATE}'."
        raise WeightsInvalid(message, "Get the file again from its source and compare its size.")
    state = read_state(weights, content[STATE])
    config = {ours: described[theirs] for ours, theirs in SIZES.items()}
    config["n_genes"] = len(genes)
    config["heads"] = described.get("enc_head", HEADS)
    config["hidden"] = len(state[f"{HIDDEN}.weight"]) if f"{HIDDEN}.weight" in state else 1
    config["dropout"] = described.get("model_dropout", 0.0)
    vocabulary = {"genes": genes, "clusters": config["clusters"], "latent": config["latent"]}
    return Upstream(weights, state, config, vocabulary)


def tensor_mappings(config: Mapping[str, Any]) -> dict[str, TensorMapping]:
    """Where each of our tensors stands upstream."""
    return dict(_tensor_mappings(config["layers"]))


def _tensor_mappings(layers: int) -> Iterator[tuple[str, TensorMapping]]:
    yield "gene.weight", TensorMapping((TABLE,))
    yield from linear("linear", "embedder.extra_linear.0")
    yield from linear("norm", "embedder.extra_linear.3")
    for index in range(layers):
        for ours, theirs in PARTS.items():
            yield from linear(f"blocks.{index}.{ours}", f"encoder.layers.{index}.{theirs}")
    yield from linear("last_norm", "pre_latent_norm.norm")
    yield from linear("component", f"{MIXTURE}.inference_qyx.0.logits")
    yield from linear("mixture", HIDDEN)
    yield from linear("mean", f"{MIXTURE}.inference_qzyx.2.mu")


def toy(symbols: Sequence[str], ensembl_ids: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and vocabulary of a tiny network over these genes, for tests and `scdrugmap models check`."""
    genes = list(dict.fromkeys(ensembl_ids))
    config = {"n_genes": len(genes), "dim": 16, "heads": 2, "layers": 2, "clusters": 3, "hidden": 20, "latent": 12}
    return config, {"genes": genes, "clusters": 3, "latent": 12}
