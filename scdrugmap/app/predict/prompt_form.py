"""What a person chooses before a model is asked: what it is told, which model, how much at a time, and the limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from scdrugmap.app.jobs import endpoints, prompt_options
from scdrugmap.app.jobs.endpoints import Remote
from scdrugmap.app.jobs.prompt_options import FIELD_LABELS, LIMIT, OWN
from scdrugmap.app.jobs.store import JobStatus
from scdrugmap.app.ui.format import plain
from scdrugmap.errors import ScDrugMapError
from scdrugmap.models.card import ModelCard
from scdrugmap.models.core.cells import ABOUT
from scdrugmap.prompting.cost import Estimate, rough_estimate
from scdrugmap.prompting.settings import OBS

_EXAMPLES = {"drug": "e.g. erlotinib", "cancer_type": "e.g. melanoma", "tissue": "e.g. lung"}
LONGEST = 80  # characters of what is told
_SHOWN = 4  # values of a column


def terms(status: JobStatus, remote: Remote, kept: int) -> dict[str, Any] | None:
    """Ask for everything; return the options of a job that asks, or None while it may not run.

    `kept` answers are of earlier runs of the job.
    """
    given = choose(status, remote)
    if given is None:
        return None
    agreed, limit = consent(remote, given, status, kept)
    return {"consent": True, "max_cost": limit, "settings": given} if agreed else None


def choose(status: JobStatus, remote: Remote) -> dict[str, Any] | None:
    """Ask what the model is told; return what differs from its card, or None where something cannot be sent."""
    card, before = remote.card, status.options.get("settings") or {}
    with st.container(border=True):
        st.markdown("**What the model is told**")
        name = st.text_input(
            FIELD_LABELS["name"], before.get("name", card.settings["name"]), key="told_name", max_chars=LONGEST,
            help=f"As {plain(remote.host)} calls it. For Ollama, vLLM or llama.cpp: the name under which you serve it.",
        )  # fmt: skip
        places = st.columns(3)
        facts = {word: _said(word, status, before.get(word, ""), place)
                 for word, place in zip(ABOUT, places, strict=True)}  # fmt: skip
        st.caption("Leave a field empty to say nothing about it: then the model judges from the genes alone.")
        with st.expander("Genes, size of a request, price", icon=":material/tune:"):
            sizes = _sizes(card, before)
    if any(value is None for value in facts.values()):
        return None
    given = prompt_options.differing(card, {"name": (name or "").strip(), **facts, **sizes})
    try:
        prompt_options.checked(card, given)
    except ScDrugMapError as error:
        _wrong(error.line)
        return None
    return given


def _said(word: str, status: JobStatus, before: str, place: Any) -> str | None:
    """Ask what is told as one of drug, cancer type and tissue; None where that cannot be told."""
    columns = status.input.get("obs_columns", ())
    held = status.input.get("about", {}).get(word, {})
    with place:
        above = st.container()  # the field stands above the box that decides whether it can be written in
        from_column = word in columns and st.checkbox(
            f"{FIELD_LABELS[word]}: {OWN}", before == OBS, key=f"own_{word}", help=_holds(held),
        )  # fmt: skip
        typed = above.text_input(
            FIELD_LABELS[word], "" if before == OBS else before, key=f"told_{word}", max_chars=LONGEST,
            placeholder=_placeholder(held) if from_column else _EXAMPLES[word], disabled=from_column,
        )  # fmt: skip
        value = OBS if from_column else (typed or "").strip()
        wrong = prompt_options.problem(word, value, columns, held.get("values", ()))
        if wrong:
            _wrong(wrong)
    return None if wrong else value


def _holds(held: Mapping[str, Any]) -> str:
    """Say what a column holds, for its help tip."""
    values = [plain(value) for value in held.get("values", ())]
    return f"It holds {', '.join(values)}{' and others' if held.get('n', 0) > len(values) else ''}." if values else ""


def _placeholder(held: Mapping[str, Any]) -> str:
    values = list(held.get("values", ()))[:_SHOWN]
    return ", ".join(values) + (" ..." if held.get("n", 0) > len(values) else "")


def _sizes(card: ModelCard, before: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for numbers; the card's are proposed, or those of the run before."""
    start = {**card.settings, **before}
    steps: dict[str, dict[str, Any]] = {
        "top_k": {"min_value": 1, "step": 10, "help": "Most highly expressed first. More genes cost more."},
        "cells_per_request": {"min_value": 1, "step": 1,
                              "help": "They see each other. A small model may need 1."},
        "timeout": {"min_value": 1.0, "step": 30.0, "format": "%.0f", "help": "For each request."},
        "usd_per_million_input": {"min_value": 0.0, "step": 0.05, "format": "%.3f",
                                  "help": "0 for a machine of your own."},
        "usd_per_million_output": {"min_value": 0.0, "step": 0.05, "format": "%.3f",
                                   "help": "0 for a machine of your own."},
    }  # fmt: skip
    sizes: dict[str, Any] = {}
    for at, (name, options) in enumerate(steps.items()):
        if at % 3 == 0:
            row = st.columns(3)
        value = row[at % 3].number_input(FIELD_LABELS[name], value=start[name], key=f"told_{name}", **options)
        sizes[name] = start[name] if value is None else value
    left = row[2].checkbox(
        FIELD_LABELS["temperature"], start["temperature"] is None, key="told_temperature",
        help=f"Some newer hosted models take none. Else it is {card.settings['temperature']:g}.",
    )  # fmt: skip
    return sizes | {"temperature": None if left else card.settings["temperature"]}


