"""Pretrain scGPT-mini: scGPT's network, four layers of 128, on a few thousand real cells, by masked value prediction.

    python scripts/pretrain_scgpt_mini.py DATA_DIR scdrugmap/models/scgpt_mini/weights

Two objectives of scGPT's own pretraining (Cui et al. 2024): from the cell's other genes, tell the bin of a masked gene
(MSE) by its own token, and by the <cls> token asked with the gene ("masked value prediction for cell modelling"). The
decoders are dropped afterwards. OUT gets `checkpoint.json`, `model.safetensors` and `pretraining.json`, which says
what was seen and how the validation loss compares with predicting a mean. CPU, seeded; about 20 minutes on 2 threads.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from pretraining_cells import HELD_OUT, held_out_genes, read_all
from torch import Tensor, nn
from torch.nn import functional as F

from scdrugmap.models.checkpoints.checkpoint import Checkpoint
from scdrugmap.models.core.cells import Cells
from scdrugmap.models.core.tokenizer import Tokens
from scdrugmap.models.scgpt.network import Config, Network
from scdrugmap.models.scgpt.tokens import SPECIALS, Tokenizer

MASK_VALUE = -1.0  # args.json of scGPT's checkpoints
MASK_RATIOS = (0.25, 0.5, 0.75)  # the same
LENGTHS = (128, 256, 512, 1024)  # tokens of a training sentence; a batch holds as many cells as the budget allows
LENGTH_SHARES = (0.3, 0.35, 0.25, 0.1)


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run."""

    steps: int = 1600
    seed: int = 0
    n_genes: int = 5000
    dim: int = 128
    heads: int = 4
    inner: int = 256
    layers: int = 4
    dropout: float = 0.1
    tokens_per_step: int = 8192
    learning_rate: float = 1e-3
    warm_up: int = 100
    validation_share: float = 0.1


class Heads(nn.Module):
    """Decoders of pretraining: of a gene's own token, and of <cls> asked with the gene."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Sequential(
            nn.Linear(dim, dim), nn.LeakyReLU(), nn.Linear(dim, dim), nn.LeakyReLU(), nn.Linear(dim, 1)
        )
        self.query = nn.Linear(dim, dim)
        self.weight = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, genes: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (C, L, D) and gene embeddings (C, L, D) -> two predictions (C, L)."""
        asked = self.weight(torch.sigmoid(self.query(genes)))  # (C, L, D)
        told = (asked * hidden[:, :1]).sum(dim=-1) / asked.shape[-1] ** 0.5  # (C, L)
        return self.token(hidden).squeeze(-1), told


@dataclass
class Scale:
    """Mean and standard deviation of the training bins: the networks predict standardised bins."""

    mean: float
    sd: float

    def down(self, values: Tensor) -> Tensor:
        """Standardise bins."""
        return (values - self.mean) / self.sd


def choose_genes(sets: list[ad.AnnData], wanted: list[str], n_genes: int) -> list[str]:
    """Names of the vocabulary: `wanted` ones that the sets express, then those that vary most over the sets."""
    score: dict[str, float] = {}
    for adata in sets:
        x = adata.X.toarray()
        x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True).clip(min=1e-6))
        spread = x.std(axis=0) * (np.count_nonzero(x, axis=0) >= 5)
        for name, value in zip(adata.var_names, spread / spread.max(), strict=True):
            score[name] = score.get(name, 0.0) + float(value)
    expressed = {name: value for name, value in score.items() if value > 0}
    first = [name for name in wanted if name in expressed]
    rest = sorted(expressed.keys() - set(first), key=lambda name: (-expressed[name], name))
    return sorted([*first, *rest][:n_genes])


def tokenizer_of(genes: list[str]) -> Tokenizer:
    """Tokenizer over these genes that cuts no cell."""
    vocabulary = {"tokens": {name: row for row, name in enumerate([*genes, *SPECIALS])}, "pad_value": -2}
    return Tokenizer(vocabulary, {"max_length": len(genes) + 1, "compat": ""})


