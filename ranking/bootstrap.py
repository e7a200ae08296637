"""Ranks of one sub-ranking in many bootstrap samples.

A sample is given by counts: how often each case was drawn. With weighting ``case`` a case drawn k times counts k
times, as a bootstrap must. With ``challengeR`` the published tool's treatment is reproduced: rankThen* rank the k
copies of a case together, so that rank r becomes 1 + k (r - 1), k times; testBased ignores copies; aggregateThen* are
right.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ranking.exact import compute_means
from ranking.methods import compute_case_ranks, compute_middle
from ranking.ranks import compute_min_ranks
from ranking.signed_rank_draws import AddSums, compute_win_draws

Floats = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int32]
Weighting = Literal["case", "challengeR"]


def compute_bootstrap_ranks(
    method: str,
    values: Floats,
    higher_is_better: bool,
    counts: Counts,
    weighting: Weighting = "case",
    missing: npt.NDArray[np.bool_] | None = None,
    add_sums: AddSums | None = None,
) -> Ranks:
    """Rank the submissions in every sample.

    Parameters
    ----------
    method : str
        One of :data:`ranking.rules.METHODS`.
    values : ndarray of float64, shape (n, P)
        Missing values replaced.
    higher_is_better : bool
    counts : ndarray of int32, shape (B, n)
        How often each case is in each sample; every sample has at least one.
    weighting : str
        ``case`` or ``challengeR``.
    missing : ndarray of bool, shape (n, P), optional
        As in :func:`ranking.methods.compute_sub_ranking`.
    add_sums : callable, optional
        As in :func:`ranking.signed_rank_draws.compute_win_draws`.

    Returns
    -------
    ndarray of int32, shape (P, B)
        Ties = min.
    """
    if method == "aggregateThenMean":
        return compute_min_ranks(np.ascontiguousarray(compute_means(values, counts).T), higher_is_better)
    if method == "aggregateThenMedian":
        return compute_min_ranks(_draw_medians(values, counts), higher_is_better)
    if method == "testBased":
        used = np.minimum(counts, 1) if weighting == "challengeR" else counts
        return compute_min_ranks(compute_win_draws(values, higher_is_better, used, add_sums), higher_is_better=True)
    ranks = compute_case_ranks(values, higher_is_better, missing)
    if method == "rankThenMean":
        weights = counts.T.astype(np.float64)
        if weighting == "challengeR":
            weights *= weights
        sums = (ranks - 1.0) @ weights  # integers: exact in any order
        return compute_min_ranks(sums)
    if method == "rankThenMedian":
        middles = (
            _draw_rescaled_medians(ranks, counts) if weighting == "challengeR" else _draw_rank_medians(ranks, counts)
        )
        return compute_min_ranks(middles)
    raise ValueError(f"unknown method {method!r}")


def _find_middle(counts: Counts) -> tuple[Counts, Counts]:
    """How many drawn cases lie below the lower and the upper middle one of each sample."""
    total = counts.sum(axis=1, dtype=np.int32)
    return (total - 1) // 2, total // 2


def _draw_rank_medians(ranks: Ranks, counts: Counts) -> Ranks:
    """Twice the median rank, shape (P, B): the ranks are few, so count the cases up to each."""
    lower, upper = _find_middle(counts)
    weights = np.ascontiguousarray(counts.T, dtype=np.float32)
    levels = np.arange(1, ranks.max() + 1)[:, None]
    twice = np.empty((len(ranks), len(counts)), dtype=np.int32)
    for row, case_ranks in enumerate(ranks):
        reached = (case_ranks <= levels).astype(np.float32) @ weights  # below 2**24: exact
        twice[row] = _count_rows(reached <= lower) + _count_rows(reached <= upper)
    return twice  # the median is 1 + twice / 2


def _draw_rescaled_medians(ranks: Ranks, counts: Counts) -> Ranks:
    """Twice the median of 1 + k (r - 1), k copies each, less 2; shape (P, B)."""
    lower, upper = _find_middle(counts)
    twice = np.empty((len(ranks), len(counts)), dtype=np.int32)
    samples = np.arange(len(counts))
    for row, case_ranks in enumerate(ranks):
        scaled = counts * (case_ranks - 1)
        order = np.argsort(scaled, axis=1, kind="stable")
        scaled = np.take_along_axis(scaled, order, axis=1)
        reached = np.take_along_axis(counts, order, axis=1).cumsum(axis=1)
        low = (reached <= lower[:, None]).sum(axis=1)
        high = (reached <= upper[:, None]).sum(axis=1)
        twice[row] = scaled[samples, low] + scaled[samples, high]
    return twice


def _draw_medians(values: Floats, counts: Counts) -> Floats:
    """Median value, shape (P, B): sort each column once, then find the middle of the drawn ones."""
    lower, upper = _find_middle(counts)
    weights = np.ascontiguousarray(counts.T)
    medians = np.empty((values.shape[1], len(counts)))
    reached = np.empty_like(weights)
    for column, cells in enumerate(values.T):
        order = np.argsort(cells, kind="stable")
        ordered = cells[order]
        running = np.zeros(len(counts), dtype=np.int32)
        for place, case in enumerate(order):
            running = np.add(running, weights[case], out=reached[place])
        low = _count_rows(reached <= lower)
        high = _count_rows(reached <= upper)
        medians[column] = compute_middle(ordered[low], ordered[high])
    return medians


def _count_rows(chosen: npt.NDArray[np.bool_]) -> Ranks:
    """Number of True in every column; in small integers, which add quickest."""
    small = np.uint8 if len(chosen) < 256 else np.int32
    total: Ranks = np.add.reduce(chosen.view(np.uint8), axis=0, dtype=small).astype(np.int32)
    return total
