from __future__ import annotations

import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from places import ROOT

PROJECT = "scdrugmap"


def requirements(lines):
    """What the lines ask for; blank lines and comments ask for nothing."""
    texts = [line.split(" #")[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text and not text.startswith("#")]


def listed(file):
    return requirements((ROOT / file).read_text().splitlines())


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BY_HAND = listed("requirements.txt") + [
    need for lines in EXTRAS.values() for need in requirements(lines) if need.name != PROJECT
]
LOCK = listed("requirements.lock")
LOCKED = {canonicalize_name(line.name): line for line in LOCK}


def locked_version(name):
    (exactly,) = LOCKED[canonicalize_name(name)].specifier
    assert exactly.operator == "=="
    return Version(exactly.version)


def installed_version(name):
    """Without the local part: torch 2.13.0+cpu is torch 2.13.0."""
    return Version(Version(metadata.version(name)).public)


def needed_here():
    """Names of all that the project with its extras needs on this machine, through every dependency."""
    found, waiting = set(), list(BY_HAND)
    while waiting:
        need = waiting.pop()
        state = (canonicalize_name(need.name), frozenset(need.extras))
        if state in found:
            continue
        found.add(state)
        for inner in map(Requirement, metadata.requires(need.name) or []):
            chosen = [{"extra": extra} for extra in ("", *need.extras)]
            if inner.marker is None or any(inner.marker.evaluate(extra) for extra in chosen):
                waiting.append(inner)
    return sorted({name for name, _ in found})


@pytest.mark.parametrize("need", BY_HAND, ids=lambda need: need.name)
def test_what_is_listed_by_hand_is_locked_at_a_version_that_it_allows(need):
    assert need.specifier.contains(locked_version(need.name), prereleases=True)
    assert LOCKED[canonicalize_name(need.name)].marker is None


def test_the_lock_names_each_package_once_with_an_exact_version_and_no_address():
    assert len(LOCKED) == len(LOCK)
    assert all(locked_version(name) for name in LOCKED)
    assert not [line.name for line in LOCK if line.url or line.extras]
    text = (ROOT / "requirements.lock").read_text()
    assert not [word for word in ("://", "--", " @ ", "+cpu") if word in text]


def test_the_lock_leaves_no_dependency_of_a_dependency_open():
    missing = [name for name in needed_here() if name not in LOCKED]
    assert not missing, f"type: make lock (not locked: {', '.join(missing)})"


def test_every_installed_dependency_has_its_locked_version():
    differing = [name for name in needed_here() if installed_version(name) != locked_version(name)]
    assert not differing, f"type: make app (installed, but not as locked: {', '.join(differing)})"


def test_every_way_to_install_is_held_to_the_lock():
    makefile, dockerfile = ((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    installs = [line for line in (makefile + dockerfile).splitlines() if "pip install" in line and "uv==" not in line]
    assert len(installs) == 3
    assert all("--constraint requirements.lock" in line for line in installs)
