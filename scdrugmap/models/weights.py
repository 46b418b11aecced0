"""Find, download, hash and convert weights. Nothing here runs at import; only `fetch` and `locate` use the network.

`root` is the folder of all weights (`Settings.weights`); a model's own folder in it is `root/<key>`, in the upstream
project's layout, with our converted copies under `root/<key>/converted/`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from scdrugmap.errors import InvalidInput, WeightsMissing
from scdrugmap.models.card import ModelCard, Weights
from scdrugmap.progress import reporting

log = logging.getLogger(__name__)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
BUNDLED = ("checkpoint.json", "model.safetensors")
OR = " or "  # between names of which a folder needs one
ENDPOINT: str | None = None  # of the Hub; None is huggingface_hub's own (HF_ENDPOINT moves it to a mirror)
BLOCK, LARGE = 1 << 20, 1 << 30  # bytes that are hashed at a time, and from which on it takes more than a second
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
    return [name for name in weights.files if not any(any(folder.glob(one)) for one in name.split(OR))]


def locate(card: ModelCard, weights: str | Path | None, root: Path) -> Path:
    """Give the folder that holds the weights, downloading them where the Hub has them; raises `WeightsMissing`."""
    if weights is None:
        return home(card, root) if state(card, root) != "needs weights" else fetch(card, root)
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if HUB_ID.fullmatch(str(weights)):
        hub, _, revision = str(weights).partition("@")
        target = root / card.key / "hub" / f"{hub.replace('/', '--')}@{revision or 'main'}"
        try:
            return download(card, hub, revision or "main", target)
        except WeightsMissing as error:
            message = f"There is no folder '{weights}', and as a Hub id it gave: {error}"
            raise WeightsMissing(message, error.remedy) from error
    message = f"There is no folder '{weights}' with weights for '{card.key}'."
    raise WeightsMissing(message, f"Give a folder with {', '.join(card.weights.files)}, or a Hub id (owner/name).")


def terms(card: ModelCard) -> str:
    """Say under which licence a model's weights are, where they come from and how large they are, in one line."""
    source = card.weights
    place = f"https://huggingface.co/{source.hub} at {source.revision[:12]}" if source.hub else source.official
    size = f" ({source.size_mb:,.0f} MB)" if source.size_mb else ""
    where = " They come with the package." if source.bundled else f" From {place}{size}." if place else ""
    return f"{card.title}'s weights: {source.licence}.{where}"


def fetch(card: ModelCard, root: Path, *, endpoint: str | None = None) -> Path:
    """Download the card's weights at their pinned revision and give their folder.

    Where no Hub copy exists, raises `WeightsMissing` with the official place and the folder to put the files in;
    `InvalidInput` for a model that is asked over the network.
    """
    if card.prompted:
        message = f"'{card.key}' is asked over the network and has no weights to download."
        raise InvalidInput(message, card.weights.instruction)
    source, folder = card.weights, home(card, root)
    if source.bundled or not missing(source, folder):
        return folder
    if source.hub:
        return download(card, source.hub, source.revision, folder, endpoint=endpoint)
    if source.package:
        message = f"Weights for '{card.key}' come with a package that is not installed here."
        raise WeightsMissing(message, source.instruction)
    lacking = ", ".join(missing(source, folder))
    message = f"Weights for '{card.key}' are not on this machine (looked in {folder} for {lacking})."
    steps = f"{source.instruction} ({source.official}) Put {', '.join(source.files)} into {folder}"
    check = f"then run: scdrugmap models fetch {card.key}, which says whether they are all there."
    raise WeightsMissing(message, f"{steps}, {check}")


def download(card: ModelCard, hub: str, revision: str, target: Path, *, endpoint: str | None = None) -> Path:
    """Snapshot the card's files of a Hub repository into `target`; raises `WeightsMissing`."""
    from huggingface_hub import get_token, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, HTTPError

    if card.weights.gated and hub == card.weights.hub and not get_token():
        raise _gated(card, hub)
    failures = (HTTPError, HFValidationError, OSError)  # the Hub's answers, its own checks, the network and the disk
    patterns = [one for name in card.weights.files for one in name.split(OR)]
    try:
        snapshot_download(
            hub,
            revision=revision,
            allow_patterns=patterns,
            local_dir=target,
            cache_dir=target / ".cache",
            endpoint=endpoint or ENDPOINT,
        )
    except GatedRepoError as error:
        raise _gated(card, hub) from error
    except failures as error:
        message = f"Weights for '{card.key}' could not be downloaded from the Hub ({hub}@{revision[:12]}): {error}"
        remedy = f"Check the network, or put {', '.join(patterns)} into {target} by hand."
        raise WeightsMissing(" ".join(message.split()), remedy) from error
    lacking = missing(card.weights, target)
    if lacking:
        message = f"{hub}@{revision[:12]} holds no {', '.join(lacking)}, which '{card.key}' needs."
        raise WeightsMissing(message, f"Give a Hub id that holds {', '.join(patterns)}.")
    return target


