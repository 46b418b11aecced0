"""What every page shares: its head and foot, its empty and error states, captions, the colours of the moment.

A page draws its own header and depends on nothing that app.py did, so that it works when it is opened or tested alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage
from streamlit.runtime.pages_manager import PagesManager

from scdrugmap.app.pages import PAGES
from scdrugmap.app.ui import format
from scdrugmap.errors import ScDrugMapError
from scdrugmap.plots.palette import DARK, LIGHT, Ink
from scdrugmap.version import __version__

_LOGO = Path(__file__).with_name("logo.svg")  # also the favicon: a Material symbol there would be asked of another host

# Streamlit has no setting for these: a reading width, the word beside the logo, quieter captions, room at the top, a
# chosen tab in the text's colour (the accent is too faint for small words on a dark page), and tabs that wrap on a
# phone, where a linked tab would otherwise stand out of sight.
_STYLE = """
<style>
[data-testid="stMainBlockContainer"] {max-width: 1240px; padding-top: 4.6rem; padding-bottom: 3rem;}
:is(a, button, div):has(> [data-testid="stHeaderLogo"]) {
  text-decoration: none; color: inherit; display: flex; align-items: center; gap: .55rem;}
:is(a, button, div):has(> [data-testid="stHeaderLogo"])::after {
  content: "scDrugMap"; font-weight: 650; font-size: 1.06rem;}
[data-testid="stCaptionContainer"] {font-size: .9rem; line-height: 1.45; opacity: .75;}
[data-testid="stTab"][aria-selected="true"] {color: inherit;}
[data-testid="stTab"][aria-selected="true"] p {font-weight: 600;}
[data-testid="stSliderThumbValue"] {color: inherit;}
.sdm-kicker {font-size: 1.06rem; opacity: .78; margin: -.55rem 0 .9rem 0;}
.sdm-foot {border-top: 1px solid rgba(128,140,150,.35); opacity: .8;
  margin-top: 2.4rem; padding-top: .8rem; font-size: .86rem;}
.sdm-big {font-size: 1.35rem; line-height: 1.4; max-width: 46rem;}
.sdm-foot a {color: inherit;}
.sdm-count {padding-left: .55rem; font-size: 1.7rem; font-weight: 650; line-height: 1.15;}
.sdm-checks {list-style: none; padding-left: 0; margin: 0;}
.sdm-checks li {padding: .22rem 0 .22rem 1.7rem; text-indent: -1.7rem;}
.sdm-checks b {display: inline-block; width: 1.7rem; text-indent: 0;}
.sdm-checks .fix {opacity: .78;}
@media (max-width: 640px) {
  [data-testid="stMainBlockContainer"] {padding-left: 1rem; padding-right: 1rem;}
  .sdm-big {font-size: 1.15rem;}
  [data-testid="stTabs"] [role="tablist"] {flex-wrap: wrap; row-gap: .1rem; overflow: visible;}
  [class*="st-key-two_"] [data-testid="stColumn"] {min-width: calc(50% - 1rem);}
}
</style>
"""


def navigation() -> StreamlitPage:
    """Declare the pages, and return the one that the URL asks for."""
    return st.navigation(
        # No icon here: Streamlit would make it the favicon, and ask another host for it.
        [st.Page(page.file, title=page.title, url_path=page.key, default=page.default) for page in PAGES.values()],
        position="top",
    )


@contextmanager
def page(key: str) -> Iterator[None]:
    """Draw a page's head and foot around its body; what a user can mend becomes a sentence and its remedy."""
    record = PAGES[key]
    if PagesManager.uses_pages_directory:
        navigation()  # a deep link was the first visit since the server started: Streamlit has not run app.py
        st.rerun()  # now it will: what the page draws must belong to that run
    st.set_page_config(page_title=f"{record.title} · scDrugMap", page_icon=str(_LOGO), layout="wide")
    st.html(_STYLE)
    st.logo(str(_LOGO), size="large")
    if not record.default:
        st.title(record.title, anchor=False)
        st.html(f'<div class="sdm-kicker">{record.question}</div>')
    try:
        yield
    except ScDrugMapError as error:
        problem(error)
    _foot()


def _foot() -> None:
    st.html(
        '<div class="sdm-foot">Research use only: nothing here may guide the treatment of a patient. '
        f"scDrugMap {__version__}, MIT licence. Follows the scDrugMap study, "
        '<a href="https://doi.org/10.1038/s41467-025-67481-2" target="_blank">Nature Communications 17:730</a>.</div>'
    )


def problem(error: ScDrugMapError) -> None:
    """Say what is wrong and what mends it; never a traceback."""
    st.error(str(error), icon=":material/error:")
    if error.remedy:
        remedy(error.remedy)


def remedy(text: str) -> None:
    """Show a remedy as prose, and its command, if it ends in one, ready to copy."""
    format, program, command = text.partition("scdrugmap ")
    if format.strip():
        st.markdown(f"**What to do:** {format.strip()}")
    if program:
        st.code(program + command.strip().removesuffix("."), language="bash", wrap_lines=True)


def nothing_yet(what: str, next_step: str, command: str = "") -> None:
    """Draw the empty state: what is missing, what to do next, and the command that does it."""
    with st.container(border=True):
        st.markdown(f"**{what}**")
        st.markdown(next_step)
        if command:
            st.code(command, language="bash", wrap_lines=True)


def cautions(sentences: Sequence[str]) -> None:
    """List what must be known before a number is read, in one box."""
    if sentences:
        plain = [format.plain(sentence) for sentence in sentences]
        st.warning(
            plain[0] if len(plain) == 1 else "\n".join(f"* {sentence}" for sentence in plain), icon=":material/warning:"
        )


def caption(*parts: str) -> None:
    """Draw the caption of a figure: what, n, split, interval kind, date."""
    text = " · ".join(part for part in parts if part)
    st.caption(text[:1].upper() + text[1:])


def ink() -> Ink:
    """Return the colours for the theme that this browser shows."""
    return DARK if st.context.theme.type == "dark" else LIGHT
