"""The rules of the house: which folder may import which, how many modules it holds, and one name for one thing.

docs/architecture.md draws it. Every exception stands here by name, with its reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from importlib import metadata
from pathlib import Path

import pytest
from house_rules import EVALUATION, LAYERS, PACKAGE
from places import ROOT

from scdrugmap import version

MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted((ROOT / "pages").glob("*.py"))
LONG_FUNCTION, LONG_MODULE, MOST_MODULES = 40, 300, 14

# And inside the app: a page's folder never imports another page's.
SHARED = {"pages", "ui", "jobs", "cells"}
VISITORS = {"models": {"runs"}}  # a run's card opens over the leaderboard

# File names that stand in several folders: a page's parts, a model's parts, and these, each with what tells them apart.
PARTS = {
    "view",
    "queries",
    "tables",
    "text",
    "filters",
    "frames",
    "card",
    "tokens",
    "network",
    "convert",
    "fit",
    "load",
}
TWICE = {
    "__init__", "store",  # the joblib shim may not move, and results and jobs have stores as well
    "report",  # of a prediction (the app) and what the CLI prints
    "benchmark", "cells", "models", "data", "reference", "app",  # a group of CLI verbs is called as its verb
    "cost", "metrics", "scores", "transfer", "catalogue", "predictions",
    "settings",  # of this machine, and of a prompt
    "genes",  # names of genes, and the vocabulary that scBERT reads
    "prompt",  # the text that is sent, and the strategy that sends it
}  # fmt: skip


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere; what only a type checker reads is left out."""
    tree = ast.parse(path.read_text())
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in NAMES else node.module for name in full}
    return names


def inner(path: Path) -> set[tuple[str, ...]]:
    return {tuple(name.split(".")[1:]) for name in imports(path) if name.startswith("scdrugmap.")}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- who may import whom ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE], ids=ids)
def test_imports_point_one_way(path):
    layer = path.relative_to(PACKAGE).parts[0]
    used = {name[0] for name in inner(path)} & set(LAYERS)
    assert used <= LAYERS[layer] | {layer}


@pytest.mark.parametrize("path", sorted((PACKAGE / "evaluation").rglob("*.py")), ids=ids)
def test_imports_inside_evaluation_point_one_way(path):
    own = path.relative_to(PACKAGE / "evaluation").with_suffix("").parts[0]
    used = {name[1] for name in inner(path) if name[0] == "evaluation" and len(name) > 1}
    assert used <= EVALUATION.get(own, set()) | {own}


@pytest.mark.parametrize("path", sorted((PACKAGE / "app").rglob("*.py")), ids=ids)
def test_a_page_imports_no_other_page(path):
    own = path.relative_to(PACKAGE / "app").with_suffix("").parts[0]
    used = {name[1] for name in inner(path) if name[0] == "app" and len(name) > 1}
    assert used <= SHARED | {own}
    if own == "ui":
        assert not used & {"jobs", "cells"}


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_pages_only_read_ask_and_draw(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots <= {"__future__", "collections", "typing", "polars", "streamlit", "scdrugmap"}
    allowed = SHARED | {path.stem} | VISITORS.get(path.stem, set())
    assert {name[:2] for name in inner(path)} <= {("app", part) for part in allowed} | {
        name[:2] for name in inner(path) if name[0] in ("plots", "errors")
    }


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_only_the_app_knows_streamlit(path):
    if path.relative_to(PACKAGE).parts[0] != "app":
        assert not {name for name in imports(path) if name.split(".")[0] == "streamlit"}


def test_nothing_imports_the_package_itself_from_below():
    below = [path for path in MODULES if path.parent != PACKAGE]
    assert [ids(path) for path in below if "scdrugmap" in imports(path)] == []


def test_no_module_imports_itself_by_way_of_others():
    graph = {name_of(path): imports(path) & NAMES for path in MODULES}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name] - {name}):
                walk(other, (*way, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())


# ---- folders and names -----------------------------------------------------------------------------------------------
FOLDERS = sorted({path.parent for path in MODULES})


@pytest.mark.parametrize("folder", FOLDERS, ids=ids)
def test_a_folder_can_be_read_at_a_glance(folder):
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MOST_MODULES
    first = Counter(name.split("_")[0] for name in modules)
    assert [name for name, n in first.items() if n > 1 and name] == []  # a folder that is missing


def test_a_file_name_repeats_only_where_the_parts_of_a_page_or_a_model_do():
    names = Counter(path.stem for path in MODULES)
    assert {name for name, n in names.items() if n > 1} <= PARTS | TWICE


def test_a_class_is_called_like_no_other():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name_of(path))
    # Every model's folder has these by contract (docs/adding-a-model.md).
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert set(twice) <= {"Tokenizer", "Network", "Config"}
    assert all(".models." in place for places in twice.values() for place in places)


# Joined by a plus sign as labels that are part of run ids and records, which may not change; nothing takes them apart.
JOINED = {
    "scdrugmap.evaluation.plan.expand": 1,  # the facet value of data sets that are pooled as they are
    "scdrugmap.evaluation.cells.labelled_cells": 2,  # a facet with several values in one data set; kinds of matrices
    "scdrugmap.evaluation.cells.dataset_summary": 1,  # the collections of one data set
}


# Values that are called by what was done to them and not by what they are; the rest are words of files and records.
NO_NAMES = {"found", "said", "told", "asked", "one", "own", "came"}
KEPT = {("run_record.py", "asked"), ("findings.py", "said")}  # fields of records that are written to disk


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=ids)
def test_a_value_is_called_by_what_it_is(path):
    for node in ast.walk(ast.parse(path.read_text())):
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        name = node.id if stored else node.arg if isinstance(node, ast.arg) else ""
        assert name not in NO_NAMES or (path.name, name) in KEPT, f"{path}:{node.lineno} {name}"


def test_a_public_constant_is_called_like_no_other():
    homes = defaultdict(list)
    for path in MODULES:
        parts = path.relative_to(PACKAGE).parts
        if parts[0] == "models" and len(parts) > 2 and parts[1] not in ("core", "checkpoints", "text"):
            continue  # a model's folder reads alone
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
                    homes[target.id].append(name_of(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_no_list_travels_as_a_joined_string(path):
    """Names are joined for the eye only, with a separator that nobody splits again."""
    text = path.read_text()
    assert not re.search(r"""\.split\(["']\+["']\)""", text)
    assert len(re.findall(r"""["']\+["']\.join\(""", text)) == JOINED.get(name_of(path), 0)
    assert not re.search(r"""starts_?with\(["']simulated""", text)


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=ids)
def test_modules_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONG_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False)
            body = node.end_lineno - node.lineno + 1 - (documented.count("\n") + 1 if documented else 0)
            assert body <= LONG_FUNCTION, f"{path.name}:{node.lineno} {node.name} has {body} lines"


# ---- the face of the package -----------------------------------------------------------------------------------------
def test_importing_is_instant_and_touches_no_device():
    code = "import sys, scdrugmap, scdrugmap.models, scdrugmap.data.catalog.catalog; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False"


def test_public_names_resolve():
    import scdrugmap

    for name in scdrugmap.__all__:
        assert getattr(scdrugmap, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        scdrugmap.nothing  # noqa: B018


def test_pyproject_is_where_the_version_is_written(monkeypatch):
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version.__version__ == written

    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", not_installed)
    assert version._version() == written
