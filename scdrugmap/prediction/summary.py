"""What a prediction says about a whole file: shares with intervals, by sample and by cluster, and against labels.

An interval says how far the share would move with other cells or other samples of the same kind, given the model. It
does not say whether the model is right: that is what the held-out score of the reference is for. It is a bootstrap over
samples where there are several (`metrics.bootstrap.resampling_unit`), and else Wilson's interval over cells.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scdrugmap.data.labels import RESISTANT, read_labels
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics.bootstrap import DRAWS, bootstrap, draw_units, percentile, resampling_unit, wilson
from scdrugmap.evaluation.metrics.failures import count_failures
from scdrugmap.evaluation.metrics.metrics import constants, score

THRESHOLD = 0.5  # a cell at or above it is called resistant
# Where files keep the sample of a cell, most specific first; compared without regard to case.
SAMPLE_COLUMNS = (
    "sample",
    "sample_id",
    "orig.ident",
    "patient_or_line",
    "patient",
    "patient_id",
    "donor",
    "donor_id",
    "batch",
)


def sample_column(obs: pd.DataFrame, wanted: str | None = None) -> str | None:
    """Return the obs column that tells samples apart, or None; raises `InvalidInput` when `wanted` is not there."""
    if wanted is not None:
        if wanted not in obs:
            message = (
                f"There is no obs column called '{wanted}'; there are: {', '.join(map(str, obs.columns)) or 'none'}."
            )
            raise InvalidInput(message, "Name one of them as the sample column.")
        return wanted
    lowered = {str(column).lower(): str(column) for column in reversed(obs.columns)}
    return next((lowered[name] for name in SAMPLE_COLUMNS if name in lowered), None)


def share_interval(
    flags: NDArray[np.bool_], samples: NDArray[np.str_] | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Return the share of true `flags`, (n_cells,), with its 95 % interval and what the interval was drawn over.

    Where all samples agree, as at 0 or 1, a bootstrap cannot say how surely: each sample is taken for one draw then.
    """
    n_cells = len(flags)
    if n_cells == 0:
        return {"share": None, "low": None, "high": None, "n": 0, "n_cells": 0, "unit": "cell", "n_units": 0}
    unit, index = resampling_unit(np.zeros(n_cells), samples)
    n_units, count = int(index.max()) + 1, int(flags.sum())
    shares = np.array([count / n_cells])
    if unit == "sample":
        drawn = draw_units(n_units, DRAWS, np.random.default_rng(seed))  # (draws, samples)
        shares = (drawn @ np.bincount(index, weights=flags)) / (drawn @ np.bincount(index))
    low, high = percentile(shares)
    if low == high:
        low, high = (float(bound) for bound in wilson(round(low * n_units), n_units))
    return {
        "share": count / n_cells,
        "low": low,
        "high": high,
        "n": count,
        "n_cells": n_cells,
        "unit": unit,
        "n_units": n_units,
    }


