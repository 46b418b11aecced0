"""The journeys of the app in a real browser, on a real server, with files that the tests make."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import polars as pl
import pytest
from contrast import contrast
from make_results import REAL, make_results, make_run, make_transfer
from places import ROOT
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from scripted_endpoint import KEY, Endpoint, slow
from scripted_endpoint import serving as answering

from scdrugmap.app.pages import PAGES
from scdrugmap.data.simulate import simulate
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.results.store import write_run, write_scores

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CARDS = ("/datasets?dataset=gse164551", f"/transfer?train={REAL[0]}&test={REAL[1]}")
SOON, LONG = 30_000, 180_000  # ms; a busy machine with two cores is slow to start a worker
expect.set_options(timeout=SOON)


def chromium() -> str:
    """Return the browser; a missing one fails here and in CI alike, since a skipped journey proves nothing."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.fail("No Chromium found: install it (apt-get install chromium) or set CHROMIUM to its path.")
    return found


@contextmanager
def serving(cache: Path, results: Path, **more: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"SCDRUGMAP_CACHE": str(cache), "SCDRUGMAP_PRECOMPUTED": str(results), "OMP_NUM_THREADS": "1"}
    env |= more
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.address", "127.0.0.1"]
    log = (cache / "server.log").open("wb")
    server = subprocess.Popen([*command, "--server.port", str(port)], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("the server did not answer within a minute")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser-results")
    make_results(root)
    make_transfer(root, REAL)
    for (model, head), effects in {("scgpt", "mlp"): (2.0, 0.4), ("hvg", "logistic"): (1.8, 0.5)}.items():
        for split_by, effect in zip(("cell", "sample"), effects, strict=True):
            experiment = Experiment(model, head, ("two-patients",), split_by=split_by, folds=4)
            write_run(root, *make_run(experiment, effect))
    write_scores(root)
    return root


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with answering() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, results: Path, endpoint: Endpoint) -> Iterator[str]:
    to_ask = {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY}
    with serving(tmp_path_factory.mktemp("browser-cache"), results, **to_ask) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened
        opened.close()


class Watched:
    """A page that remembers what went wrong on it: errors, failed loads, requests to other hosts."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self.page, self.server, self.wrong = context.new_page(), server, []
        self.page.set_default_timeout(SOON)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self._console(said.type, said.text))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("response", lambda answer: self._answered(answer.url, answer.status))

    def open(self, path: str) -> Page:
        self.page.goto(self.server + path)
        settled(self.page)
        return self.page

    def _console(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # `_answered` knows which
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.server, self.server.replace("http", "ws"), "data:", "blob:")):
            self.wrong.append(f"asked another host: {url}")

    def _answered(self, url: str, status: int) -> None:
        # Streamlit looks for its server below the page's own path first.
        if status >= 400 and not re.search(r"/\w+/_stcore/(health|host-config)$", url):
            self.wrong.append(f"{status} {url}")


@pytest.fixture
def watched(browser: Browser, server: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    seen = Watched(context, server)
    yield seen
    assert seen.wrong == []
    expect(seen.page.locator('[data-testid="stException"]')).to_have_count(0)
    context.close()


def settled(page: Page) -> None:
    """Wait until the page's foot stands and nothing runs any more."""
    page.locator(".sdm-foot").wait_for(timeout=LONG)
    expect(page.locator('[data-testid="stApp"]')).to_have_attribute(
        "data-test-script-state", "notRunning", timeout=LONG
    )


def write_cells(path: Path, n_cells: int = 240) -> ad.AnnData:
    cells = simulate(n_cells=n_cells, n_genes=1500, n_samples=4, seed=3)
    cells.uns.clear()
    cells.write_h5ad(path)
    return cells


def upload(page: Page, path: Path) -> None:
    page.locator('[data-testid="stFileUploaderDropzoneInput"]').set_input_files(path)
    page.wait_for_url(re.compile(r"job="), timeout=LONG)


