"""The app: navigation over the pages, nothing else. Start it with `make app`."""

from __future__ import annotations

import streamlit as st

from scdrugmap.app.pages import PAGES

if __name__ == "__main__":  # a Dask worker that starts imports this file under another name: it must not run the app
    st.navigation(
        [
            st.Page(page.file, title=page.title, icon=page.icon, url_path=page.key, default=page.default)
            for page in PAGES.values()
        ],
        position="top",
    ).run()