def summary(adata: AnnData) -> dict[str, Any]:
    """Return what `predict` found in plain values that JSON can hold.

    Keys: `n_cells`, `n_failed` (cells without an answer of a model that was asked; no share counts them), `threshold`,
    `resistant` (headline share and interval), `resistant_known` (the same without novel cells), `novel` (both have the
    share None where the model tells no novelty), `by_sample` and `by_cluster` (lists of rows), `metrics` (against the
    file's own labels; empty without any; `caveat` where the reference was fitted on these cells), `provenance`. Raises
    `InvalidInput` for an AnnData that has not been through `predict`.
    """
    if "p_resistant" not in adata.obs or "prediction" not in adata.uns.get("scdrugmap", {}):
        message = "These cells carry no prediction (obs has no 'p_resistant')."
        raise InvalidInput(message, "Run sdm.predict(adata) first.")
    provenance = adata.uns["scdrugmap"]["prediction"]
    column = provenance["sample_column"] or None
    p = adata.obs["p_resistant"].to_numpy()
    samples = adata.obs[column].astype(str).to_numpy() if column else None
    answered = np.isfinite(p)
    has_novelty = "novel" in adata.obs  # a model that was asked tells no novelty
    novel = adata.obs["novel"].to_numpy(dtype=bool) if has_novelty else np.zeros(len(p), dtype=bool)
    nobody = np.zeros(len(p), dtype=bool)

    def share(flags: NDArray[np.bool_], among: NDArray[np.bool_]) -> dict[str, Any]:
        return share_interval(flags[among], samples[among] if samples is not None else None)

    return {
        "n_cells": adata.n_obs,
        "n_failed": int((~answered).sum()),
        "threshold": THRESHOLD,
        "resistant": share(p >= THRESHOLD, answered),
        "resistant_known": share(p >= THRESHOLD, answered & ~novel if has_novelty else nobody),
        "novel": share(novel, answered if has_novelty else nobody),
        "by_sample": _table(adata.obs, column, None) if column else [],
        "by_cluster": _table(adata.obs, "cluster", samples),
        "metrics": label_metrics(adata.obs, samples, int(provenance["n_cells_in_reference"])),
        "provenance": to_plain(provenance),
    }


def label_metrics(obs: pd.DataFrame, samples: NDArray[np.str_] | None, n_taught: int = 0) -> dict[str, Any]:
    """Score P(resistant) against the labels that came with the file; empty where there are none.

    `n_taught` cells taught the reference: their scores test nothing, and the result says so. A cell without an answer
    counts as wrong.
    """
    if "response_given" not in obs:
        return {}
    try:
        labels = read_labels(obs["response_given"].to_numpy())
    except InvalidInput as error:
        return {"not_scored": error.line}
    has = np.array([label is not None for label in labels], dtype=bool)
    if not has.any():
        return {}
    truth = labels[has]
    p = count_failures(obs["p_resistant"].to_numpy()[has], truth != RESISTANT).astype(np.float64)
    groups = samples[has] if samples is not None else None
    drawn = bootstrap(truth, p, groups, threshold=THRESHOLD)
    prevalence = float(np.mean(truth != RESISTANT))
    constant = constants(prevalence)
    rows = {}
    for key, value in score(truth, p, THRESHOLD).items():
        low, high = drawn.interval[key]
        if np.isfinite([value, low, high]).all():
            rows[key] = {"value": value, "low": low, "high": high, "constant": constant[key]}
    counts = {"n": int(has.sum()), "prevalence": prevalence, "unit": drawn.unit, "n_units": drawn.n_units}
    caveat = f"The reference was fitted on {n_taught:,} of these {len(obs):,} cells: for them this is no test."
    return {**counts, "caveat": caveat if n_taught else "", "scores": rows}


def to_plain(value: Any) -> Any:
    """Return nested dictionaries, arrays and numpy scalars as what JSON holds."""
    if isinstance(value, dict):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return [to_plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


def _groups(obs: pd.DataFrame, column: str) -> Iterator[tuple[Hashable, NDArray[np.intp]]]:
    names = obs[column].astype(str).to_numpy()
    sizes = pd.Series(names).value_counts()
    for name in sorted(sizes.index, key=lambda name: (-sizes[name], name)):
        yield name, np.flatnonzero(names == name)


def _table(obs: pd.DataFrame, column: str, samples: NDArray[np.str_] | None) -> list[dict[str, Any]]:
    """One row a group, the largest first."""
    p = obs["p_resistant"].to_numpy()
    rows = []
    for name, group in _groups(obs, column):
        cells = group[np.isfinite(p[group])]
        share = share_interval(p[cells] >= THRESHOLD, samples[cells] if samples is not None else None)
        means = {"mean_p_resistant": float(p[cells].mean()) if len(cells) else None}
        for mean, key in (("share_novel", "novel"), ("mean_novelty", "novelty")):
            means[mean] = float(obs[key].to_numpy()[group].mean()) if key in obs else None
        rows.append({"group": name, **share, **means, "n_failed": len(group) - len(cells)})
    return rows
