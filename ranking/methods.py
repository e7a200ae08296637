"""The five published ranking methods on one metric of one site."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ranking.exact import compute_means
from ranking.ranks import compute_min_ranks
from ranking.wilcoxon import PairTests, compute_pair_tests

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


class SubRanking(NamedTuple):
    """``value``: float64 [P], the number that was ranked; ``rank``: int32 [P], ties = min."""

    value: Floats
    rank: Ints


def compute_sub_ranking(
    method: str,
    values: Floats,
    higher_is_better: bool,
    missing: npt.NDArray[np.bool_] | None = None,
    tests: PairTests | None = None,
) -> SubRanking:
    """Rank the submissions by one metric at one site.

    Parameters
    ----------
    method : str
        One of :data:`ranking.rules.METHODS`.
    values : ndarray of float64, shape (n, P)
        Missing values replaced.
    higher_is_better : bool
        Direction of the metric.
    missing : ndarray of bool, shape (n, P), optional
        Given for ``--na bottom``: these cells rank below every real value of their case (rankThen* only).
    tests : PairTests, optional
        The tests of testBased, where they are known already.
    """
    if method in ("rankThenMean", "rankThenMedian"):
        ranks = compute_case_ranks(values, higher_is_better, missing)
        if method == "rankThenMean":
            sums = ranks.sum(axis=1, dtype=np.int64)
            return SubRanking(sums / len(values), compute_min_ranks(sums))
        medians = np.median(ranks, axis=1)  # of small integers: exact
        return SubRanking(medians, compute_min_ranks(medians))
    if method == "aggregateThenMean":
        means = compute_means(values)
        return SubRanking(means, compute_min_ranks(means, higher_is_better))
    if method == "aggregateThenMedian":
        medians = compute_medians(values)
        return SubRanking(medians, compute_min_ranks(medians, higher_is_better))
    if method == "testBased":
        wins = (tests or compute_pair_tests(values, higher_is_better)).beats.sum(axis=1)
        return SubRanking(wins / max(1, len(wins) - 1), compute_min_ranks(wins, higher_is_better=True))
    raise ValueError(f"unknown method {method!r}")


def compute_case_ranks(values: Floats, higher_is_better: bool, missing: npt.NDArray[np.bool_] | None = None) -> Ints:
    """Rank the submissions within every case, ties = min.

    Returns
    -------
    ndarray of int32, shape (P, n)
    """
    columns = np.ascontiguousarray(values.T)
    if missing is None or not missing.any():
        return compute_min_ranks(columns, higher_is_better)
    return compute_min_ranks(np.where(missing.T, np.nan, columns), higher_is_better)


def compute_medians(values: Floats) -> Floats:
    """Median of every column: the middle value, or the mean of the two middle ones rounded once.

    Parameters
    ----------
    values : ndarray of float64, shape (n, P)
    """
    ordered = np.sort(values, axis=0)
    return compute_middle(ordered[(len(values) - 1) // 2], ordered[len(values) // 2])


def compute_middle(low: Floats, high: Floats) -> Floats:
    """Mean of two doubles, rounded once, without overflow; NaN for infinities of both signs."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle: Floats = (low + high) / 2.0
        overflow = np.isinf(middle) & np.isfinite(low) & np.isfinite(high)
        return np.where(overflow, low / 2.0 + high / 2.0, middle)


Method = Literal["rankThenMean", "rankThenMedian", "aggregateThenMean", "aggregateThenMedian", "testBased"]
