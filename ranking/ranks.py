"""Ranks, their counts, and Kendall's tau-b, on many samples at once.

Arrays here are laid out [A, B]: one row per submission, samples (or cases) along the row, so that every step is a
pass over long rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def compute_min_ranks(scores: npt.NDArray[np.generic], higher_is_better: bool = False) -> npt.NDArray[np.int32]:
    """Rank the submissions of every sample, ties = minimum (1, 2, 2, 4); equal means ``==``.

    Parameters
    ----------
    scores : ndarray, shape (A, B) or (A,)
        One number per submission and sample. NaN (a mean of infinities of both signs) comes last.
    higher_is_better : bool
        Give rank 1 to the largest.

    Returns
    -------
    ndarray of int32, same shape
    """
    ranks = np.ones(scores.shape, dtype=np.int32)
    for row in scores:
        ranks += (row > scores) if higher_is_better else (row < scores)
    if scores.dtype.kind == "f":
        undefined = np.isnan(scores)
        if undefined.any():
            ranks = np.where(undefined, (~undefined).sum(axis=0) + 1, ranks).astype(np.int32)
    return ranks


def compute_average_ranks(scores: npt.NDArray[np.generic]) -> Floats:
    """Rank the submissions of every sample, smallest first, ties = average (1, 2.5, 2.5, 4).

    Parameters
    ----------
    scores : ndarray, shape (A, B) or (A,)

    Returns
    -------
    ndarray of float64, same shape
    """
    twice = np.ones(scores.shape, dtype=np.int32)
    for row in scores:
        twice += row < scores
        twice += row <= scores
    return twice / 2.0


def compute_rank_counts(ranks: npt.NDArray[np.integer], places: int) -> Ints:
    """Count how often each submission has each rank.

    Parameters
    ----------
    ranks : ndarray of int, shape (A, B)
        Ranks from 1 to ``places``.

    Returns
    -------
    ndarray of int64, shape (A, places)
    """
    rows = np.arange(len(ranks))[:, None] * places
    return np.bincount((ranks - 1 + rows).ravel(), minlength=len(ranks) * places).reshape(len(ranks), places)


def compute_tau(reference: npt.NDArray[np.generic], ranks: npt.NDArray[np.integer]) -> Floats:
    """Kendall's tau-b between one ranking and each of B rankings.

    Parameters
    ----------
    reference : ndarray, shape (A,)
        Ranks or scores, ties allowed.
    ranks : ndarray of int, shape (A, B)
        Any ranks or integer scores; same direction as the reference.

    Returns
    -------
    ndarray of float64, shape (B,)
        NaN where either ranking ties all submissions.
    """
    count = len(reference)
    order = np.argsort(reference, kind="stable")
    ordered, sorted_reference = ranks[order], reference[order]
    concordant = np.zeros(ranks.shape[1:], dtype=np.int64)
    tied = np.zeros(ranks.shape[1:], dtype=np.int64)
    small = np.int8 if count < 128 else np.int32
    for index in range(count - 1):
        later = ordered[index + 1 :]
        tied += np.add.reduce(later == ordered[index], axis=0, dtype=np.int32)
        worse = int(np.searchsorted(sorted_reference, sorted_reference[index], side="right"))
        after = ordered[worse:]
        above = np.add.reduce((after > ordered[index]).view(np.int8), axis=0, dtype=small)
        below = np.add.reduce((after < ordered[index]).view(np.int8), axis=0, dtype=small)
        concordant += above
        concordant -= below
    pairs = count * (count - 1) // 2
    sizes = np.unique(sorted_reference, return_counts=True)[1]
    reference_tied = int((sizes * (sizes - 1) // 2).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: Floats = concordant / np.sqrt(float(pairs - reference_tied) * (pairs - tied))
    return tau
