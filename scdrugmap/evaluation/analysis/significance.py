"""Which differences between entries are more than luck: paired tests over data sets.

The data set is what is drawn: cells of one set, its folds and seeds are not independent and count once (Demsar 2006,
Journal of Machine Learning Research 7:1-30). The tests are scipy's and scikit-posthocs'. With few data sets no test
can find much; how small a p-value could become at all stands beside each.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.analysis.score_matrix import ScoreMatrix, score_matrix
from scdrugmap.evaluation.metrics.bootstrap import DRAWS, draw_units, percentile
from scdrugmap.evaluation.metrics.metrics import METRICS

ALPHA = 0.05
ENUMERATED = 13  # data sets up to which all 2^n signs are tried; above, scipy's distributions
PAIRS = {
    "a": pl.String,
    "b": pl.String,
    "median_difference": pl.Float64,  # of a - b, turned so that more is better
    "low": pl.Float64,  # distribution-free 95 % interval of the median; null below 6 data sets, where there is none
    "high": pl.Float64,
    "won": pl.Int64,  # data sets on which a is better
    "lost": pl.Int64,
    "tied": pl.Int64,
    "rank_difference": pl.Float64,  # mean rank of a minus that of b; negative where a is better
    "p_wilcoxon": pl.Float64,
    "p_holm": pl.Float64,  # over all pairs of the table
    "p_nemenyi": pl.Float64,
    "different": pl.Boolean,  # p_holm at or below alpha
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Entries compared over the same data sets; rank 1 is the best."""

    metric: str
    datasets: tuple[str, ...]
    alpha: float
    # entry, model, head, strategy, shots, mean_rank, mean, median, won (data sets where it is best, ties shared),
    # first (how often it has the best mean rank when data sets are drawn anew), rank_low, rank_high (95 % of these)
    ranks: pl.DataFrame
    pairs: pl.DataFrame  # columns of `PAIRS`, one row a pair, the better mean rank first
    chi_square: float | None  # Friedman; None with two entries
    p_friedman: float | None
    smallest_p: float  # that Wilcoxon's test can reach with so many data sets, before Holm's correction
    smallest_p_holm: float  # after it, for the most different pair
    critical_difference: float  # of mean ranks (Nemenyi)
    groups: tuple[tuple[str, ...], ...]  # largest sets of entries that Nemenyi's test does not tell apart
    dropped: pl.DataFrame  # columns of `blocks.DROPPED`
    remarks: tuple[str, ...]  # what a reader must know, as sentences

    @property
    def n_datasets(self) -> int:
        """Data sets that the tests rest on."""
        return len(self.datasets)


def compare(scores: pl.DataFrame, metric: str, *, simulated: bool = False, **where: object) -> Comparison:
    """Compare the entries of a view over data sets; see `score_matrix` for the view and what it raises."""
    return compare_blocks(score_matrix(scores, metric, simulated=simulated, **where))


def compare_blocks(table: ScoreMatrix, *, alpha: float = ALPHA, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compare the entries of a complete table of scores: Friedman, Nemenyi, Wilcoxon with Holm, rank stability."""
    n, k = table.values.shape
    ranks = ranks_of(table)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    nemenyi = _nemenyi(table, k)
    chi_square, p_friedman = _friedman(table, k)
    pairs = _pairs(table, ranks, order, nemenyi, alpha)
    smallest = math.ldexp(1.0, 1 - n)
    comparison = Comparison(
        metric=table.metric,
        datasets=table.datasets,
        alpha=alpha,
        ranks=_ranking(table, ranks, draws, seed)[order.tolist()],
        pairs=pairs,
        chi_square=chi_square,
        p_friedman=p_friedman,
        smallest_p=smallest,
        smallest_p_holm=min(1.0, smallest * len(pairs)),
        critical_difference=critical_difference(k, n, alpha),
        groups=_groups([table.names[i] for i in order], nemenyi[np.ix_(order, order)], alpha),
        dropped=table.dropped,
        remarks=(),
    )
    return Comparison(**{**vars(comparison), "remarks": tuple(_remarks(comparison))})


def ranks_of(table: ScoreMatrix) -> np.ndarray:
    """Return the rank of each entry on each data set, (D, E), 1 the best, ties sharing their mean rank."""
    return np.asarray(stats.rankdata(-table.sign * table.values, axis=1))


def critical_difference(n_entries: int, n_datasets: int, alpha: float = ALPHA) -> float:
    """Return by how much mean ranks must differ in Nemenyi's test."""
    q = stats.studentized_range.ppf(1 - alpha, n_entries, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_entries * (n_entries + 1) / (6 * n_datasets)))


