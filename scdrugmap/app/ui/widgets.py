"""Choices, each bound to the URL: a link opens the same view, and a choice survives a change of page.

One key per concept on all pages; the key is the word in the URL. What a word means is its help tip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import polars as pl
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from scdrugmap.app.ui.glossary import tip

ANY = "all"
T = TypeVar("T")


def choose(
    label: str, options: Sequence[str], key: str, *, word: str = "", default: str | None = None,
    place: DeltaGenerator | None = None,
) -> str:  # fmt: skip
    """Ask for one of `options`; a word in the URL that is none of them is dropped and the default taken."""
    options = list(options) or [ANY]
    index = options.index(default) if default in options else 0
    chosen = (place or st).selectbox(
        label, options, index=index, key=key, help=tip(word) if word else None, bind="query-params",
        persist_state="session",
    )  # fmt: skip
    return chosen or options[index]


def switch(
    label: str, options: Sequence[str], key: str, *, word: str = "", default: str | None = None,
    place: DeltaGenerator | None = None,
) -> str:  # fmt: skip
    """Ask for one of a few options, all of them in sight."""
    options = list(options)
    first = default if default in options else options[0]
    chosen = (place or st).segmented_control(
        label, options, default=first, required=True, key=key, help=tip(word) if word else None,
        bind="query-params", persist_state="session",
    )  # fmt: skip
    return str(chosen) if chosen in options else first


def several(
    label: str, options: Sequence[str], key: str, *, word: str = "", place: DeltaGenerator | None = None,
    shown: str = "all",
) -> list[str]:  # fmt: skip
    """Ask for any number of options; where none is chosen, `shown` says what is seen."""
    return list(
        (place or st).multiselect(
            label, list(options), key=key, placeholder=shown, help=tip(word) if word else None, bind="query-params",
            persist_state="session",
        )
    )  # fmt: skip


def search(label: str, key: str, placeholder: str, *, place: DeltaGenerator | None = None) -> str:
    """Ask for words to look for; filters while one types."""
    typed = (place or st).text_input(
        label, key=key, placeholder=placeholder, type="search", live=True, bind="query-params", persist_state="session"
    )
    return (typed or "").strip()


def toggle(label: str, key: str, *, default: bool, word: str = "", place: DeltaGenerator | None = None) -> bool:
    """Ask for yes or no."""
    return bool(
        (place or st).toggle(
            label, value=default, key=key, help=tip(word) if word else None, bind="query-params",
            persist_state="session",
        )
    )  # fmt: skip


def first(items: Sequence[T], what: str, most: int) -> Sequence[T]:
    """Return the first `most` of what was found, or all of it where that is asked for."""
    if len(items) <= most or toggle(f"Show all {len(items)} {what}", "all", default=False):
        return items
    return items[:most]


def threshold(place: DeltaGenerator | None = None) -> float:
    """Ask from which P(resistant) a cell is called resistant."""
    return float(
        (place or st).slider(
            "Called resistant from P(resistant) =", 0.05, 0.95, 0.5, 0.05, key="threshold", bind="query-params",
            persist_state="session", help=tip("P(resistant)"),
        )
    )  # fmt: skip


def opened(parameter: str) -> str:
    """Return what card the URL asks for (`?dataset=key`), or an empty string."""
    return st.query_params.get(parameter, "")


def table(
    frame: pl.DataFrame, columns: dict[str, Any], key: str, *, opens: str = "", keys: Sequence[str] = (),
    height: int | Literal["auto", "content"] = "content",
) -> None:  # fmt: skip
    """Draw a table; with `opens`, choosing a row puts its key in the URL under that name, which opens its card."""

    def chosen() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            st.query_params[opens] = keys[rows[0]]

    st.dataframe(
        frame, hide_index=True, column_config=columns, key=key, placeholder="–", height=height,
        alt=f"table: {key.replace('_', ' ')}",
        on_select=chosen if opens else "ignore", selection_mode="single-row",
    )  # fmt: skip


def close(*parameters: str) -> None:
    """Take a card out of the URL."""
    for parameter in parameters:
        st.query_params.pop(parameter, None)


def back(label: str, *parameters: str) -> None:
    """Offer the way back from a card to the list."""
    st.button(label, icon=":material/arrow_back:", type="tertiary", on_click=close, args=parameters)


def turn(label: str, icon: str, *, closes: Sequence[str] = (), **opens: str) -> None:
    """Offer to open another card of the same page: `opens` go into the URL, `closes` out of it."""

    def turned() -> None:
        close(*closes)
        for name, value in opens.items():
            st.query_params[name] = value

    st.button(label, icon=icon, type="tertiary", on_click=turned, key=f"turn {sorted(opens.items())}")


def facts(record: Mapping[str, object], columns: int = 3) -> None:
    """Draw short facts as a grid of name over value; empty values are left out."""
    shown = {name: value for name, value in record.items() if value not in (None, "", "–")}
    for at, (name, value) in enumerate(shown.items()):
        if at % columns == 0:
            row = st.columns(columns)
        row[at % columns].markdown(f":gray[{name}]  \n{value}")
