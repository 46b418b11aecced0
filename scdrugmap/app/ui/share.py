"""Take a view along: its link with every choice written out, and a line to cite it by."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from urllib.parse import urlencode

import streamlit as st

from scdrugmap.version import __version__

STUDY = "scDrugMap study: Nature Communications 17:730, doi 10.1038/s41467-025-67481-2"


def view(sentence: str, picks: Mapping[str, str]) -> None:
    """Offer the link of this view and a reference to it, both with a button that copies."""
    link = address(st.context.url or "", st.query_params.to_dict(), picks)
    with st.popover("Copy link or cite", icon=":material/link:"):
        st.caption("The link opens exactly these choices.")
        st.code(link, language=None, wrap_lines=True)
        st.caption("To cite it; the date matters, since results are added.")
        st.code(citation(sentence, link, datetime.datetime.now(datetime.UTC).date()), language=None, wrap_lines=True)


def address(page: str, query: Mapping[str, str], picks: Mapping[str, str]) -> str:
    """Return the address of a page with its query and all choices, so that a default that moves does not move it."""
    chosen = {name: word for name, word in picks.items() if isinstance(word, str)}
    return f"{page}?{urlencode({**query, **chosen})}"


def citation(sentence: str, link: str, day: datetime.date) -> str:
    """Return a reference to a view: what, where, by which version, when."""
    plain = sentence.replace("**", "").removeprefix("You are looking at ")
    return f"scDrugMap {__version__}: {plain} {link}, read on {day:%d %B %Y}. Follows the {STUDY}."
