"""Fixtures that several test files share: simulated cells, and a cache and a results folder of the test's own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from anndata import AnnData
from make_results import REAL, make_results, make_transfer
from scripted_endpoint import KEY, Endpoint, serving
from threadpoolctl import threadpool_limits

from scdrugmap.data.simulate import simulate
from scdrugmap.models import MODELS
from scdrugmap.models.testing import toy_folder
from scdrugmap.prompting.asker import PromptRunner
from scdrugmap.prompting.settings import PromptSettings
from scdrugmap.settings import Settings


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Add up in one order, as worker processes do: with more threads the last bit depends on how busy a machine is."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def _cells() -> AnnData:
    return simulate(n_cells=120, n_genes=400, n_samples=4, seed=7)


@pytest.fixture
def cells(_cells: AnnData) -> AnnData:
    """120 simulated cells x 400 genes of 4 samples, with labels; a copy, so tests may change it."""
    return _cells.copy()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty cache and of an empty results folder, also set in the environment."""
    monkeypatch.setenv("SCDRUGMAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SCDRUGMAP_PRECOMPUTED", str(tmp_path / "precomputed"))
    for name in ("SCDRUGMAP_PUBLIC", "SCDRUGMAP_MAX_UPLOAD_MB", "SCDRUGMAP_KEEP_JOBS_HOURS"):
        monkeypatch.delenv(name, raising=False)
    return Settings.from_env()


@pytest.fixture(scope="session")
def _results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    make_results(root)
    return root


@pytest.fixture
def filled_results(settings: Settings, _results: Path) -> Settings:
    """Settings whose precomputed results hold made-up runs of simulated data sets; a copy, so tests may change it."""
    shutil.copytree(_results, settings.precomputed)
    return settings


@pytest.fixture(scope="session")
def _crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crossed")
    make_transfer(root, REAL)
    return root


@pytest.fixture
def crossed(settings: Settings, _crossed: Path) -> Settings:
    """Settings whose precomputed results hold made-up transfer, leave-one-out and few-shot runs; a copy."""
    shutil.copytree(_crossed, settings.precomputed)
    return settings


@pytest.fixture
def benchmarked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> Callable[..., tuple[int, str, str]]:
    """Type `scdrugmap benchmark ...`; give back exit code, stdout and stderr."""
    from scdrugmap.cli import main

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scdrugmap", "benchmark", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def text_folder(cells: AnnData, tmp_path: Path) -> Path:
    """A tiny random Llama as the Hub would have it, which a test may spoil."""
    toy_folder(MODELS["llama3-8b"], cells, tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint on loopback that does what a test tells it, and that the environment names."""
    with serving() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield endpoint


@pytest.fixture
def asker(endpoint: Endpoint, tmp_path: Path) -> Callable[..., PromptRunner]:
    """Make an asker of a folder of the test's own, with short waits."""

    def make(folder: str = "prompts", max_cost: float | None = None, seed: int = 0, **given: object) -> PromptRunner:
        quick = {"connection_retries": 2, "timeout": 5.0, "cells_per_request": 4, "poll": 0.02, "logprobs": False}
        settings = PromptSettings.from_card(MODELS["gpt-4o-mini"], quick | given)
        return PromptRunner(settings, folder=tmp_path / folder, seed=seed, max_cost=max_cost)

    return make
