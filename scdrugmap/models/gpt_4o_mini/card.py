"""The card of GPT-4o mini, or of any other model behind an OpenAI-compatible endpoint (setting `name`)."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

CARD = ModelCard(
    key="gpt-4o-mini",
    title="GPT-4o mini",
    kind="llm",
    summary="General language model that is asked, over the network, about each cell's most highly expressed genes.",
    paper="arXiv:2410.21276",
    code="https://github.com/openai/openai-python",
    licence="Apache-2.0 (the client)",
    weights=Weights(
        files=(),
        licence="not published; used under OpenAI's terms, at a price for each token",
        official="https://platform.openai.com/docs/models/gpt-4o-mini",
        instruction="Set OPENAI_API_KEY, and OPENAI_BASE_URL for another endpoint than OpenAI's.",
    ),
    dim=0,
    genes="symbol",
    input="text",
    prompted=True,
    max_length=128_000,
    pretrained_on="text up to October 2023, not disclosed; abstracts and data of the studies may be among it",
    settings=MappingProxyType(
        {
            "name": "gpt-4o-mini-2024-07-18",  # of the model at the endpoint
            "top_k": 50,  # most highly expressed genes that are sent of a cell
            "cells_per_request": 10,
            "drug": "",  # what is said about the cells; "obs" takes each cell's own column of that name
            "cancer_type": "",
            "tissue": "",
            "temperature": 0.0,  # null leaves it to the endpoint
            "logprobs": True,  # P from the label token's alternatives, where the endpoint gives them
            "room": 100,  # tokens of an answer beside 40 a cell; one that thinks first needs thousands
            "retries": 2,  # further requests for cells without a readable answer
            "connection_retries": 5,  # of one request: rate limits, timeouts, errors of the server
            "timeout": 60.0,  # seconds
            "concurrency": 4,  # requests at a time
            "batch_api": False,  # half the price, answers within a day
            "poll": 30.0,  # seconds between two looks at a batch
            "usd_per_million_input": 0.15,
            "usd_per_million_output": 0.60,
            "price_date": "2024-07-18",  # the day of that price list
        }
    ),
    cites="OpenAI. GPT-4o System Card. arXiv:2410.21276 (2024)",
)
