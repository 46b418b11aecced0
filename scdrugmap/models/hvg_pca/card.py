"""Baseline: principal components of the most variable genes."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="hvg-pca",
    title="HVG-PCA",
    kind="baseline",
    summary="No pretraining: 50 principal components of the 2,000 most variable genes, log-normalised.",
    paper="",
    code="https://github.com/scverse/scanpy",
    licence="MIT",
    weights=Weights(files=("checkpoint.json", "model.safetensors"), licence="MIT", bundled="weights"),
    dim=50,
    genes="symbol",
    input="log1p-cp10k",
    config=MappingProxyType({"n_features": 2000, "n_components": 50}),
    n_parameters=100_050,
    pretrained_on="fitted on 2,173 cells of GSE118767, GSE149214 and 10x PBMC3k; evaluation fits it anew",
    pretrained_accessions=frozenset({"GSE118767", "GSE149214", "10x PBMC3k"}),
    settings=MappingProxyType({"n_genes": 2000, "n_components": 50}),
    fitted=True,
    cites="Wolf et al. 2018, Genome Biology 19:15 (the usual scanpy recipe)",
)
