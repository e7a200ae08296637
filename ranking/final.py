"""The final ranking over sites, and how it moves without a site or with other weights. All on integers, so ties are
ties.

The site's part is the sum of its M sub ranks, T [S, A]; the mean rank of a submission over sites is its total / (M S).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ranking.document import LeftOut, WeightedRanking, WorstSite
from ranking.exact import compute_extended_mean
from ranking.ranks import compute_average_ranks, compute_min_ranks, compute_tau

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FinalTies = Literal["average", "min"]


def compute_final_ranks(totals: npt.NDArray[np.generic], ties: FinalTies = "average") -> Floats:
    """Rank totals, smallest first.

    Parameters
    ----------
    totals : ndarray, shape (A,) or (A, B)
        Integers (or numbers that compare exactly).
    ties : str
        ``average`` as published, or ``min``.
    """
    if ties == "min":
        return compute_min_ranks(totals).astype(np.float64)
    return compute_average_ranks(totals)


def compute_mean_ranks(rank_sums: Ints, metrics: int) -> Floats:
    """Mean rank over metrics and sites, the exact quotient rounded once.

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)
    metrics : int
        M.
    """
    total = rank_sums.sum(axis=0)
    return np.array([int(value) / (metrics * len(rank_sums)) for value in total])


def compute_upstream_mean_ranks(ranks: npt.NDArray[np.integer]) -> Floats:
    """Mean rank as the R script takes it: means of means in 80-bit numbers, each made a double (``--ties upstream``).

    Parameters
    ----------
    ranks : ndarray of int, shape (S, M, A)
    """
    sites = [[compute_extended_mean([float(rank) for rank in column]) for column in site.T.tolist()] for site in ranks]
    return np.array([compute_extended_mean(column) for column in zip(*sites, strict=True)])


def find_order(final_ranks: Floats) -> list[int]:
    """Submissions by final rank, ties in order of input."""
    return [int(index) for index in np.argsort(final_ranks, kind="stable")]


def compute_left_out(rank_sums: Ints, full: Floats, ties: FinalTies) -> tuple[list[LeftOut], Floats]:
    """The final ranking without each site.

    Returns
    -------
    entries : list of LeftOut
        One per site; empty with one site.
    shifts : ndarray of float64, shape (A, S)
        Final rank without the site minus the full one.
    """
    if len(rank_sums) < 2:
        return [], np.zeros((rank_sums.shape[1], 0))
    total = rank_sums.sum(axis=0)
    entries: list[LeftOut] = []
    shifts = np.zeros(rank_sums.T.shape)
    for site, sums in enumerate(rank_sums):
        ranks = compute_final_ranks(total - sums, ties)
        shift = ranks - full
        largest = float(np.abs(shift).max())
        shifts[:, site] = shift
        entries.append(
            {
                "site": site,
                "final_rank": ranks.tolist(),
                "changed": int((shift != 0).sum()),
                "largest_shift": largest,
                "most_moved": np.flatnonzero((np.abs(shift) == largest) & (largest > 0)).tolist(),
                "tau": compute_one_tau(full, ranks),
            }
        )
    return entries, shifts


def compute_one_tau(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> float | None:
    """Kendall's tau-b of two rankings; None where one of them ties all."""
    tau = float(compute_tau(first, np.asarray(second)[:, None])[0])
    return None if math.isnan(tau) else tau


def compute_worst_sites(rank_sums: Ints) -> list[WorstSite]:
    """Best, median and worst rank of every submission over sites, and the spread (fairness)."""
    site_ranks = compute_min_ranks(np.ascontiguousarray(rank_sums.T))  # [A, S]
    quantiles = np.quantile(site_ranks, [0.25, 0.5, 0.75, 0.9], axis=1).T
    return [
        {
            "submission": index,
            "best_rank": float(ranks.min()),
            "median_rank": float(median),
            "tenth_percentile_rank": float(tenth),
            "worst_rank": float(ranks.max()),
            "worst_sites": np.flatnonzero(ranks == ranks.max()).tolist(),
            "spread": float(high - low),
        }
        for index, (ranks, (low, median, high, tenth)) in enumerate(zip(site_ranks, quantiles, strict=True))
    ]


def compute_weighted(
    rank_sums: Ints, metrics: int, cases: Sequence[int], ties: FinalTies
) -> dict[str, WeightedRanking]:
    """The final ranking with sites weighted equally, by their cases, and by the square root of their cases.

    Totals are exact (whole numbers, of the doubles of the square roots too), so equal ones tie.
    """
    weightings: dict[str, list[int]] = {
        "equal": [1] * len(cases),
        "cases": list(cases),
        # A double of at least 1, times 2**52, is a whole number.
        "sqrt-cases": [int(math.ldexp(math.sqrt(count), 52)) for count in cases],
    }
    result: dict[str, WeightedRanking] = {}
    equal: Floats | None = None
    for name, weights in weightings.items():
        totals = [
            sum(weight * value for weight, value in zip(weights, column, strict=True))
            for column in rank_sums.T.tolist()
        ]
        levels = {total: level for level, total in enumerate(sorted(set(totals)))}
        ranks = compute_final_ranks(np.array([levels[total] for total in totals]), ties)
        equal = ranks if equal is None else equal
        whole = sum(weights)
        result[name] = {
            "weights": [weight / whole for weight in weights],
            "mean_rank": [total / (metrics * whole) for total in totals],
            "final_rank": ranks.tolist(),
            "tau": compute_one_tau(equal, ranks),
            "changed": int((ranks != equal).sum()),
        }
    return result