# ---- Predict ---------------------------------------------------------------------------------------------------------
def test_predict_journey(watched, tmp_path):
    cells = write_cells(tmp_path / "tumour.h5ad")
    page = watched.open("/predict")
    expect(page.get_by_text("What happens to your file")).to_be_visible()
    upload(page, tmp_path / "tumour.h5ad")
    expect(page.get_by_text("240 cells x 1,500 genes")).to_be_visible(timeout=LONG)
    page.get_by_text("HVG-PCA ·").click(timeout=LONG)  # the quickest of those that come with the package
    settled(page)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("You can close this tab")).to_be_visible(timeout=LONG)
    page.reload()  # in the middle: the link finds the job again
    expect(page.get_by_text("Predicted resistant", exact=True)).to_be_visible(timeout=LONG)
    settled(page)
    expect(
        page.locator('[data-testid="stVegaLiteChart"] svg, [data-testid="stVegaLiteChart"] canvas').first
    ).to_be_visible()

    table = pl.read_csv(downloaded(page, "Table (.csv)", tmp_path))
    assert table["cell"].to_list() == cells.obs_names.to_list()
    assert table["p_resistant"].is_between(0, 1).all()
    back = ad.read_h5ad(downloaded(page, "For scanpy (.h5ad)", tmp_path))
    assert back.obs_names.equals(cells.obs_names)
    np.testing.assert_allclose(back.obs["p_resistant"], table["p_resistant"], atol=1e-5)
    assert "Research use only" in downloaded(page, "Report (.md)", tmp_path).read_text()

    page.get_by_role("tab", name="Against your labels").click()
    expect(page.get_by_text("240 labelled cells")).to_be_visible()
    page.get_by_test_id("stPopover").get_by_role("button").click()
    page.get_by_role("button", name="Delete everything").click()
    expect(page.get_by_text("What happens to your file")).to_be_visible()
    assert "job=" not in page.url


def downloaded(page: Page, label: str, folder: Path) -> Path:
    with page.expect_download(timeout=LONG) as waiting:
        page.get_by_role("button", name=label).click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_a_running_job_can_be_stopped_and_run_again(watched, tmp_path):
    write_cells(tmp_path / "more.h5ad", n_cells=3000)
    page = watched.open("/predict")
    upload(page, tmp_path / "more.h5ad")
    page.get_by_role("button", name="Run", exact=True).click(timeout=LONG)
    page.get_by_role("button", name="Cancel").click(timeout=LONG)
    expect(page.get_by_text("Stopped.")).to_be_visible(timeout=LONG)
    expect(page.get_by_role("button", name="Run again")).to_be_visible()


def test_a_model_is_asked_what_was_agreed_to_and_stopped_and_asked_the_rest(watched, endpoint, tmp_path):
    write_cells(tmp_path / "asked.h5ad", n_cells=60)
    page = watched.open("/predict")
    upload(page, tmp_path / "asked.h5ad")
    page.get_by_text("GPT-4o mini · asked").click(timeout=LONG)
    field(page, "Drug", "erlotinib (GSE149383)")
    expect(page.get_by_test_id("stAlert")).to_contain_text("holds the accession GSE149383")
    field(page, "Drug", "erlotinib")
    page.get_by_text("Genes, size of a request, price").click()
    field(page, "Cells in a request", "2", role="spinbutton")
    expect(page.get_by_text("60 cells in 30 requests")).to_be_visible()
    endpoint.default = slow(0.4)
    agree_and(page, "Run")
    expect(page.get_by_text(re.compile(r"Step 3 of 5 · \d+ of 60 cells"))).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Stopped.")).to_be_visible(timeout=LONG)
    expect(page.get_by_text(re.compile(r"\d+ answers? of earlier runs kept"))).to_be_visible()
    expect(page.get_by_role("textbox", name="Drug")).to_have_value("erlotinib")
    agree_and(page, "Run again")
    expect(page.get_by_text("Predicted resistant", exact=True)).to_be_visible(timeout=LONG)
    settled(page)
    sent = [body["messages"][-1]["content"] for body in endpoint.asked]
    assert len(sent) == len(set(sent)) == 30  # nothing was sent, or paid, twice
    assert all(text.startswith("Drug: erlotinib.\n") for text in sent)
    report = downloaded(page, "Report (.md)", tmp_path).read_text()
    assert "* Told about the cells: Drug: erlotinib." in report
    assert pl.read_csv(downloaded(page, "Table (.csv)", tmp_path))["p_resistant"].null_count() == 0


