"""scBERT, the checkpoint pretrained on PanglaoDB."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="scbert",
    title="scBERT",
    kind="foundation",
    summary="A Performer over all of its genes and their binned expression, pretrained to fill in masked values.",
    paper="doi:10.1038/s42256-022-00534-z",
    code="https://github.com/TencentAILabHealthcare/scBERT",
    licence="GPL-3.0",
    weights=Weights(
        files=("panglao_pretrain.pth", "panglao_10000.h5ad"),
        licence="GPL-3.0",
        official="https://github.com/TencentAILabHealthcare/scBERT#checkpoint",
        instruction="Get the checkpoint from the Weixin drive link of the README (it asks for a log-in; the authors "
        "also send the file by e-mail) and panglao_10000.h5ad, which alone tells the order of the genes, from the "
        "README's data link.",
    ),
    dim=200,
    genes="symbol",
    input="log1p-cp10k",
    config=MappingProxyType(
        {
            "n_tokens": 7,
            "n_positions": 16_907,
            "dim": 200,
            "heads": 10,
            "dim_head": 64,
            "features": 266,
            "inner": 800,
            "layers": 6,
        },
    ),
    n_parameters=8_387_200,
    max_length=16_907,
    pretrained_on="1,126,580 human cells of PanglaoDB (209 data sets, 74 tissues, by the paper)",
    lora_targets=("to_q", "to_k", "to_v", "to_out"),
    settings=MappingProxyType({"pooling": "mean", "compat": "", "upstream_batch_size": None}),
    cites="Yang et al. 2022, Nature Machine Intelligence 4:852",
)
