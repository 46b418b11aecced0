"""CellPLM, the checkpoint 20230926_85M."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

VARIANTS = ("20230926_85M", "20231027_85M")  # upstream's README, and its tutorials
CONFIG, CHECKPOINT = ".config.json", ".best.ckpt"


def files_of(variant: str) -> tuple[str, ...]:
    """Files that a variant needs."""
    return variant + CONFIG, variant + CHECKPOINT


CARD = ModelCard(
    key="cellplm",
    title="CellPLM",
    kind="foundation",
    summary="A transformer whose tokens are cells: each cell's vector depends on the cells it is embedded with.",
    paper="doi:10.1101/2023.10.03.560734",
    code="https://github.com/OmicsML/CellPLM",
    licence="BSD-2-Clause",
    weights=Weights(
        files=files_of(VARIANTS[0]),
        licence="not stated (the code's repository is BSD-2-Clause)",
        official="https://www.dropbox.com/scl/fo/i5rmxgtqzg7iykt2e9uqm/h?rlkey=o8hi0xads9ol07o48jdityzv1&dl=0",
        instruction="Download <version>.config.json and <version>.best.ckpt from the authors' Dropbox folder.",
        size_mb=330,  # 82.4 million numbers of the whole pretraining model, by the shapes
    ),
    dim=512,
    genes="ensembl",
    input="counts",
    config=MappingProxyType(
        {"n_genes": 19_374, "dim": 1024, "heads": 8, "layers": 4, "clusters": 16, "hidden": 512, "latent": 512},
    ),
    n_parameters=55_304_208,
    max_length=19_374,  # genes; the model has no limit of its own
    pretrained_on="over 9 million human cells and 2 million cells of spatial transcriptomics, by the paper",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"context_size": 4000, "seed": 0, "variant": "", "compat": ""}),
    source_settings=("variant",),
    variants=VARIANTS,
    variant_files=MappingProxyType({variant: files_of(variant) for variant in VARIANTS}),
    context=True,
    cites="Wen et al. 2024, ICLR",
)
