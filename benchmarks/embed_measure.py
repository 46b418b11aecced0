"""What the benchmark of embedding measures, each ratio between runs that take turns: load comes and goes for all alike.

Cells are dealt into rounds; in every round each way embeds the same cells, one way after the other, and times are added
up over the rounds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from embed_plain import batch_size, maximum_length, plain
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scdrugmap.models.core.batch_runner import Compiled, token_budget
from scdrugmap.models.core.encoder import Encoder

TOLERANCE = 2e-4  # of the largest value: what rounding may move in another order of sums
SQUARE = 2_048  # side of the square product beside those of the model's own shapes
LONG_ENOUGH = 2e9  # floating-point operations that a clock measures well
FEWEST_LABELLED = 40  # cells, below which no score is given


@dataclass(frozen=True)
class Clock:
    """Seconds of the wall, or of the processor: the second says what an idle machine would take, on one thread."""

    kind: str
    device: torch.device

    def now(self) -> float:
        """Give the time, after all work of a GPU is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.process_time() if self.kind == "cpu" else time.perf_counter()

    def time(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds that `work` takes, and what it gives."""
        start = self.now()
        done = work()
        return self.now() - start, done


@dataclass(frozen=True)
class Translated:
    """A network whose blocks `torch.compile` translates, and these translations, to be put on and taken off."""

    network: Compiled
    forwards: dict[nn.Module, Callable[..., Any]]

    @classmethod
    def of(cls, encoder: Encoder) -> Translated:
        """Make them; none stays on. They are made when they first run."""
        network = Compiled(encoder.network)
        return cls(network, {block: vars(block).pop("forward") for block in network.blocks})


def measure(
    encoder: Encoder, cells: AnnData, *, rounds: int, clock: Clock, bfloat16: bool = True, compiled: bool = False
) -> dict[str, Any]:
    """Time all ways over `cells`; raises `RuntimeError` where the plain loop's embedding is another than ours."""
    seconds: dict[str, float] = defaultdict(float)
    totals: dict[str, float] = defaultdict(float)
    made: dict[str, list[np.ndarray]] = defaultdict(list)
    width = maximum_length(encoder, encoder.tokenize(cells))
    encoder.embed(cells[:1].copy())  # what is set up once is not timed
    translated = Translated.of(encoder) if compiled else None
    if translated:
        in_compiled(encoder, cells, translated)  # so that no translation is timed
    gemm = gemm_rate(encoder, clock)
    for turn in range(rounds):
        some = cells[turn::rounds].copy()
        tokens = encoder.tokenize(some)
        batches = _batches(encoder, tokens)
        for name, amount in _sizes(encoder, tokens, batches).items():
            totals[name] += amount
        for name, way in _ways(encoder, some, tokens, width, bfloat16=bfloat16, translated=translated).items():
            took, z = clock.time(way)
            seconds[name] += took
            made[name].append(z)
        seconds["forward"] += clock.time(lambda batches=batches: _forward(encoder, batches))[0]
        gemm = max(gemm, gemm_rate(encoder, clock))
    z = {name: np.concatenate(parts) for name, parts in made.items()}
    worst = {name: _difference(z["ours"], z[name]) for name in ("plain", "padded", "compiled") if name in z}
    for name, difference in worst.items():
        if difference > TOLERANCE:
            message = (
                f"{encoder.card.key}: the {name} loop's embedding differs by {difference:.2g} of the largest value"
            )
            raise RuntimeError(message)
    found = _summary(seconds, totals, gemm) | {"difference": max(worst.values())}
    drift = _drift(z["ours"], z["bfloat16"]) if bfloat16 else {}
    return found | drift | {"plain_batch": batch_size(encoder, width), "padded_to": width, "rounds": rounds}


def _ways(
    encoder: Encoder, cells: AnnData, tokens: Any, width: int, *, bfloat16: bool, translated: Translated | None
) -> dict[str, Callable[[], np.ndarray]]:
    """Ways to embed the same cells, (C, dim) float32 each: ours first."""
    size = batch_size(encoder, width)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: encoder.embed(cells, checked=True),
        "plain": lambda: plain(encoder, tokens, width, size),
        "padded": lambda: plain(encoder, tokens, None, size),
    }
    if bfloat16:
        ways["bfloat16"] = lambda: in_bfloat16(encoder, cells)
    if translated:
        ways["compiled"] = lambda: in_compiled(encoder, cells, translated)
    return ways


def in_compiled(encoder: Encoder, cells: AnnData, translated: Translated) -> np.ndarray:
    """Embed cells by the translated network, (C, dim) float32, and leave the encoder's own as it was.

    Raises `RuntimeError` where there is no working compiler or nothing to translate.
    """
    for block, forward in translated.forwards.items():
        block.forward = forward
    encoder._compiled = translated.network
    try:
        z = encoder.embed(cells, checked=True)
    finally:
        encoder._compiled = None
        for block in translated.forwards:
            vars(block).pop("forward", None)
    if not translated.network.blocks:
        message = f"{encoder.card.key} does not compile here: see the log"
        raise RuntimeError(message)
    return z


