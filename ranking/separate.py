"""Which submissions can be told apart: simultaneous confidence sets for ranks, over sites.

After Mogstad, Romano, Shaikh and Wilhelm (2024): every pair of submissions is compared, with one critical value for
all pairs at once, and the rank of a submission lies between 1 + (number significantly better) and A - (number
significantly worse). With probability 95 % that holds for all submissions together, also where true ranks are tied,
where a bootstrap of ranks fails. Sites are the sample: the difference of two submissions is the mean over sites of the
difference of their mean ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from ranking.draws import draw_uniform, make_stream

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SIMULATIONS = 4000
_PAIRS_AT_ONCE = 2000
# Sums of ranks are integers: two of them differ by at least the spread of two roundings, 2 / 12. Without this floor,
# two or three sites that happen to agree would count as certain.
_LEAST_VARIANCE = 1.0 / 6.0
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Separation:
    """``better`` is bool [A, A]: row is significantly better than column. ``rank_sets`` is int [A, 2]."""

    better: npt.NDArray[np.bool_]
    rank_sets: Ints


def compute_separation(rank_sums: Ints, seed: int, level: float = 0.95) -> Separation | None:
    """Simultaneous comparison of all pairs over sites.

    The critical value is the quantile of the largest |t| over pairs, simulated from a multivariate t with S - 1
    degrees of freedom and the correlations of the data.

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
    normals, chi = _draw_normals(sites, seed)
    largest = np.zeros(_SIMULATIONS)
    statistic = np.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        differences = (rank_sums[:, first[block]] - rank_sums[:, second[block]]).T.astype(np.float64)
        means = differences.mean(axis=1)
        centred = differences - means[:, None]
        variance = np.maximum((centred**2).sum(axis=1) / (sites - 1), _LEAST_VARIANCE)
        statistic[block] = means / np.sqrt(variance / sites)
        scaled = centred / np.sqrt((sites - 1) * variance)[:, None]
        # Where the floor holds, the variance that the data lack is simulated by one more normal.
        lacking = np.sqrt(np.maximum(0.0, 1.0 - (scaled**2).sum(axis=1)))
        simulated = np.concatenate([scaled, lacking[:, None]], axis=1) @ normals
        np.maximum(largest, np.abs(simulated).max(axis=0), out=largest)
    critical = float(np.quantile(largest / chi, level))
    better = np.zeros((count, count), dtype=bool)
    better[first, second] = statistic < -critical
    better[second, first] = statistic > critical
    low = 1 + better.sum(axis=0)
    high = count - better.sum(axis=1)
    return Separation(better, np.stack([low, high], axis=1))


def _draw_normals(sites: int, seed: int) -> tuple[Floats, Floats]:
    """Normals [S + 1, simulations], and for each simulation sqrt(chi^2 / df), df = S - 1."""
    stream = make_stream(seed, "separation")
    normals: Floats = ndtri(draw_uniform(stream, (sites + 1) * _SIMULATIONS)).reshape(sites + 1, _SIMULATIONS)
    degrees = sites - 1
    chi: Floats = np.sqrt(chdtri(degrees, draw_uniform(stream, _SIMULATIONS)) / degrees)
    return normals, chi


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
