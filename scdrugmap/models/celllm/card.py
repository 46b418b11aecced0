"""CellLM, the checkpoint of the cell-type configuration."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="celllm",
    title="CellLM",
    kind="foundation",
    summary="A Performer over a cell's expressed genes and their binned expression, pretrained on normal and cancer "
    "cells with a contrastive loss.",
    paper="arXiv:2306.04371",
    code="https://github.com/PharMolix/OpenBioMed",
    licence="MIT",
    weights=Weights(
        files=("cellLM.json", "*.pth", "zheng68k_hgnc.h5ad or gene_list.txt"),
        licence="not stated (the code's repository is MIT; its use policy speaks of other models)",
        official="https://github.com/PharMolix/OpenBioMed/blob/ce3ccab76f5dd3a48a02298f3c4c61bfb9b2501c/docs/ctc.md",
        instruction="Get the checkpoint and zheng68k_hgnc.h5ad, whose columns alone tell the order of the genes (or "
        "write them into gene_list.txt, one a line), from the Baidu share named there (password 7a6b; a Baidu account "
        "is needed), and configs/ctc/cellLM.json from the repository.",
    ),
    dim=512,
    genes="symbol",
    input="log1p-cp10k",
    config=MappingProxyType(
        {
            "n_tokens": 8,
            "n_positions": 19_381,
            "dim": 512,
            "heads": 16,
            "dim_head": 64,
            "features": 266,
            "inner": 2_048,
            "layers": 10,
            "max_length": 6_000,
        },
    ),
    n_parameters=51_922_432,
    max_length=6_000,
    pretrained_on="2 million human cells, normal and cancer",
    lora_targets=("to_q", "to_k", "to_v", "to_out"),
    settings=MappingProxyType(
        {"pooling": "cls", "preprocessing": "log2-cp10k", "compat": "", "upstream_batch_size": None}
    ),
    cites="Zhao et al. 2023, arXiv:2306.04371",
)