def field(page: Page, name: str, text: str, role: Literal["textbox", "spinbutton"] = "textbox") -> None:
    place = page.get_by_role(role, name=name, exact=True)
    place.fill(text)
    place.press("Tab")
    settled(page)


def agree_and(page: Page, run: str) -> None:
    page.get_by_text("I agree that these gene names are sent").click()
    settled(page)
    page.get_by_role("button", name=run, exact=True).click()


def test_a_bad_file_is_told_its_reason(watched, tmp_path):
    cells = simulate(n_cells=60, n_genes=300, n_samples=4, seed=1)
    cells.uns.clear()
    cells.X = cells.X.toarray() - 1.5
    cells.write_h5ad(tmp_path / "scaled.h5ad")
    page = watched.open("/predict")
    upload(page, tmp_path / "scaled.h5ad")
    expect(page.get_by_test_id("stAlert")).to_contain_text(re.compile("negative|z-score|scaled", re.I), timeout=LONG)
    expect(page.get_by_text("What to do:")).to_be_visible()
    expect(page.get_by_role("button", name="Run", exact=True)).to_have_count(0)


def test_a_file_that_is_no_matrix_is_told_its_reason(watched, tmp_path):
    (tmp_path / "letter.h5ad").write_text("Dear editor, these are not cells.")
    page = watched.open("/predict")
    upload(page, tmp_path / "letter.h5ad")
    expect(page.get_by_test_id("stAlert")).to_be_visible(timeout=LONG)
    expect(page.get_by_text("What to do:")).to_be_visible()


# ---- links -----------------------------------------------------------------------------------------------------------
def test_a_datasets_filter_lives_in_the_url_and_a_shared_link_opens_it(watched, browser, server):
    page = watched.open("/datasets")
    page.get_by_role("searchbox", name="Search").fill("melanoma")
    page.wait_for_url(re.compile("search=melanoma"))
    settled(page)
    expect(page.get_by_text(re.compile(r"^\d+ of 60 data sets"))).not_to_contain_text("60 of 60")
    said = page.get_by_text(re.compile(r"^\d+ of 60 data sets")).inner_text()
    page.get_by_role("tab", name="Timeline").click()
    page.wait_for_url(re.compile("chart=Timeline"))
    settled(page)
    other = Watched(browser.new_context(), server)
    other.open(page.url.removeprefix(server))
    expect(other.page.get_by_text(said)).to_be_visible()
    expect(other.page.get_by_role("tab", name="Timeline")).to_have_attribute("aria-selected", "true")
    assert other.wrong == []
    other.page.context.close()


def test_a_row_opens_a_card_and_back_keeps_the_filter(watched):
    page = watched.open("/datasets?search=gse164897")
    table = page.get_by_test_id("stDataFrame")
    table.scroll_into_view_if_needed()
    table.locator(".dvn-scroller").first.click(position={"x": 16, "y": 52})  # the mark before the first row
    page.wait_for_url(re.compile("dataset=gse164897"))
    expect(page.get_by_text("Label balance")).to_be_visible()
    settled(page)  # a click while the card is still being drawn would be lost
    page.get_by_role("button", name="All data sets").click()
    expect(page.get_by_text(re.compile(r"^\d+ of 60 data sets"))).not_to_contain_text("60 of 60")
    assert "search=gse164897" in page.url


