"""The card of a model: what it is, what it may be used for, how to get it, what it scored."""

from __future__ import annotations

import polars as pl
import streamlit as st

from scdrugmap.app.models import language_model
from scdrugmap.app.models import queries as models_queries
from scdrugmap.app.ui import format, layout, queries, score_table, widgets
from scdrugmap.models.card import ModelCard


def paper_url(paper: str) -> str:
    """Return the link behind `doi:...` or `arXiv:...`, empty for anything else."""
    kind, _, name = paper.partition(":")
    return {"doi": f"https://doi.org/{name}", "arXiv": f"https://arxiv.org/abs/{name}"}.get(kind, "") if name else ""


def model(card: ModelCard, state: str, board: pl.DataFrame, metric: str) -> None:
    """Draw the card of a model: what it is, what it may be used for, how to get it, what it scored by a metric."""
    st.subheader(card.title, anchor=False)
    st.markdown(card.summary)
    with st.container(horizontal=True, vertical_alignment="center"):
        if card.kind != state:
            st.badge(card.kind, color="gray")
        st.badge(state, color="green" if state != "needs weights" else "orange")
        if paper_url(card.paper):
            st.link_button("Paper", paper_url(card.paper), icon=":material/open_in_new:")
        if card.code.startswith("http"):
            st.link_button("Code", card.code, icon=":material/open_in_new:")
        st.code(card.key, language=None, width="content")
    widgets.facts(
        {
            "Licence of the code": card.licence,
            "Licence of the weights": card.weights.licence,
            "Cite": card.cites,
            "Parameters": format.parameters(card.n_parameters),
            "Width of an embedding": f"{card.dim} numbers" if card.dim else "",
            "Tokens a cell": "" if card.prompted else format.count(card.max_length) if card.max_length else "no limit",
            "Gene identifiers": card.genes,
            "Makes of raw counts": card.input,
            "Pretrained on": card.pretrained_on or "nothing: it is fitted on the training cells of each split",
            "Of these, in the catalogue": ", ".join(models_queries.seen(card)),
            **language_model.facts(card),
        }
    )
    st.markdown("##### How it is asked" if state == "remote" else "##### Its weights")
    _weights(card, state)
    _scored(card, board, metric)


def _scored(card: ModelCard, board: pl.DataFrame, metric: str) -> None:
    st.markdown("##### What it scored")
    rows = board.filter(pl.col("model") == card.key, pl.col("metric") == queries.SHOWN[metric])
    if rows.is_empty():
        layout.nothing_yet(
            "Nothing was measured or reported for this model.",
            "Run it on a labelled file.",
            f"scdrugmap benchmark run --data mine.h5ad --model {card.key}",
        )
        return
    shown = score_table.scores_of(rows)
    widgets.table(shown, score_table.scores_of_columns(metric), "scores", opens="run", keys=shown["run_id"].to_list())
    st.caption(
        f"{metric}, means over seeds, with the constant classifier of the same cells beside it; pairs of two data sets "
        "stand on Transfer. Choose a row to open its run."
    )


def _weights(card: ModelCard, state: str) -> None:
    if state == "remote":
        _licence(card)
        language_model.how_to_ask(card)
        return
    if state == "needs weights":
        _licence(card)
        _get(card)
    else:
        st.markdown("They come with the package: nothing to download." if state == "bundled" else
                    "They are on this machine.")  # fmt: skip
    if queries.has_reference(card.key):
        if state != "needs weights":
            st.markdown(f"[Predict with it](predict?model={card.key}), by a reference that is on this machine.")
        return
    st.markdown("To predict with it, fit a reference on labelled cells; without one it embeds, and enters benchmarks:")
    st.code(queries.fit_command(card.key), language="bash", wrap_lines=True)


def _get(card: ModelCard) -> None:
    """Say where weights come from and what is typed to get them."""
    weights = card.weights
    size = f" ({format.megabytes(weights.size_mb)})" if weights.size_mb else ""
    page = f"https://huggingface.co/{weights.hub}" if weights.hub else weights.official
    source = f" Source: [{weights.hub or page}]({page}){size}." if page else ""
    asks = "" if weights.package else f" {weights.instruction}"
    st.markdown(f"They are not on this machine.{source}{asks}")
    if weights.gated:
        st.markdown(
            "The Hub gives these weights only to accounts that accepted their licence: "
            f"[accept it on the model's page]({page}), [make a read token](https://huggingface.co/settings/tokens), "
            "and type:"
        )
    st.code("\n".join(queries.commands_for(card)), language="bash", wrap_lines=True)


def _licence(card: ModelCard) -> None:
    """Say before a download under which licence it comes, and mark plainly what restricts its use."""
    lines = [f"Code: **{card.licence}**. Weights: **{card.weights.licence}**."]
    lines += [text for text in (restriction(card.licence), restriction(card.weights.licence)) if text]
    show = st.warning if len(lines) > 1 or card.weights.gated else st.info
    show("  \n".join(dict.fromkeys(lines)), icon=":material/gavel:")


def restriction(licence: str) -> str:
    """Return what a licence asks of a user in one sentence; empty where it asks for little more than its name."""
    words = licence.lower()
    if "non-commercial" in words:
        return "**Non-commercial**: these files may not be used in a product or service that earns money."
    if words.startswith(("not stated", "not known")):
        return "**No licence is stated**: without one, ask the authors before you use it for more than reading."
    if "gpl" in words:
        return "**GPL**: what is built on this and given to others must be given under the GPL as well."
    if "community" in words:
        return "**A licence of its own**: read its terms of use, which the download asks you to accept."
    return ""