def _gated(card: ModelCard, hub: str) -> WeightsMissing:
    """Say how one gets weights for which the Hub asks who one is."""
    licence = f" ({card.weights.licence})" if hub == card.weights.hub else ""
    message = f"The Hub gives {hub} only to accounts that accepted its licence{licence}."
    steps = (
        f"Accept it at https://huggingface.co/{hub}, make a token at https://huggingface.co/settings/tokens, "
        f"run: hf auth login (or set HF_TOKEN), then: scdrugmap models fetch {card.key}"
    )
    return WeightsMissing(message, steps)


def upstream_files(card: ModelCard, folder: Path, converter: Any, settings: Mapping[str, Any]) -> dict[str, Path]:
    """Files by role that the model's `convert` reads from `folder`; raises `WeightsMissing` where one is not there.

    A card's `source_settings` are given to `converter.files` by name, since they may choose among the files.
    """
    found = converter.files(folder, **card.source_choices(settings))
    lacking = [path.name for path in found.values() if not path.is_file()]
    if lacking:
        message = f"'{folder}' lacks {', '.join(lacking)}, so it holds no weights for '{card.key}'."
        raise WeightsMissing(message, f"Give a folder with {', '.join(card.weights.files)}.")
    return cast("dict[str, Path]", found)


def files_hash(files: Mapping[str, str]) -> str:
    """One hash over files: "sha256:..." of their sorted roles and SHA-256, wherever they lie."""
    lines = "".join(f"{role} {digest}\n" for role, digest in sorted(files.items()))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex; a bar on stderr says how far it is in one that takes seconds."""
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file, reporting(size >= LARGE, -(-size // BLOCK), "MiB") as tell:
        while block := file.read(BLOCK):
            digest.update(block)
            tell(1)
    return digest.hexdigest()


def digests(files: Mapping[str, Path], converted: Path) -> dict[str, str]:
    """SHA-256 by role; files that an earlier conversion recorded with the same size and time are not read again."""
    known = {_stamp(entry): entry["sha256"] for manifest in _manifests(converted) for entry in manifest["files"]}
    return {role: known.get(_stamp(describe(path))) or sha256(path) for role, path in files.items()}


def remembered_hash(files: Mapping[str, Path], converted: Path) -> str:
    """Hash files that are read as they are, and note their digests so that they are not read for it again."""
    hashes = digests(files, converted)
    whole = files_hash(hashes)
    places = "".join(str(path.resolve()) for path in files.values())
    note = converted / f"{whole.removeprefix('sha256:')[:16]}-{hashlib.sha256(places.encode()).hexdigest()[:8]}"
    try:
        note.mkdir(parents=True, exist_ok=True)
        write_manifest(note, files, hashes, whole)
    except OSError as error:
        log.warning("hashes of weights are not kept: %s", error)
    return whole


def describe(path: Path) -> dict[str, Any]:
    """Give what tells whether a file is still the one that was converted."""
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def write_manifest(folder: Path, files: Mapping[str, Path], hashes: Mapping[str, str], weights_hash: str) -> None:
    """Record what was converted, from what and when, as `manifest.json` beside the converted tensors."""
    content = {
        "schema": 1,
        "weights_hash": weights_hash,
        "files": [{"role": role, **describe(path), "sha256": hashes[role]} for role, path in files.items()],
        "converted": {name: sha256(folder / name) for name in BUNDLED if (folder / name).is_file()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    (folder / "manifest.json").write_text(json.dumps(content, indent=1) + "\n")


def _stamp(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    return entry["path"], entry["size"], entry["mtime_ns"]


def _manifests(converted: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(converted.glob("*/manifest.json")):
        yield json.loads(path.read_text())


def _carried(package: str) -> Path | None:
    """Folder "module/folder" of an installed package, None where it is not installed; nothing of it is imported."""
    module, _, folder = package.partition("/")
    spec = importlib.util.find_spec(module) if module else None
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def _package_folder(card: ModelCard) -> Path:
    module = sys.modules.get(card.module) or importlib.import_module(card.module)
    return Path(cast("str", module.__file__)).parent
