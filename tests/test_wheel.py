"""What a person has who installs the package: a wheel, in an environment that knows no checkout, opens a whole app.

Nothing is downloaded: the wheel is built by the setuptools that is here and installed without its dependencies, which
are those of this environment.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from scdrugmap.app.pages import PAGES
from scdrugmap.data.simulate import simulate
from scdrugmap.settings import Settings, default_cache, site

SOURCES = ("scdrugmap", "app.py", "pages", ".streamlit", "cache/results", "pyproject.toml", "setup.py", "README.md",
           "LICENSE", "requirements.txt")  # fmt: skip
N_CELLS = 60
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('..')"
USE = """
import dataclasses, json
import scdrugmap as sdm
from scdrugmap.app.predict import queries
from scdrugmap.app.pages import PAGES
from scdrugmap.settings import Settings, site
from streamlit.testing.v1 import AppTest

shown = {}
for page in PAGES.values():
    app = AppTest.from_file(str(site() / ("app.py" if page.default else page.file)), default_timeout=60)
    if page.key == "models":
        app.query_params["view"] = "Cost"
    app.run()
    kinds = ("title", "markdown", "caption", "error", "exception")
    shown[page.key] = {kind: [str(element.value) for element in app.get(kind)] for kind in kinds}
    shown[page.key]["charts"] = len(app.get("arrow_vega_lite_chart")) + len(app.get("vega_lite_chart"))
cells = sdm.read_h5ad("tumour.h5ad")
sdm.predict(cells, model="hvg-pca")
print(json.dumps({
    "package": sdm.__file__, "settings": dataclasses.asdict(Settings.from_env()), "pages": shown,
    "predictors": queries.predictors()["model"].to_list(), "p_resistant": cells.obs["p_resistant"].to_list(),
}, default=str))
"""


@dataclass(frozen=True)
class Installation:
    """A command `scdrugmap`, the Python behind it, and a person's folder and environment, in which it is typed."""

    command: Sequence[str]
    python: str
    folder: Path
    env: dict[str, str]

    def execute(self, code: str) -> str:
        """Run Python code; return what it prints."""
        command = [self.python, "-c", code]
        ended = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def persons_environment(home: Path) -> dict[str, str]:
    """This environment without what leads to a checkout, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCDRUGMAP_", "PYTHON", "XDG_"))}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since setuptools writes beside the sources."""
    copy = tmp_path_factory.mktemp("wheel") / "source"
    for name in SOURCES:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-P", "-c", BUILD], cwd=copy, check=True, capture_output=True)
    (built,) = copy.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own, which finds dependencies here; an editable install here stays unknown."""
    home = tmp_path_factory.mktemp("home")
    (home / "work").mkdir()
    venv.create(home / "env", symlinks=True)
    python, env = str(home / "env" / "bin" / "python"), persons_environment(home)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(wheel)], env=env, check=True, capture_output=True)
    (packages,) = (home / "env" / "lib").glob("python3.*/site-packages")
    # A folder named by a .pth file is searched, but its own .pth files, as that of an editable install, are not read.
    (packages / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    )
    return Installation([str(home / "env" / "bin" / "scdrugmap")], python, home / "work", env)


@pytest.fixture
def checkout(tmp_path: Path) -> Installation:
    """The same command in a checkout, typed somewhere else."""
    env = persons_environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from scdrugmap.cli import main; main()"]
    return Installation(command, sys.executable, tmp_path, env)


@pytest.fixture(scope="module")
def opened(installed: Installation) -> dict[str, Any]:
    """Where the installed package stands, its settings, what each of its pages shows, and what it predicts."""
    cells = simulate(n_cells=N_CELLS, n_samples=2, seed=3)
    del cells.obs["response"]
    cells.write_h5ad(installed.folder / "tumour.h5ad")
    return json.loads(installed.execute(USE))


@contextmanager
def serving(installation: Installation) -> Iterator[tuple[str, Path]]:
    """Type `scdrugmap app`; give its address, once it answers, and what it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    printed = installation.folder / "printed.txt"
    with printed.open("wb") as log:
        server = subprocess.Popen(
            [*installation.command, "app", "--port", str(port)],
            cwd=installation.folder, env=installation.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, printed)
            yield f"http://127.0.0.1:{port}", printed
        finally:
            os.killpg(server.pid, 15)  # Streamlit is a child of the command
            server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes], printed: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, printed.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("the server did not answer within a minute")


def files_below(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_wheel_carries_every_file_of_the_package_and_what_stands_beside_it(opened):
    package = files_below(Path(opened["package"]).parent)
    expected = files_below(ROOT / "scdrugmap")
    for pattern in ("app.py", "pages/*.py", ".streamlit/config.toml", "cache/results/**/*.*"):
        expected |= {f"site/{path.relative_to(ROOT)}": path.read_bytes() for path in ROOT.glob(pattern)}
    assert sorted(package) == sorted(expected)
    assert package == expected


def test_an_installed_package_is_no_checkout_and_keeps_its_cache_with_the_user(installed, opened):
    package = Path(opened["package"]).parent
    assert installed.folder.parent in package.parents
    assert opened["settings"]["precomputed"] == str(package / "site" / "cache" / "results")
    assert installed.folder.parent in Path(opened["settings"]["cache"]).parents
    assert package not in Path(opened["settings"]["cache"]).parents


def test_a_checkout_keeps_its_cache_in_itself(monkeypatch):
    monkeypatch.delenv("SCDRUGMAP_CACHE", raising=False)
    monkeypatch.delenv("SCDRUGMAP_PRECOMPUTED", raising=False)
    assert site() == ROOT
    assert default_cache() == Settings.from_env().cache == ROOT / "cache"
    assert Settings.from_env().precomputed == ROOT / "cache" / "results"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_an_installed_app_opens(page, opened):
    shown = opened["pages"][page]
    assert not shown["exception"]
    assert not shown["error"]
    assert shown["title"]


def test_the_home_page_of_an_installed_app_shows_the_precomputed_scores(opened):
    home = opened["pages"]["home"]
    assert home["charts"] == 1
    assert not any("Nothing has been measured" in text for text in home["markdown"])


def test_the_cost_tab_of_an_installed_app_is_filled(opened):
    assert any("models whose speed was measured" in text for text in opened["pages"]["models"]["caption"])


def test_the_bundled_references_of_an_installed_package_are_offered_and_predict(opened):
    assert {"hvg-pca", "scgpt-mini"} <= set(opened["predictors"])
    assert len(opened["p_resistant"]) == N_CELLS
    assert all(0 < probability < 1 for probability in opened["p_resistant"])
    assert len(set(opened["p_resistant"])) > 1


@pytest.mark.parametrize("installation", ["installed", "checkout"])
def test_the_app_answers_in_any_folder_and_tells_nobody(installation, request):
    with serving(request.getfixturevalue(installation)) as (url, printed):
        with urllib.request.urlopen(f"{url}/models", timeout=10) as page:
            assert b"<title>Streamlit</title>" in page.read()
        assert url in printed.read_text()
        assert "usage statistics" not in printed.read_text()  # Streamlit has read .streamlit/config.toml