def _friedman(table: ScoreMatrix, k: int) -> tuple[float | None, float | None]:
    if k < 3:
        return None, None
    if (table.values == table.values[:, :1]).all():  # nothing differs: scipy would divide zero by zero
        return 0.0, 1.0
    test = stats.friedmanchisquare(*table.values.T)
    return float(test.statistic), float(test.pvalue)


def _nemenyi(table: ScoreMatrix, k: int) -> np.ndarray:
    """Return the p-value of each pair of entries, (E, E)."""
    import scikit_posthocs  # brings matplotlib along: not before it is needed

    return np.asarray(scikit_posthocs.posthoc_nemenyi_friedman(table.values), dtype=float).reshape(k, k)


def signed_rank(differences: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of each column of differences, (n, P) -> (P,).

    The ranks of zeros are split between the signs, as Demsar has it. Up to `ENUMERATED` rows all signs are tried, so
    that ties do no harm; above, scipy's exact distribution where a column has no ties, else its normal approximation.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = np.where(np.isclose(d, 0, atol=1e-12), 0.0, d)
    n = len(d)
    if n <= ENUMERATED:
        ranks = stats.rankdata(np.abs(d), axis=0) * (d != 0)  # (n, P)
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))  # (2^n, n)
        observed = np.abs((np.sign(d) * ranks).sum(axis=0))
        return (np.abs(signs @ ranks) >= observed - 1e-9).mean(axis=0)
    p = np.ones(d.shape[1])
    size = np.sort(np.abs(d), axis=0)
    clean = (size[0] > 0) & (np.diff(size, axis=0) > 1e-12).all(axis=0) & (n <= 50)
    rest = ~clean & (size[-1] > 0)  # identical columns keep p = 1
    for mask, method in ((clean, "exact"), (rest, "asymptotic")):
        if mask.any():
            p[mask] = stats.wilcoxon(d[:, mask], axis=0, zero_method="zsplit", method=method).pvalue
    return p