def _wrong(line: str) -> None:
    st.error(plain(line), icon=":material/error:")


def consent(remote: Remote, given: Mapping[str, Any], status: JobStatus, kept: int) -> tuple[bool, float | None]:
    """Show what would leave this machine and what it costs; return whether that is agreed to, and the limit in USD.

    The box is ticked for what stands above it: a change unticks it.
    """
    settings = prompt_options.checked(remote.card, given)
    estimate = rough_estimate(settings, int(status.input.get("n_cells", 0)), remote.host)
    sentences = endpoints.lines(estimate, prompt_options.about(given))
    changed = _renewed(sentences)
    with st.container(border=True):
        st.markdown("**What leaves this machine, and what it costs**")
        st.markdown("\n".join(f"* {plain(line)}" for line in [*sentences, *endpoints.kept(kept)]))
        with st.expander("The text of a request", icon=":material/description:"):
            st.code(prompt_options.request_text(settings), language=None, wrap_lines=True)
        limit = _limit(estimate)
        if changed:
            st.info("What is sent or its price has changed: agree to it anew.", icon=":material/update:")
        agreed = st.checkbox(
            f"I agree that these gene names are sent to {plain(remote.host)}, and may share them.", key="consent"
        )
    return bool(agreed) and (limit is None or limit >= estimate.usd), limit


def _renewed(sentences: list[str]) -> bool:
    """Untick the box where it was ticked for something else; tell whether it waits for that."""
    state = st.session_state
    if state.get("agreed_to", sentences) != sentences and state.get("consent"):
        state["consent"] = False
        state["agree_anew"] = True
    if state.get("consent"):
        state["agree_anew"] = False
    state["agreed_to"] = sentences
    return bool(state.get("agree_anew"))


def _limit(estimate: Estimate) -> float | None:
    """Ask at which cost to stop; None where nothing costs. One that nobody touched follows the estimate."""
    if not estimate.usd:
        return None
    state, least = st.session_state, max(endpoints.LEAST, round(endpoints.MARGIN * estimate.usd + 0.005, 2))
    if state.get("max_cost") in (None, state.get("proposed_limit")):
        state["max_cost"] = least
    state["proposed_limit"] = least
    limit = st.number_input(
        LIMIT, min_value=0.0, step=0.1, format="%.3f", key="max_cost",
        help="Asking stops before this is passed. What was answered until then is kept.",
    )  # fmt: skip
    ceiling = least if limit is None else float(limit)
    if wrong := endpoints.over_limit(estimate.usd, ceiling):
        _wrong(wrong)
    return ceiling
