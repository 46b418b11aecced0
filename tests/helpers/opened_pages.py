"""A page of the app run alone, as a deep link opens it, and what stands on it: for tests of several pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from places import ROOT
from streamlit.testing.v1 import AppTest

from scdrugmap.app.pages import PAGES

KINDS = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "code", "metric", "json")


def opened(page: str, **query: str) -> AppTest:
    """Run a page; Home goes through app.py, since it links to other pages."""
    app = AppTest.from_file(str(ROOT / ("app.py" if PAGES[page].default else PAGES[page].file)), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def text_of(app: AppTest) -> str:
    return "\n".join(str(element.value) for kind in KINDS for element in app.get(kind))


def charts_on(app: AppTest) -> list[dict[str, Any]]:
    """Return the specification of each chart on a page, its data under "datasets" as in a chart of its own."""
    found = []
    for element in app.get("arrow_vega_lite_chart") + app.get("vega_lite_chart"):
        tables = {each.name: pa.ipc.open_stream(each.data.data).read_all() for each in element.proto.datasets}
        rows = {name: table.to_pylist() for name, table in tables.items()}
        found.append({**json.loads(element.proto.spec), "datasets": rows})
    return found


def colour_scales(spec: Any) -> Iterator[dict[str, str]]:
    """Yield what each colour of a chart means: one dictionary a scale, from the word to the colour."""
    if isinstance(spec, dict):
        scale = spec.get("scale")
        if isinstance(scale, dict) and str(scale.get("range", [""])[0]).startswith("#"):
            yield dict(zip(map(str, scale.get("domain", [])), scale["range"], strict=False))
        for key, value in spec.items():
            if key != "datasets":
                yield from colour_scales(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from colour_scales(value)
