"""Weights that are not here yet: the licence they are under, and how they come. Nothing here runs at import."""

from __future__ import annotations

import re
from pathlib import Path

from scdrugmap.errors import InvalidInput, WeightsMissing
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoints.locate import OR, home, missing, state

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


ENDPOINT: str | None = None  # of the Hub; None is huggingface_hub's own (HF_ENDPOINT moves it to a mirror)


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
    patterns = [pattern for name in card.weights.files for pattern in name.split(OR)]
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
