"""From a head's score to a probability that keeps its word on studies it has not seen.

A calibrator is fitted on out-of-fold scores of held-out studies, never on the scores of cells that the head was
trained on: those are too good, and a calibrator fitted on them would promise too much. Every study weighs the same, and
so does every class, so that 0.5 means "the reference has no evidence either way", whatever the mix of its cells.

Two methods, both monotone (they keep the order of the cells): *temperature* divides the logit by one number (Guo et al.
2017, arXiv:1706.04599), *isotonic* fits a staircase. Temperature is the default. Isotonic is only considered with
`MIN_STUDIES_ISOTONIC` held-out studies or more, and taken when it has the lower log loss in a second, nested round in
which each study is calibrated by what was fitted on the others. With fewer studies the temperature is never under one:
little evidence may soften a score and not sharpen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.metrics.metrics import expected_calibration_error
from scdrugmap.evaluation.splits.protocols import held_out_units

Method = Literal["temperature", "isotonic"]
FloatArray = NDArray[np.float64]

MIN_STUDIES_ISOTONIC = 5
HOTTEST = 100.0  # the largest temperature: a score of 0.999 becomes 0.517
COLDEST = 0.2  # the smallest, and only where there are studies enough
_CLIP = 1e-6  # scores of exactly 0 and 1 have no logit


@dataclass(frozen=True)
class Calibration:
    """A monotone map from a head's score to P(resistant)."""

    method: Method = "temperature"
    temperature: float = 1.0
    knots: FloatArray = field(default_factory=lambda: np.empty((2, 0)))  # isotonic: (2, K) scores and probabilities

    def apply(self, scores: ArrayLike) -> NDArray[np.float32]:
        """Return P(resistant), (n_cells,) float32, of the head's `scores`, (n_cells,) in [0, 1]."""
        raw = np.asarray(scores, dtype=np.float64)
        if self.method == "isotonic":
            return np.interp(raw, self.knots[0], self.knots[1]).astype(np.float32)
        return expit(_logit(raw) / self.temperature).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that `from_state` needs beside the method."""
        return {"temperature": np.array([self.temperature]), "knots": np.ascontiguousarray(self.knots)}

    @classmethod
    def from_state(cls, method: str, state: Mapping[str, np.ndarray]) -> Calibration:
        """Rebuild a calibrator; raises `InvalidInput` where the arrays do not describe a monotone map."""
        knots = np.asarray(state["knots"], dtype=np.float64)
        temperature = float(np.asarray(state["temperature"]).item())
        monotone = knots.ndim == 2 and knots.shape[0] == 2 and bool(np.all(np.diff(knots, axis=1) >= 0))
        known = method == "temperature" or (method == "isotonic" and knots.size > 0)
        if not (known and monotone and temperature > 0):
            message = f"The calibration '{method}' (temperature {temperature:g}, {knots.shape} knots) is not usable."
            raise InvalidInput(message, "Fit the reference again: scdrugmap reference fit --model MODEL")
        return cls(method, temperature, knots)  # type: ignore[arg-type]  # `known` has narrowed the method


@dataclass(frozen=True)
class CalibrationReport:
    """How a calibrator was chosen and what it is worth on studies that it was not fitted on."""

    method: Method
    n_studies: int
    nested: bool  # True: "after" is measured on studies that the calibrator did not see
    temperature: float
    before: Mapping[str, float]  # brier, nll, ece of the raw scores
    after: Mapping[str, float]
    note: str
    p_held_out: NDArray[np.float32]  # (n_cells,) P(resistant), each study calibrated by what the others taught

    def record(self) -> dict[str, Any]:
        """Return plain scalars for a card."""
        return {
            "method": self.method,
            "n_studies": self.n_studies,
            "nested": self.nested,
            "temperature": self.temperature,
            **{f"{name}_before": value for name, value in self.before.items()},
            **{f"{name}_after": value for name, value in self.after.items()},
            "note": self.note,
        }


def balanced_weights(resistant: NDArray[np.bool_], studies: ArrayLike) -> FloatArray:
    """Return weights, (n_cells,), summing to one: the classes weigh the same, and within a class its studies do."""
    groups = np.asarray(studies).astype(str)
    weights = np.zeros(len(resistant))
    present = [value for value in (False, True) if (resistant == value).any()]
    for value in present:
        of_class = resistant == value
        names = np.unique(groups[of_class])
        for name in names:
            chosen = of_class & (groups == name)
            weights[chosen] = 1.0 / (len(present) * len(names) * chosen.sum())
    return weights


def losses(p: ArrayLike, resistant: NDArray[np.bool_], weights: FloatArray) -> dict[str, float]:
    """Return the weighted Brier score, log loss and expected calibration error of P(resistant)."""
    p = np.asarray(p, dtype=np.float64)
    clipped = np.clip(p, _CLIP, 1 - _CLIP)
    return {
        "brier": float(np.sum(weights * (p - resistant) ** 2)),
        "nll": float(-np.sum(weights * np.where(resistant, np.log(clipped), np.log1p(-clipped)))),
        "ece": expected_calibration_error(p, resistant, weights),
    }


def fit_calibration(
    scores: ArrayLike, resistant: ArrayLike, studies: ArrayLike
) -> tuple[Calibration, CalibrationReport]:
    """Fit on out-of-fold scores and choose the method.

    Args:
        scores: (n_cells,) scores in [0, 1] by heads that did not see the cell's study.
        resistant: (n_cells,) true where the cell is resistant; both classes must occur.
        studies: (n_cells,) the unit that was held out.

    Returns:
        The calibrator fitted on all of it, and a report whose "after" comes from the nested round.

    Raises:
        InvalidInput: scores outside [0, 1] or not finite, or a single class.

    """
    raw, truth, groups = _checked(scores, resistant, studies)
    names = np.unique(groups)
    enough = _count_two_class(truth, groups) >= MIN_STUDIES_ISOTONIC
    candidates: tuple[Method, ...] = ("temperature", "isotonic") if enough else ("temperature",)
    weights = balanced_weights(truth, groups)
    nested = {method: _nested(method, raw, truth, groups, sharpen=enough) for method in candidates}
    after = {method: losses(p, truth, weights) for method, p in nested.items()}
    best = min(candidates, key=lambda method: after[method]["nll"])
    chosen = _fit(best, raw, truth, groups, sharpen=enough)
    report = CalibrationReport(
        method=best,
        n_studies=len(names),
        nested=len(names) > 1,
        temperature=chosen.temperature,
        before=losses(raw, truth, weights),
        after=after[best],
        note=_note(best, len(names), enough),
        p_held_out=nested[best],
    )
    return chosen, report


def _nested(
    method: Method, raw: FloatArray, truth: NDArray[np.bool_], groups: NDArray[np.str_], *, sharpen: bool
) -> NDArray[np.float32]:
    """Calibrate each study by what the others taught; a lone study by itself (the report says so)."""
    calibrated = np.empty(len(raw), dtype=np.float32)
    for _, others, test in held_out_units(groups):
        train = others if len(np.unique(truth[others])) == 2 else np.arange(len(raw))
        calibrated[test] = _fit(method, raw[train], truth[train], groups[train], sharpen=sharpen).apply(raw[test])
    return calibrated


def _fit(
    method: Method, raw: FloatArray, truth: NDArray[np.bool_], groups: NDArray[np.str_], *, sharpen: bool
) -> Calibration:
    weights = balanced_weights(truth, groups)
    if method == "isotonic":
        return _fit_isotonic(raw, truth, weights)
    lowest = COLDEST if sharpen else 1.0
    logits = _logit(raw)
    optimum = minimize_scalar(
        lambda log_t: losses(expit(logits / np.exp(log_t)), truth, weights)["nll"],
        bounds=(np.log(lowest), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return Calibration("temperature", float(np.clip(np.exp(optimum.x), lowest, HOTTEST)))


def _fit_isotonic(raw: FloatArray, truth: NDArray[np.bool_], weights: FloatArray) -> Calibration:
    edge = 1.0 / (2.0 + 1.0 / np.sum(weights**2))  # Laplace's rule on the effective number of cells: never 0 or 1
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    model.fit(raw, truth.astype(np.float64), sample_weight=weights)
    return Calibration("isotonic", 1.0, np.vstack([model.X_thresholds_, model.y_thresholds_]))


def _logit(p: FloatArray) -> FloatArray:
    return logit(np.clip(p, _CLIP, 1 - _CLIP))


def _count_two_class(truth: NDArray[np.bool_], groups: NDArray[np.str_]) -> int:
    return sum(len(np.unique(truth[groups == name])) == 2 for name in np.unique(groups))


def _note(method: Method, n_studies: int, enough: bool) -> str:
    if n_studies == 1:
        return "One held-out unit only: the calibrated error is measured where the temperature was fitted."
    if not enough:
        return (
            f"Fewer than {MIN_STUDIES_ISOTONIC} held-out studies with both classes: temperature only, "
            "and scores are softened, never sharpened."
        )
    return f"{method} had the lowest nested log loss."


def _checked(
    scores: ArrayLike, resistant: ArrayLike, studies: ArrayLike
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.str_]]:
    raw = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(resistant, dtype=bool)
    groups = np.asarray(studies).astype(str)
    if not np.all((raw >= 0) & (raw <= 1)):
        message = "Scores to calibrate must lie in [0, 1] and be finite."
        raise InvalidInput(message, "Pass the head's probabilities.")
    if len(np.unique(truth)) < 2:
        message = f"Calibration needs sensitive and resistant cells; all {len(truth)} are of one class."
        raise InvalidInput(message, "Add a data set that holds the other class.")
    return raw, truth, groups
