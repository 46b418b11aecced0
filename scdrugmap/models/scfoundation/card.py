"""scFoundation: the 100-million-parameter encoder over all expressed genes of a cell."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="scfoundation",
    title="scFoundation",
    kind="foundation",
    summary="A transformer over a cell's expressed genes and their values, told how deeply the cell was sequenced.",
    paper="doi:10.1038/s41592-024-02305-7",
    code="https://github.com/biomap-research/scFoundation",
    licence="Apache-2.0",
    weights=Weights(
        files=("models.ckpt", "OS_scRNA_gene_index.19264.tsv"),
        licence="own licence (MODEL_LICENSE): non-commercial research only, not transferable",
        official="https://github.com/biomap-research/scFoundation/tree/main/model",
        instruction=(
            "Download models.ckpt from the SharePoint folder that model/README.md links, and take "
            "OS_scRNA_gene_index.19264.tsv from the code repository's model folder."
        ),
    ),
    dim=3072,
    genes="symbol",
    input="log1p-cp10k",
    config=MappingProxyType(
        {"n_rows": 19_267, "dim": 768, "heads": 12, "layers": 12, "bins": 100, "bin_alpha": 1.0, "dropout": 0.1}
    ),
    n_parameters=99_940_156,
    max_length=19_266,
    pretrained_on="50 million human cells, normal and tumour",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"variant": "cell", "pool": "all", "tgthighres": "t4"}),
    source_settings=("variant",),
    variants=("cell", "rde", "gene"),
    cites="Hao et al. 2024, Nature Methods 21:1481",
)