def median_interval(differences: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the distribution-free interval of the median of each column, (n, P) -> two (P,); NaN below 6 rows.

    Its ends are order statistics whose coverage, by the binomial distribution, is `level` or more.
    """
    d = np.sort(differences, axis=0)
    n = len(d)
    place = int(stats.binom.ppf((1 - level) / 2, n, 0.5))  # P(X < place) is below (1 - level) / 2
    if place < 1:
        nothing = np.full(d.shape[1], np.nan)
        return nothing, nothing
    return d[place - 1], d[n - place]


def _pairs(table: ScoreMatrix, ranks: np.ndarray, order: np.ndarray, nemenyi: np.ndarray, alpha: float) -> pl.DataFrame:
    from statsmodels.stats.multitest import multipletests

    a, b = (np.array(side) for side in zip(*itertools.combinations(order, 2), strict=True))
    d = table.sign * (table.values[:, a] - table.values[:, b])  # (D, P)
    d = np.where(np.isclose(d, 0, atol=1e-12), 0.0, d)
    p = signed_rank(d)
    adjusted = multipletests(p, method="holm")[1]
    low, high = median_interval(d)
    means, names = ranks.mean(axis=0), np.array(table.names, dtype=object)
    columns = {
        "a": names[a].tolist(),
        "b": names[b].tolist(),
        "median_difference": np.median(d, axis=0),
        "low": low,
        "high": high,
        "won": (d > 0).sum(axis=0),
        "lost": (d < 0).sum(axis=0),
        "tied": (d == 0).sum(axis=0),
        "rank_difference": means[a] - means[b],
        "p_wilcoxon": p,
        "p_holm": adjusted,
        "p_nemenyi": nemenyi[a, b],
        "different": adjusted <= alpha,
    }
    return pl.DataFrame(columns, schema=PAIRS).with_columns(pl.col("low", "high").fill_nan(None))


def _ranking(table: ScoreMatrix, ranks: np.ndarray, draws: int, seed: int) -> pl.DataFrame:
    n, k = ranks.shape
    drawn = draw_units(n, draws, np.random.default_rng(seed)) @ ranks  # (draws, E)
    again = stats.rankdata(np.round(drawn / n, 9), axis=1, method="min")
    first = (again == 1) / (again == 1).sum(axis=1, keepdims=True)
    best = ranks == ranks.min(axis=1, keepdims=True)
    bounds = np.array([percentile(again[:, i]) for i in range(k)])
    return table.entries.with_columns(
        mean_rank=ranks.mean(axis=0),
        mean=table.values.mean(axis=0),
        median=np.median(table.values, axis=0),
        won=(best / best.sum(axis=1, keepdims=True)).sum(axis=0),
        first=first.mean(axis=0),
        rank_low=bounds[:, 0],
        rank_high=bounds[:, 1],
    )


def _groups(names: list[str], p: np.ndarray, alpha: float) -> tuple[tuple[str, ...], ...]:
    """Return the longest runs of entries, in the order of their mean ranks, whose ends do not differ."""
    groups: list[tuple[int, int]] = []
    for start in range(len(names)):
        stop = max(end for end in range(start, len(names)) if p[start, end] > alpha or end == start)
        if stop > start and (not groups or stop > groups[-1][1]):
            groups.append((start, stop))
    return tuple(tuple(names[start : stop + 1]) for start, stop in groups)


def _remarks(comparison: Comparison) -> list[str]:
    n, title = comparison.n_datasets, METRICS[comparison.metric].title
    few = comparison.smallest_p_holm > comparison.alpha
    remarks = [f"{comparison.ranks.height} entries compared by {title} over {n} data sets."]
    if few:
        remarks.append(
            f"With {n} data sets the smallest possible p of Wilcoxon's test is {comparison.smallest_p:.2g}, and "
            f"{comparison.smallest_p_holm:.2g} after correction for {comparison.pairs.height} pairs: no difference "
            "between two entries can be shown, however large. That none is shown says nothing about their being alike."
        )
    if comparison.p_friedman is not None:
        shown = comparison.p_friedman <= comparison.alpha
        remarks.append(
            f"Friedman's test: chi-square {comparison.chi_square:.2f}, p = {comparison.p_friedman:.2g}: the entries "
            f"{'are not all alike' if shown else 'are not shown to differ at all, so that no pair should be read'}."
        )
    if comparison.dropped.height:
        by = dict(comparison.dropped.group_by("what").len().rows())
        left = " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in sorted(by.items()))
        remarks.append(f"Left out, since they were not scored everywhere: {left.replace('entrys', 'entries')}.")
    return remarks


def agreement(
    scores: pl.DataFrame, metric: str, over: str = "split_by", *, simulated: bool = False, **where: object
) -> pl.DataFrame:
    """Return how alike entries are ranked under two splits, seeds or other values of a column: Kendall's tau-b.

    One row a pair of values of `over`, ranks being means over the data sets and entries that both have: `a`, `b`
    (text), `tau` (null where all entries of a side share one rank), `p`, `n_entries`, `n_datasets`. A view that
    allows no comparison under a value has no row for it.
    """
    rows = scores.filter(pl.col("source") != "reported")
    values = rows[over].drop_nulls().unique().sort().to_list()
    tables = {}
    for value in values:
        try:
            tables[value] = score_matrix(rows, metric, simulated=simulated, **{**where, over: value})
        except InvalidInput:
            continue
    taus = [(str(a), str(b), *_tau(tables[a], tables[b])) for a, b in itertools.combinations(tables, 2)]
    schema = {"a": pl.String, "b": pl.String, "tau": pl.Float64, "p": pl.Float64, "n_entries": pl.Int64}
    return pl.DataFrame(taus, schema={**schema, "n_datasets": pl.Int64}, orient="row")


def _tau(a: ScoreMatrix, b: ScoreMatrix) -> tuple[float | None, float | None, int, int]:
    entries = [name for name in a.names if name in b.names]
    datasets = [name for name in a.datasets if name in b.datasets]
    if len(entries) < 2 or not datasets:
        return None, None, len(entries), len(datasets)
    sides = []
    for side in (a, b):
        rows, columns = ([whole.index(name) for name in part] for whole, part in _common(side, datasets, entries))
        values = -side.sign * side.values[np.ix_(rows, columns)]
        sides.append(np.round(stats.rankdata(values, axis=1).mean(axis=0), 9))
    if any(len(set(side.tolist())) < 2 for side in sides):
        return None, None, len(entries), len(datasets)
    test = stats.kendalltau(*sides)
    return float(test.statistic), float(test.pvalue), len(entries), len(datasets)


def _common(side: ScoreMatrix, datasets: list[str], entries: list[str]) -> list[tuple[list[str], list[str]]]:
    return [(list(side.datasets), datasets), (side.names, entries)]
