"""What the card of a language model has beside the others': what it reads of a cell, how it is asked, at what price."""

from __future__ import annotations

import streamlit as st

from scdrugmap.app.jobs import endpoints, prompt_options
from scdrugmap.app.ui.format import count, duration, number
from scdrugmap.models.card import ModelCard
from scdrugmap.models.speed import speeds
from scdrugmap.prompting.cost import rough_estimate

_EXAMPLE = 1000  # cells, of which a price is told
_FLOAT32 = 4  # bytes


def facts(card: ModelCard) -> dict[str, str]:
    """Return short facts of a model that reads text, by name; empty for every other."""
    if card.input != "text":
        return {}
    reads = f"the names of its {card.settings['top_k']} most highly expressed genes, highest first"
    if not card.prompted:
        rates = [speed.cells_per_s for speed in speeds() if speed.model == card.key]
        return {
            "Reads of a cell": f"{reads}, cut at {count(card.settings['max_length'])} tokens",
            "Memory for its weights": f"{(card.n_parameters or 0) * _FLOAT32 / 1e9:.2g} GB in float32, half of that in "
            "bfloat16",
            f"Time for {count(_EXAMPLE)} cells": f"about {duration(_EXAMPLE / max(rates))} on a CPU" if rates else "",
        }
    settings = prompt_options.checked(card, {})
    estimate = rough_estimate(settings, _EXAMPLE, "")
    prices = (settings.usd_per_million_input, settings.usd_per_million_output)
    return {
        "Is told of a cell": f"{reads}; drug, cancer type and tissue where you say so",
        "Price of a million tokens": f"{number(prices[0])} USD sent, {number(prices[1])} USD received "
        f"({settings.price_date}); yours may differ",
        f"A run on {count(_EXAMPLE)} cells": f"{count(estimate.n_requests)} requests, "
        f"about {endpoints.usd(estimate.usd)}",
        "Tokens a request may have": count(card.max_length),
    }


def how_to_ask(card: ModelCard) -> None:
    """Say where a model is asked, what leaves the machine, and what is typed before it can be."""
    st.markdown(
        "It runs on somebody else's machine: what is asked leaves yours, at a price for each token. "
        f"[Predict](predict?model={card.key}) says what would be sent and what it would cost, lets you change both, "
        "and asks before anything is sent. Any endpoint that speaks OpenAI's protocol can be asked in its place, one "
        f"on your own machine too. [Its page]({card.weights.official}) has OpenAI's terms and prices of today."
    )
    st.code(endpoints.TURN_ON, language="bash", wrap_lines=True)
    with st.expander("The text of a request", icon=":material/description:"):
        st.code(prompt_options.request_text(prompt_options.checked(card, {})), language=None, wrap_lines=True)
