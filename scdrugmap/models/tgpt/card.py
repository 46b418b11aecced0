"""tGPT, the published checkpoint of 64 tokens a cell."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

PAGE = "https://huggingface.co/lixiangchun/transcriptome-gpt-1024-8-16-64"
CARD = ModelCard(
    key="tgpt",
    title="tGPT",
    kind="foundation",
    summary="A GPT-2 that reads a cell as a sentence of its most expressed genes, trained to guess the next gene.",
    paper="doi:10.1016/j.isci.2023.106536",
    code="https://github.com/deeplearningplus/tGPT",
    licence="GPL-3.0",
    weights=Weights(
        files=("config.json", "pytorch_model.bin", "tokenizer.json"),
        licence="not known (the code's repository is GPL-3.0)",
        official=PAGE,
        instruction=(
            "Read the licence on the page, then give weights='lixiangchun/transcriptome-gpt-1024-8-16-64@<revision>' "
            "with a commit of it, or download the files."
        ),
    ),
    dim=1024,
    genes="symbol",
    input="ranks",
    config=MappingProxyType(
        {"n_tokens": 21_150, "positions": 1024, "dim": 1024, "heads": 16, "inner": 4096, "layers": 8},
    ),
    n_parameters=123_478_016,
    max_length=64,
    pretrained_on="22.3 million single cells, human and mouse, each as its top-ranked genes",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType({"max_length": 64, "token_types": True, "compat": ""}),
    cites="Shen et al. 2023, iScience 26:106536",
)
