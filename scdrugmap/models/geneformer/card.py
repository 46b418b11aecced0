"""Geneformer: V2-104M by default; the other published models are variants."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from scdrugmap.models.card import ModelCard, Weights

DEFAULT = "Geneformer-V2-104M"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that a model directory holds is read
DICTIONARIES = MappingProxyType(
    {
        "tokens": "token_dictionary",
        "medians": "gene_median_dictionary",
        "mapping": "ensembl_mapping_dict",
        "names": "gene_name_id_dict",
    }
)
V1 = {"n_tokens": 25_426, "positions": 2048}
V2 = {"n_tokens": 20_275, "positions": 4096}
SIZES: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "Geneformer-V1-10M": {**V1, "dim": 256, "heads": 4, "inner": 512, "layers": 6},
        "gf-12L-30M-i2048": {**V1, "dim": 512, "heads": 8, "inner": 1024, "layers": 12},
        "Geneformer-V2-104M": {**V2, "dim": 768, "heads": 12, "inner": 3072, "layers": 12},
        "Geneformer-V2-104M_CLcancer": {**V2, "dim": 768, "heads": 12, "inner": 3072, "layers": 12},
        "Geneformer-V2-316M": {**V2, "dim": 1152, "heads": 18, "inner": 4608, "layers": 18},
    }
)


def files_of(variant: str) -> tuple[str, ...]:
    """Files of the Hub repository that a variant needs."""
    first = SIZES[variant]["n_tokens"] == V1["n_tokens"]
    folder, tag = ("geneformer/gene_dictionaries_30m", "gc30M") if first else ("geneformer", "gc104M")
    dictionaries = (f"{folder}/{name}_{tag}.pkl" for name in DICTIONARIES.values())
    return f"{variant}/config.json", f"{variant}/{WEIGHTS[variant.startswith('gf-')]}", *dictionaries


CARD = ModelCard(
    key="geneformer",
    title="Geneformer",
    kind="foundation",
    summary="A BERT over a cell's genes in the order of how far each lies above its usual level.",
    paper="doi:10.1038/s41586-023-06139-9",
    code="https://huggingface.co/ctheodoris/Geneformer",
    licence="Apache-2.0",
    weights=Weights(
        files=files_of(DEFAULT),
        licence="Apache-2.0",
        hub="ctheodoris/Geneformer",
        revision="04c2b2e84da7c0f385c3f9ad8f3ec24bab6650e5",  # at which several public projects pin these files
        size_mb=418,
    ),
    dim=SIZES[DEFAULT]["dim"],
    genes="ensembl",
    input="ranks",
    config=MappingProxyType(SIZES[DEFAULT]),
    n_parameters=96_686_592,  # 11 of the 12 layers: the embedding is read before the last
    max_length=4096,
    pretrained_on="V2: 104 million human cells, CLcancer then 14 million more with tumours; V1: 30 million human cells",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"max_length": None, "emb_mode": "cell", "emb_layer": -1, "variant": ""}),
    source_settings=("variant", "emb_layer"),
    variants=tuple(SIZES),
    variant_files=MappingProxyType({variant: files_of(variant) for variant in SIZES}),
    cites="Theodoris et al. 2023, Nature 618:616; V2: Chen et al. 2024, bioRxiv 2024.08.16.608180",
)
