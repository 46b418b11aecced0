"""Models that are asked over the network: who may be, what a person agrees to, and how their results are put in words.

A key is only ever read from this process's environment; Streamlit puts the top-level words of its secrets file there
when it starts. No page shows it, and no job keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from scdrugmap.app.jobs import prompt_options
from scdrugmap.app.ui.format import count, plain
from scdrugmap.errors import EndpointFailed
from scdrugmap.models import MODELS
from scdrugmap.models.card import ModelCard
from scdrugmap.prompting.cost import Estimate
from scdrugmap.prompting.endpoint import Endpoint
from scdrugmap.prompting.replies import P_SOURCES
from scdrugmap.settings import Settings

P_ASKED = "The probability that the model gives to the word resistant. It is not calibrated."
TURN_ON = """\
export OPENAI_API_KEY=...                           # any word where the endpoint wants none
export OPENAI_BASE_URL=http://localhost:11434/v1    # only for another endpoint than OpenAI's: here Ollama's
scdrugmap app"""
LEAST, MARGIN = 0.01, 2.0  # US dollars; a limit is proposed at that many times the estimate


@dataclass(frozen=True)
class Remote:
    """A model that is asked, and why it cannot be asked here, if so."""

    card: ModelCard
    host: str = ""
    reason: str = ""
    commands: str = ""  # that turn it on


def is_asked(model: str) -> bool:
    """Tell whether a model is asked over the network."""
    return model in MODELS and MODELS[model].prompted


def remotes(here: Settings) -> list[Remote]:
    """Return the models that are asked, each with its endpoint or the reason why it is off here."""
    cards = [card for card in MODELS.values() if card.prompted]
    if here.public:
        reason = "Nobody's key is used on a shared server. Run the app on a machine of your own."
        return [Remote(card, reason=reason) for card in cards]
    try:
        host = Endpoint.from_env().host
    except EndpointFailed as error:
        return [Remote(card, reason=str(error), commands=TURN_ON) for card in cards]
    return [Remote(card, host) for card in cards]


def label(card: ModelCard) -> str:
    """Name a model among the choices of the Predict page."""
    return f"{card.title} · asked over the network"


def lines(estimate: Estimate, about: str = "") -> list[str]:
    """Return what a person agrees to, a sentence each; `about` is what is told beside genes."""
    sentences = [
        f"To {estimate.host} (model {estimate.model}) go {estimate.sent}.",
        f"Told about the cells: {about}" if about else "Nothing is told about drug, cancer type and tissue.",
        f"{count(estimate.n_cells)} cells in {count(estimate.n_requests)} requests, about "
        f"{count(estimate.input_tokens)} tokens sent and {count(estimate.output_tokens)} received.",
        f"Estimated price: {usd(estimate.usd)} ({estimate.price}); requests asked again come on top.",
        "The answer is a language model's word on a list of genes: it is not calibrated, and there is no measure of "
        "novelty.",
    ]
    if prompt_options.OWN in about:
        sentences[2] += " Cells of which different things are told share no request, so there may be a few more."
    return sentences


def kept(answers: int) -> list[str]:
    """Say that answers of earlier runs are kept, where there are any."""
    noun = "answer" if answers == 1 else "answers"
    text = f"{count(answers)} {noun} of earlier runs kept: what is asked again in the same words costs nothing."
    return [text] if answers else []


def usd(amount: float) -> str:
    """Say an amount of US dollars; one below a cent is no "0.00"."""
    return f"{amount:.2f} USD" if amount >= 0.1 or not amount else f"{amount:.4f} USD"


def over_limit(estimated: float, limit: float) -> str:
    """Say that nothing would be sent, where an estimate in US dollars is over the limit; empty where it is not."""
    text = (
        f"The estimate of {usd(estimated)} is over this limit, so nothing would be sent. Allow more, or tell fewer "
        "genes of a cell."
    )
    return text if estimated > limit else ""


def drawable(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells that have an answer, with the columns of novelty that a chart asks for: nothing is novel."""
    prompt_options = {"novel": pl.lit(value=False), "novelty": pl.lit(None, pl.Float32)}
    missing = {name: value for name, value in prompt_options.items() if name not in cells.columns}
    return cells.filter(pl.col("p_resistant").is_not_null()).with_columns(**missing)


def warning(provenance: Mapping[str, Any]) -> str:
    """Say above a result what stands behind it."""
    put = provenance["asked"]
    text = (
        f"A language model ({put['name']} at {put['host']}) was asked about lists of genes. Nothing was fitted, "
        "calibrated or tested on held-out studies here. Read what follows as a demonstration, not as evidence about "
        "these cells."
    )
    if put["n_failed"]:
        text += (
            f" {count(put['n_failed'])} of {count(put['n_cells'])} cells got no readable answer: no share counts "
            "them, and against your labels they count as wrong. The same words would get the same replies, which are "
            "kept: run these cells again (below) with fewer cells in a request, or another model."
        )
    return text


def cost(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """Say what asking cost, and for what."""
    put = provenance["asked"]
    tokens = f"{count(put['input_tokens'])} tokens sent, {count(put['output_tokens'])} received"
    return usd(put["usd"]), tokens


def was_told(provenance: Mapping[str, Any]) -> str:
    """Say what the model was told about the cells beside their genes."""
    return prompt_options.about(provenance["settings"]) or "Nothing: no drug, no cancer type, no tissue."


def what_it_is(provenance: Mapping[str, Any]) -> str:
    """Say what P(resistant) is here, and what it is not."""
    put, chosen = provenance["asked"], provenance["settings"]
    how = " or ".join(P_SOURCES[name] for name in sorted(put["sources"])) or "not given for any cell"
    name, top_k, together = plain(put["served"] or put["name"]), chosen["top_k"], int(chosen["cells_per_request"])
    at_a_time = "one cell" if together == 1 else f"{together} cells"
    return (
        f"**What this score is.** The probability of *resistant* by {name}, {how}, after it was shown the names of "
        f"each cell's {top_k} most highly expressed genes, {at_a_time} at a time (prompt {put['prompt']}).  \n"
        f"**What it was told about the cells.** {plain(was_told(provenance))}  \n"
        f"**How far to trust it.** {provenance['held_out']['verdict']} Calibration: {provenance['calibration']}. "
        f"Novelty: {provenance['novelty']}.  \n"
        "**What it is not.** It is not a clinical probability and not specific to a drug that the model was not told. "
        "The model may have read about the study that the cells come from. Research use only."
    )
