"""Where a model's weights lie on this machine and whether they are all there. Reads folders, never the network.

`root` is the folder of all weights (`Settings.weights`); a model's own folder in it is `root/<key>`, in the upstream
project's layout, with our converted copies under `root/<key>/converted/`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from scdrugmap.errors import WeightsMissing
from scdrugmap.models.card import ModelCard, Weights

OR = " or "  # between names of which a folder needs one
State = Literal["ready", "needs weights", "bundled", "remote"]


def home(card: ModelCard, root: Path) -> Path:
    """Give the folder in which the card's weights are looked for, and into which they are downloaded."""
    if card.weights.bundled:
        return _package_folder(card) / card.weights.bundled
    return _carried(card.weights.package) or root / card.key


def state(card: ModelCard, root: Path) -> State:
    """Tell whether the model runs on this machine as it is; reads no weights and no network.

    "remote" is a model that is asked over the network and has no weights here.
    """
    if card.prompted:
        return "remote"
    if card.weights.bundled:
        return "bundled"
    return "needs weights" if missing(card.weights, home(card, root)) else "ready"


def missing(weights: Weights, folder: Path) -> list[str]:
    """Names of the card's files that `folder` lacks."""
    return [name for name in weights.files if not any(any(folder.glob(pattern)) for pattern in name.split(OR))]


def upstream_files(card: ModelCard, folder: Path, converter: Any, settings: Mapping[str, Any]) -> dict[str, Path]:
    """Files by role that the model's `convert` reads from `folder`; raises `WeightsMissing` where one is not there.

    A card's `source_settings` are given to `converter.files` by name, since they may choose among the files.
    """
    paths = converter.files(folder, **card.source_choices(settings))
    lacking = [path.name for path in paths.values() if not path.is_file()]
    if lacking:
        message = f"'{folder}' lacks {', '.join(lacking)}, so it holds no weights for '{card.key}'."
        raise WeightsMissing(message, f"Give a folder with {', '.join(card.weights.files)}.")
    return cast("dict[str, Path]", paths)


def _carried(package: str) -> Path | None:
    """Folder "module/folder" of an installed package, None where it is not installed; nothing of it is imported."""
    module, _, folder = package.partition("/")
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def _package_folder(card: ModelCard) -> Path:
    module = sys.modules.get(card.module) or importlib.import_module(card.module)
    return Path(cast("str", module.__file__)).parent