def _difference(ours: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(other - ours).max() / np.abs(ours).max())


def in_bfloat16(encoder: Encoder, cells: AnnData) -> np.ndarray:
    """Embed cells in bfloat16, (C, dim) float32."""
    precision, encoder.precision = encoder.precision, "bfloat16"
    try:
        return encoder.embed(cells, checked=True)
    finally:
        encoder.precision = precision


def downstream(encoder: Encoder, labelled: AnnData, *, seed: int = 0) -> dict[str, float]:
    """F1 (of sensitive) and AUROC of a logistic head, five-fold by cell, on both precisions' embeddings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if labelled.n_obs < FEWEST_LABELLED:
        return {}
    truth = (labelled.obs["response"] == "sensitive").to_numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    scores: dict[str, float] = {"labelled": labelled.n_obs}
    for name, z in (("float32", encoder.embed(labelled)), ("bfloat16", in_bfloat16(encoder, labelled))):
        p = cross_val_predict(head, z, truth, cv=folds, method="predict_proba")[:, 1]
        scores[f"f1_{name}"] = float(f1_score(truth, p >= 0.5))
        scores[f"auroc_{name}"] = float(roc_auc_score(truth, p))
    return scores


def gemm_rate(encoder: Encoder, clock: Clock, repeats: int = 3) -> float:
    """Best floating-point operations a second of float32 matrix products: the shapes of the network, and a square."""
    rows = token_budget(encoder.device)
    shapes = {(rows, part.in_features, part.out_features) for part in _linears(encoder.network)}
    best = 0.0
    for n, inner, m in {*shapes, (SQUARE, SQUARE, SQUARE)}:
        a, b = (torch.ones(size, device=encoder.device) for size in ((n, inner), (inner, m)))
        more = max(1, int(LONG_ENOUGH // (2 * n * inner * m)))
        took = min(clock.time(lambda a=a, b=b, more=more: [a @ b for _ in range(more)])[0] for _ in range(repeats))
        best = max(best, more * 2 * n * inner * m / took)
    return best


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


def _batches(encoder: Encoder, tokens: Any) -> list[dict[str, np.ndarray]]:
    plan = encoder.tokenizer.plan(tokens, None, token_budget(encoder.device))
    return [encoder.tokenizer.collate(tokens, rows) for rows in plan]


def _forward(encoder: Encoder, batches: list[dict[str, np.ndarray]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            encoder.forward(batch)


def _flash_flops(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
    cells, heads, asking, width = query
    return 4 * cells * heads * asking * key[2] * width


def _sizes(encoder: Encoder, tokens: Any, batches: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Cells, tokens, positions that were run, and floating-point operations of matrix products."""
    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _flash_flops}
    with FlopCounterMode(display=False, custom_mapping=known) as counted:
        _forward(encoder, batches)
    positions = sum(batch["ids"].size for batch in batches)
    length = float(tokens.lengths.sum())
    return {"cells": len(tokens), "tokens": length, "positions": positions, "flops": counted.get_total_flops()}


def _summary(seconds: dict[str, float], totals: dict[str, float], gemm: float) -> dict[str, Any]:
    rate = totals["flops"] / seconds["forward"]
    found = {
        "cells": int(totals["cells"]),
        "cells_per_s": totals["cells"] / seconds["ours"],
        "tokens_per_s": totals["tokens"] / seconds["ours"],
        "forward_cells_per_s": totals["cells"] / seconds["forward"],
        "forward_tokens_per_s": totals["tokens"] / seconds["forward"],
        "padding": max(0.0, 1 - totals["tokens"] / totals["positions"]),
        "against_plain": seconds["plain"] / seconds["ours"],
        "against_padded": seconds["padded"] / seconds["ours"],
        "gflops": rate / 1e9,
        "gemm_gflops": gemm / 1e9,
        "of_gemm": rate / gemm,
        "plain_of_gemm": totals["flops"] / seconds["plain"] / gemm,
    }
    faster = {
        f"against_{name}": seconds["ours"] / seconds[name] for name in ("bfloat16", "compiled") if name in seconds
    }
    return found | faster


def _drift(full: np.ndarray, half: np.ndarray) -> dict[str, float]:
    """Cosine between both precisions' vectors of a cell, as they are and around the mean cell of float32."""
    mean = full.mean(axis=0)
    around = _cosine(full - mean, half - mean)
    return {"cosine": float(_cosine(full, half).mean()), "cosine_around_mean": float(around.mean())}


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
