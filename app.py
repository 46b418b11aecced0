"""The app: navigation over the pages, nothing else. Start it with `make app`."""

from __future__ import annotations

from scdrugmap.app.ui import layout

if __name__ == "__main__":  # a Dask worker that starts imports this file under another name: it must not run the app
    layout.navigation().run()
