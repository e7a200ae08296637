"""Which submissions can be told apart: simultaneous confidence sets for ranks, over sites.

After Mogstad, Romano, Shaikh and Wilhelm (2024): every pair of submissions is compared, with all pairs as one family,
and the rank of a submission lies between 1 + (number significantly better) and A - (number significantly worse). With
probability 95 % that holds for all submissions together, also where true ranks are tied, where a bootstrap of ranks
fails. Sites are the sample: the difference of two submissions is the mean over sites of the difference of their mean
ranks.

The family is controlled by Holm's correction of paired t-tests. A largest |t| simulated with the correlations of the
data would promise more than it keeps: every pair has its own estimate of variance, and with few sites the estimated
correlations are of low rank. Measured with equal submissions, Holm's first step costs 1 to 3 % of the critical value
that is exact for independent ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from ranking.wilcoxon import compute_holm

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Sums of ranks are integers: two of them differ by at least the spread of two roundings, 2 / 12. Without this floor,
# two or three sites that happen to agree would count as certain.
_LEAST_VARIANCE = 1.0 / 6.0
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Separation:
    """``better`` is bool [A, A]: row is significantly better than column. ``rank_sets`` is int [A, 2]."""

    better: npt.NDArray[np.bool_]
    rank_sets: Ints


def compute_separation(rank_sums: Ints, level: float = 0.95) -> Separation | None:
    """Simultaneous comparison of all pairs over sites: two-sided paired t-tests, corrected by Holm.

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)
        Sum of the sub ranks of each submission at each site.

    Returns
    -------
    Separation or None
        None with fewer than two sites or submissions.
    """
    sites, count = rank_sums.shape
    if sites < 2 or count < 2:
        return None
    first, second = np.triu_indices(count, 1)
    differences = (rank_sums[:, first] - rank_sums[:, second]).astype(np.float64)
    means = differences.mean(axis=0)
    variance = np.maximum(differences.var(axis=0, ddof=1), _LEAST_VARIANCE)
    statistic = means / np.sqrt(variance / sites)
    separated = compute_holm(2.0 * stdtr(sites - 1, -np.abs(statistic))) <= 1.0 - level
    better = np.zeros((count, count), dtype=bool)
    better[first, second] = separated & (means < 0)
    better[second, first] = separated & (means > 0)
    low = 1 + better.sum(axis=0)
    high = count - better.sum(axis=1)
    return Separation(better, np.stack([low, high], axis=1))


def find_groups(order: list[int], separated: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Runs of submissions, in order of final rank, within which no pair is separated; none within another.

    Parameters
    ----------
    order : list of int
        Submissions, best first.
    separated : ndarray of bool, shape (A, A)
        Symmetric.
    """
    groups: list[list[int]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and not separated[order[end], order[start:end]].any():
            end += 1
        if end > reached:
            groups.append(order[start:end])
            reached = end
    return groups


def format_groups(groups: list[list[int]], count: int) -> list[str]:
    """Letters of each submission: one per group that it is in."""
    names = [_LETTERS[index] if index < len(_LETTERS) else f"({index + 1})" for index in range(len(groups))]
    return [
        "".join(name for name, group in zip(names, groups, strict=True) if member in group) for member in range(count)
    ]
