"""What documents name exists: files, functions, imports, links; and docs/architecture.md draws the house as it is."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from house_rules import EVALUATION, LAYERS, PACKAGE

ROOT = PACKAGE.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PLAN = (ROOT / "docs" / "architecture.md").read_text()
TREES = ("scdrugmap", "pages", "docs", "tests", "benchmarks", "scripts")

# A path from the top of the repository, the name of a Python file, a module or what is in it, a link.
PATH = re.compile(rf"(?<![\w/.<>-])(?:{'|'.join(TREES)})/[\w./<>*-]*[\w>/*]")
FILE = re.compile(r"(?<![\w./<>*-])[\w<>*-]+(?:/[\w<>*-]+)*\.py\b")
DOTTED = re.compile(r"(?<![\w/.-])scdrugmap(?:\.[A-Za-z_]\w*)+")
SNIPPET = re.compile(r"^ *```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
FUNCTION = re.compile(r"(?:([\w/]+\.py))?::([a-z]\w*)")

# What a document tells of that is not here, by document.
ELSEWHERE = {
    "decisions.md": {
        "cli.py", "docs/performance.json", "queries_views.py", "words.py",  # gone: it says what took their place
        "scdrugmap/site/",  # in a wheel only
    },
    # The published code's own files, whose lines it cites.
    "reproducing.md": {
        "FT.py", "GPT4/main.py", "GPT4/utils.py", "Geneformer/benchmarking_main_FT.py",
        "Llama/benchmarking_dataloader.py", "Llama/dataset_making.py", "UCE/benchmarking_dataloader_EBD.py",
        "UCE/benchmarking_main_EBD.py",
        "UCE/benchmarking_main_FT.py",
    },
}  # fmt: skip

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def files() -> list[str]:
    return [str(path.relative_to(ROOT)) for tree in TREES for path in (ROOT / tree).rglob("*.py")] + [
        path.name for path in ROOT.glob("*.py")
    ]


FILES = files()


def pattern(path: str) -> str:
    return re.sub(r"<[^<>]+>", "*", path)


def is_file(name: str) -> bool:
    """Tell whether some file of ours ends in this path, `<key>` and `*` in it standing for any name."""
    wanted = re.compile(r"(?:.*/)?" + re.escape(pattern(name)).replace(r"\*", "[^/]+"))
    return any(wanted.fullmatch(path) for path in FILES)


def is_there(path: str) -> bool:
    return any(ROOT.glob(pattern(path).rstrip("/")))


@functools.cache
def names_in(file: Path) -> set[str]:
    """Names that a module binds, read without importing it: torch is not needed to look a word up."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def resolves(dotted: str) -> bool:
    """Tell whether this is a package, a module, or a name in one."""
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    homes = (path.parent.with_suffix(".py"), path.parent / "__init__.py")
    return any(path.name in names_in(home) for home in homes if home.is_file())


def missing(document: Path, names: list[str], exists) -> list[str]:
    absent = {name for name in names if not exists(name)}
    return sorted(absent - ELSEWHERE.get(document.name, set()))


@every_document
def test_paths_in_a_document_exist(document):
    assert missing(document, PATH.findall(document.read_text()), is_there) == []


@every_document
def test_python_files_in_a_document_are_ours(document):
    assert missing(document, FILE.findall(document.read_text()), is_file) == []


@every_document
def test_dotted_names_in_a_document_resolve(document):
    assert missing(document, DOTTED.findall(document.read_text()), resolves) == []


@every_document
def test_links_in_a_document_lead_somewhere(document):
    text = document.read_text()
    assert missing(document, LINK.findall(text), lambda link: (document.parent / link).exists()) == []


@every_document
def test_snippets_in_a_document_import_what_there_is(document):
    for snippet in SNIPPET.findall(document.read_text()):
        indent = len(snippet) - len(snippet.lstrip(" "))
        for node in ast.walk(ast.parse(re.sub(rf"^ {{{indent}}}", "", snippet, flags=re.MULTILINE))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("scdrugmap"):
                for alias in node.names:
                    assert resolves(f"{node.module}.{alias.name}"), f"{node.module} has no {alias.name}"


def test_what_is_said_to_be_elsewhere_is_named_and_not_here():
    for name, absent in ELSEWHERE.items():
        text = (ROOT / "docs" / name).read_text()
        for path in absent:
            assert path in text
            assert not is_file(path)
            assert not is_there(path)


# ---- the plan of the house -------------------------------------------------------------------------------------------
def test_the_plan_lists_every_folder_of_the_package_and_no_other():
    listing = re.search(r"```text\nscdrugmap/(.*?)```", PLAN, re.DOTALL)
    listed, parent = set(), ""
    for line in listing[1].splitlines()[1:]:
        names = re.match(r" +((?:\w+/ ?)+)", line)[1].replace("/", "").split()
        if len(line) - len(line.lstrip()) == 2:
            parent = names[0]
            listed |= {parent}
        else:
            listed |= {f"{parent}/{name}" for name in names}
    packages = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert listed == {package for package in packages if package.count("/") < 2}
    assert len(listing[0].splitlines()) <= 50  # one screen


def arrows(graph: str) -> dict[str, set[str]]:
    drawn: dict[str, set[str]] = {}
    for source, targets in re.findall(r"^ +(\w+) --> (.+)$", graph, re.MULTILINE):
        drawn.setdefault(source, set()).update(targets.split(" & "))
    return drawn


def reached(drawn: dict[str, set[str]], source: str) -> set[str]:
    near = drawn.get(source, set())
    return near.union(*(reached(drawn, target) for target in near))


@pytest.mark.parametrize(("place", "table"), [(0, LAYERS), (1, EVALUATION)], ids=["layers", "evaluation"])
def test_the_graphs_draw_the_imports_that_are_allowed(place, table):
    drawn = arrows(re.findall(r"```mermaid\n(.*?)```", PLAN, re.DOTALL)[place])
    assert drawn.pop("pages", {"app"}) == {"app"}
    for source, targets in drawn.items():
        assert targets <= table[source], f"{source} may not import {targets - table[source]}"
    for source, allowed in table.items():
        assert allowed <= reached(drawn, source), f"{source} may import {allowed - reached(drawn, source)} too"


def test_functions_on_the_way_are_where_the_plan_says():
    path = ""
    for file, name in FUNCTION.findall(PLAN):
        path = file or path
        assert name in names_in(PACKAGE / path), f"{path} has no {name}"
