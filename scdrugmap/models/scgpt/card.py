"""scGPT, the whole-human checkpoint."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="scgpt",
    title="scGPT",
    kind="foundation",
    summary="A transformer over a cell's expressed genes and their binned values, pretrained to fill in masked values.",
    paper="doi:10.1038/s41592-024-02201-0",
    code="https://github.com/bowang-lab/scGPT",
    licence="MIT",
    weights=Weights(
        files=("best_model.pt", "args.json", "vocab.json"),
        licence="not stated (the code's repository is MIT)",
        official="https://github.com/bowang-lab/scGPT#pretrained-scgpt-model-zoo",
        instruction="Download the folder of the whole-human model from the Google Drive link in the model zoo's table.",
        size_mb=206,
    ),
    dim=512,
    genes="symbol",
    input="ranks",
    config=MappingProxyType(
        {"n_tokens": 60_697, "dim": 512, "heads": 8, "inner": 512, "layers": 12, "dropout": 0.2},
    ),
    n_parameters=50_278_400,
    max_length=1200,
    pretrained_on="33 million human cells of CELLxGENE (normal and disease, not perturbed)",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"max_length": 1200, "normalise": True, "compat": ""}),
    cites="Cui et al. 2024, Nature Methods 21:1470",
)