def test_models_pickers_live_in_the_url(watched, browser, server):
    page = watched.open("/models?split_by=cell")
    expect(page.get_by_text("random cells were held out")).to_be_visible()
    page.get_by_role("combobox", name=re.compile("Metric")).click()
    page.get_by_role("option", name="MCC").click()
    page.wait_for_url(re.compile("metric=MCC"))
    settled(page)
    other = Watched(browser.new_context(), server)
    other.open(page.url.removeprefix(server))
    expect(other.page.get_by_text("You are looking at MCC")).to_be_visible()
    expect(other.page.get_by_text("random cells were held out")).to_be_visible()
    other.page.context.close()


def test_transfer_journey(watched, browser, server):
    page = watched.open("/transfer")
    page.get_by_role("combobox", name=re.compile("Model")).click()
    page.get_by_role("option", name="scGPT-mini + MLP").click()
    page.wait_for_url(re.compile("entry=scGPT-mini"))
    settled(page)
    cell = page.locator(f'path[aria-label*="trained on: {REAL[0]}; tested on: {REAL[1]}"]')
    cell.hover()
    expect(page.locator("#vg-tooltip-element")).to_contain_text("cells trained on")
    cell.click()
    page.wait_for_url(re.compile(f"train={REAL[0]}.*test={REAL[1]}"))
    expect(page.get_by_text("Who was called what")).to_be_visible()
    settled(page)
    said = page.get_by_text(re.compile("A classifier that looks at nothing scores")).inner_text()
    assert "scGPT-mini + MLP" in said
    other = Watched(browser.new_context(), server)
    other.open(page.url.removeprefix(server))  # a shared link opens the same pair of the same model
    expect(other.page.get_by_text(said)).to_be_visible()
    assert other.wrong == []
    other.page.context.close()
    page.get_by_role("button", name="All pairs").click()
    expect(page.get_by_text("measured pairs")).to_be_visible()
    assert "train=" not in page.url


def test_home_leads_to_predict(watched):
    page = watched.open("/")
    page.get_by_role("button", name="Predict on your data").click()
    page.wait_for_url(re.compile("/predict"))
    expect(page.get_by_role("heading", name="Predict", exact=True)).to_be_visible()
    settled(page)


def test_a_deep_link_may_be_the_first_visit(browser, results, tmp_path):
    with serving(tmp_path, results) as server:
        first = Watched(browser.new_context(), server)
        page = first.open("/datasets?search=erlotinib")
        expect(page.get_by_test_id("stTopNavLink")).to_have_count(len(PAGES))
        expect(page.get_by_test_id("stSidebar")).to_have_count(0)
        expect(page.get_by_role("searchbox", name="Search")).to_have_value("erlotinib")
        page.context.close()
    assert first.wrong == []


# ---- looks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", [*(f"/{key}" for key in PAGES if key != "home"), "/", *CARDS])
def test_a_phone_shows_the_page_without_scrolling_sideways(path, theme, browser, server):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme)
    seen = Watched(context, server)
    page = seen.open(path)
    boxes = "[document.documentElement, document.querySelector('[data-testid=stMain]')]"
    assert page.evaluate(f"{boxes}.map(box => box.scrollWidth - box.clientWidth)") == [0, 0]
    paper = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 21, 27)"}[theme]
    assert seen.wrong == []
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_a_linked_tab_that_can_be_read(theme, browser, server):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme)
    page = Watched(context, server).open("/models?view=Reported")
    tab = page.get_by_role("tab", name="Reported")
    expect(tab).to_have_attribute("aria-selected", "true")
    box = tab.bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 390 - box["width"]
    colours = page.evaluate(
        "[getComputedStyle(document.querySelector('[role=tab][aria-selected=true]')).color,"
        " getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor]"
    )
    assert contrast(*map(hexadecimal, colours)) > 4.5
    context.close()


def hexadecimal(colour: str) -> str:
    return "#" + "".join(f"{int(part):02X}" for part in re.findall(r"\d+", colour)[:3])
