"""Llama 3 8B, the base model; `models/text` runs it and any other text model of the Hub (`weights="owner/name"`)."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

FILES = ("config.json", "tokenizer.json", "model*.safetensors or model.safetensors.index.json")
CARD = ModelCard(
    key="llama3-8b",
    title="Llama 3 8B",
    kind="llm",
    summary="A language model that reads a cell as a sentence of its most expressed genes; nothing is asked of it.",
    paper="arXiv:2407.21783",
    code="https://github.com/meta-llama/llama3",
    licence="Meta Llama 3 Community License",
    weights=Weights(
        files=FILES,
        licence="Meta Llama 3 Community License",
        hub="meta-llama/Meta-Llama-3-8B",
        revision="8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920",  # at which many public projects read these files
        official="https://huggingface.co/meta-llama/Meta-Llama-3-8B",
        instruction="Accept the licence on the page of the model, and log in with a token.",
        gated=True,
        size_mb=16_070,
    ),
    dim=4096,
    genes="symbol",
    input="text",
    config=MappingProxyType(
        {
            "transformers": {
                "model_type": "llama",
                "vocab_size": 128_256,
                "hidden_size": 4096,
                "intermediate_size": 14_336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "max_position_embeddings": 8192,
            }
        }
    ),
    n_parameters=7_504_924_672,  # without the head that guesses the next token
    max_length=8192,
    pretrained_on="15 trillion tokens of public text up to March 2023, which may speak of any study; no cells",
    lora_targets=("q_proj", "v_proj"),
    settings=MappingProxyType(
        {
            "top_k": 200,
            "max_length": 4096,
            "text": "names",
            "about": "",
            "layer": -1,
            "pooling": "mean",
            "quantise": "",
            "compat": "",
        }
    ),
    architecture="text",
    cites="Grattafiori et al. 2024, arXiv:2407.21783",
)