@dataclass
class Sentences:
    """Tokens of several sets, and the chance of each cell to be drawn: sets count by the root of their size."""

    tokens: list[Tokens]
    cells: np.ndarray  # (N, 2) set and row
    chance: np.ndarray  # (N,)
    pad_id: int

    @classmethod
    def of(cls, tokens: list[Tokens], rows: list[np.ndarray], pad_id: int) -> Sentences:
        """Take the cells `rows` of each set."""
        cells = np.concatenate([np.column_stack([np.full(len(r), index), r]) for index, r in enumerate(rows)])
        chance = np.concatenate([np.full(len(r), len(r) ** -0.5) for r in rows])
        return cls(tokens, cells, chance / chance.sum(), pad_id)

    def batch(self, picks: np.ndarray, length: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ids and bins (C, length) of cells, each a random draw of its genes; short cells are padded with -2."""
        out_ids = np.full((len(picks), length), self.pad_id, dtype=np.int64)
        out_bins = np.full((len(picks), length), -2.0, dtype=np.float32)
        for row, (which, cell) in enumerate(self.cells[picks]):
            tokens = self.tokens[which]
            span = tokens.cell(cell)
            ids, bins = tokens.ids[span], tokens.values[span]
            kept = 1 + rng.permutation(len(ids) - 1)[: length - 1]
            kept = np.concatenate([[0], kept])
            out_ids[row, : len(kept)], out_bins[row, : len(kept)] = ids[kept], bins[kept]
        return torch.from_numpy(out_ids), torch.from_numpy(out_bins)


def objective(
    network: Network, heads: Heads, ids: Tensor, bins: Tensor, hidden_at: Tensor, scale: Scale
) -> tuple[Tensor, Tensor]:
    """Mean squared errors, in standardised bins, at the masked places `hidden_at` (C, L): by token, by <cls>."""
    mask = bins != -2.0
    mask[:, 0] = True  # <cls>
    values = torch.where(hidden_at, MASK_VALUE, bins)
    hidden = network.hidden(ids, values, mask)
    genes = network.gene_norm(network.gene(ids))
    target = scale.down(bins[hidden_at])
    by_token, by_cls = heads(hidden, genes)  # (C, L)
    return F.mse_loss(by_token[hidden_at], target), F.mse_loss(by_cls[hidden_at], target)


def masked_places(bins: Tensor, ratio: float, rng: np.random.Generator) -> Tensor:
    """Places (C, L) whose bin the network must tell."""
    return (bins > 0) & (torch.from_numpy(rng.random(tuple(bins.shape))) < ratio)


def train(
    network: Network,
    heads: Heads,
    sentences: Sentences,
    scale: Scale,
    plan: Plan,
    *,
    lengths: tuple[int, ...] = LENGTHS,
) -> Iterator[tuple[int, float, float]]:
    """Train in place; yields (step, loss by token, loss by <cls>) after every step."""
    rng = np.random.default_rng(plan.seed)
    shares = np.array(LENGTH_SHARES[: len(lengths)]) / sum(LENGTH_SHARES[: len(lengths)])
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, plan))
    network.train()
    for step in range(plan.steps):
        length = int(rng.choice(lengths, p=shares))
        n_cells = max(1, min(plan.tokens_per_step // length, len(sentences.cells)))
        picks = rng.choice(len(sentences.cells), n_cells, replace=False, p=sentences.chance)
        ids, bins = sentences.batch(picks, length, rng)
        by_token, by_cls = objective(
            network, heads, ids, bins, masked_places(bins, rng.choice(MASK_RATIOS), rng), scale
        )
        optimizer.zero_grad()
        (by_token + by_cls).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        yield step, by_token.item(), by_cls.item()
    network.eval()


def rate(step: int, plan: Plan) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < plan.warm_up:
        return (step + 1) / plan.warm_up
    done = (step - plan.warm_up) / max(1, plan.steps - plan.warm_up)
    return 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * done))


@torch.no_grad()
def validate(
    network: Network, heads: Heads, sentences: Sentences, gene_means: Tensor, scale: Scale
) -> dict[str, float]:
    """Mean squared error in squared bins on held-out cells, half of 512 genes masked, beside predicting a mean."""
    network.eval()
    rng = np.random.default_rng(12345)  # the same sentences and masks whatever the run
    sums, count = np.zeros(4), 0
    for start in range(0, len(sentences.cells), 16):
        picks = np.arange(start, min(start + 16, len(sentences.cells)))
        ids, bins = sentences.batch(picks, 512, rng)
        places = masked_places(bins, 0.5, rng)
        by_token, by_cls = objective(network, heads, ids, bins, places, scale)
        target, n = bins[places], int(places.sum())
        by_mean, by_gene = (
            F.mse_loss(torch.full_like(target, scale.mean), target),
            F.mse_loss(gene_means[ids[places]], target),
        )
        sums += n * np.array(
            [by_token.item() * scale.sd**2, by_cls.item() * scale.sd**2, by_mean.item(), by_gene.item()]
        )
        count += n
    names = ("masked_by_token", "masked_by_cls", "predict_the_mean", "predict_the_mean_of_the_gene")
    return {name: round(float(value), 3) for name, value in zip(names, sums / count, strict=True)}


def split(tokens: list[Tokens], plan: Plan, pad_id: int) -> tuple[Sentences, Sentences]:
    """Training and validation sentences; cells that express less than 20 known genes are left out."""
    rng = np.random.default_rng(plan.seed)
    train_rows, valid_rows = [], []
    for part in tokens:
        rows = rng.permutation(np.flatnonzero(part.lengths > 20))
        n_valid = int(len(rows) * plan.validation_share)
        valid_rows.append(rows[:n_valid])
        train_rows.append(rows[n_valid:])
    return Sentences.of(tokens, train_rows, pad_id), Sentences.of(tokens, valid_rows, pad_id)


def statistics(sentences: Sentences, n_tokens: int) -> tuple[Scale, Tensor]:
    """Mean and deviation of all training bins, and each gene's mean bin (n_tokens,), weighted as cells are drawn."""
    total, weight, squares = np.zeros(n_tokens), np.zeros(n_tokens), 0.0
    for (which, cell), chance in zip(sentences.cells, sentences.chance, strict=True):
        span = sentences.tokens[which].cell(cell)
        ids, bins = sentences.tokens[which].ids[span][1:], sentences.tokens[which].values[span][1:]
        np.add.at(total, ids, chance * bins)
        np.add.at(weight, ids, chance)
        squares += chance * float((bins.astype(np.float64) ** 2).sum())
    mean = total.sum() / weight.sum()
    scale = Scale(float(mean), float(np.sqrt(squares / weight.sum() - mean**2)))
    means = np.where(weight > 0, total / np.maximum(weight, 1e-12), mean)
    return scale, torch.from_numpy(means.astype(np.float32))


def pretrain(
    sets: list[ad.AnnData], genes: list[str], plan: Plan, *, lengths: tuple[int, ...] = LENGTHS, every: int = 50
) -> tuple[Checkpoint, dict[str, Any]]:
    """Train on these sets and give our checkpoint and what was measured."""
    torch.manual_seed(plan.seed)
    tokenizer = tokenizer_of(genes)
    tokens = [tokenizer.tokenize(Cells.from_anndata(adata)) for adata in sets]
    training, validation = split(tokens, plan, tokenizer.pad_id)
    sizes = {name: getattr(plan, name) for name in ("dim", "heads", "inner", "layers", "dropout")}
    config = Config(n_tokens=len(genes) + len(SPECIALS), **sizes)
    network, heads = Network(config, {"normalise": True}), Heads(plan.dim)
    nn.init.normal_(network.gene.weight, std=0.02)
    scale, gene_means = statistics(training, config.n_tokens)
    started, history = time.time(), []
    for step, by_token, by_cls in train(network, heads, training, scale, plan, lengths=lengths):
        if step % every == 0 or step == plan.steps - 1:
            history.append({"step": step, "by_token": round(by_token, 4), "by_cls": round(by_cls, 4)})
            print(f"{time.time() - started:7.0f} s  step {step}  {by_token:.4f}  {by_cls:.4f}", flush=True)
    measured = {
        "n_training_cells": len(training.cells),
        "n_validation_cells": len(validation.cells),
        "validation_mse_in_squared_bins": validate(network, heads, validation, gene_means, scale),
        "training_loss_in_standardised_bins": history,
        "seconds": round(time.time() - started),
    }
    return Checkpoint(asdict(config), dict(tokenizer.vocabulary), network.state_dict()), measured


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = Plan(steps=args.steps, seed=args.seed)
    rows, sets = zip(*read_all(args.data_dir), strict=True)
    wanted = held_out_genes(args.data_dir)
    genes = choose_genes(list(sets), wanted, plan.n_genes)
    checkpoint, measured = pretrain(list(sets), genes, plan)
    checkpoint.save(args.out)
    known = set(genes)
    record = {
        "plan": asdict(plan),
        "seen": [{"name": r["name"], "accession": r["accession"], "cells": int(float(r["cells"]))} for r in rows],
        "held_out": sorted(HELD_OUT),
        "held_out_genes_in_vocabulary": [sum(name in known for name in wanted), len(wanted)],
        **measured,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    (args.out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["validation_mse_in_squared_bins"], indent=1))


if __name__ == "__main__":
    main()
