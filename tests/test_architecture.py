from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from scdrugmap import version

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scdrugmap"

# A layer may import the layers named beside it (design: imports point one way); root modules are free to all.
ALLOWED = {
    "data": set(),
    "models": set(),
    "embeddings": {"data", "models"},
    "evaluation": {"data", "models", "embeddings"},
    "prediction": {"data", "models", "embeddings", "evaluation"},
    "app": {"data", "models", "embeddings", "evaluation", "prediction"},
    "cli": {"data", "models", "embeddings", "evaluation", "prediction"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted((ROOT / "pages").glob("*.py"))
# Edges that are left out when circles are looked for: each is a circle that still has to be broken.
CIRCLES = {("scdrugmap.evaluation.strategies.heads", "scdrugmap.evaluation.strategies.mlp")}
LONG_FUNCTION, LONG_MODULE = 40, 300


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {dotted(path): path for path in MODULES}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes that may run, those inside functions included and those that only a type checker reads not."""
    if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from executed(child)


def modules_used(path: Path) -> set[str]:
    """Return our modules that a module imports when it is loaded or later, inside a function."""
    names: set[str] = set()
    for node in executed(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in NAMES else node.module for name in full}
    return names & set(NAMES)


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {used for used in modules_used(path) if (name, used) not in CIRCLES} for name, path in NAMES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_the_face_of_the_package(path):
    assert "scdrugmap" not in modules_used(path)


def test_pyproject_is_where_the_version_is_written(monkeypatch):
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version.__version__ == written

    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", not_installed)
    assert version._version() == written


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return
    layer = parts[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("scdrugmap.")} & set(ALLOWED)
    assert used <= ALLOWED[layer] | {layer}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_app_knows_streamlit(path):
    if path.relative_to(PACKAGE).parts[0] != "app":
        assert not {name for name in imports(path) if name.split(".")[0] == "streamlit"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_only_read_ask_and_draw(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"torch", "peft", "transformers", "anndata", "scanpy", "sklearn", "joblib"}
    inner = {name for name in imports(path) if name.startswith("scdrugmap.")}
    assert all(name.startswith(("scdrugmap.app", "scdrugmap.errors")) for name in inner)


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONG_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False)
            body = node.end_lineno - node.lineno + 1 - (documented.count("\n") + 1 if documented else 0)
            assert body <= LONG_FUNCTION, f"{path.name}:{node.lineno} {node.name} has {body} lines"


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
