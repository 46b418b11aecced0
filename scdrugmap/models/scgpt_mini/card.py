"""scGPT-mini: scGPT's code with our own small checkpoint, so that the app runs offline. Not the published scGPT."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="scgpt-mini",
    title="scGPT-mini",
    kind="bundled",
    summary=(
        "scGPT's architecture at toy scale, pretrained by us on some 2,900 cells: the offline default, a stand-in for "
        "trying things out and no substitute for the published scGPT."
    ),
    paper="",
    code="https://github.com/bowang-lab/scGPT",
    licence="MIT",
    weights=Weights(
        files=("checkpoint.json", "model.safetensors", "pretraining.json"), licence="MIT", bundled="weights"
    ),
    dim=128,
    genes="symbol",
    input="ranks",
    config=MappingProxyType({"n_tokens": 5003, "dim": 128, "heads": 4, "inner": 256, "layers": 4, "dropout": 0.1}),
    n_parameters=1_187_584,
    max_length=1200,
    pretrained_on=(
        "2,888 cells by masked expression prediction: cell lines of GSE118767, GSE149214 and SRP040309 and blood of "
        "10x PBMC3k and PBMC68k; of GSE120575 the gene names only (weights/pretraining.json has losses and plan)"
    ),
    pretrained_accessions=frozenset({"GSE118767", "GSE149214", "SRP040309", "10x PBMC3k", "10x PBMC68k"}),
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"max_length": 1200, "normalise": True, "compat": ""}),
    architecture="scgpt",
    cites="architecture: Cui et al. 2024, Nature Methods 21:1470; weights: this repository",
)
