"""The final ranking when cases, sites, or both are drawn again.

``cases``
    The sites are these sites; another sample of their cases would have been possible. Every site's cases are drawn
    again.
``sites``
    The sites are a sample of sites; their own rankings are taken as they are.
``sites+cases``
    Sites are drawn, and each time a site is drawn its cases are drawn again, independently.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ranking.document import FederationBootstrap
from ranking.draws import draw_counts, draw_indices, make_stream
from ranking.final import FinalTies, compute_final_ranks
from ranking.ranks import compute_min_ranks, compute_rank_counts, compute_tau
from ranking.site_share import summarise_tau

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def draw_site_totals(rank_sums: Ints, draws: int, seed: int) -> Ints:
    """Totals [A, B] when sites are drawn with replacement.

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)
    """
    counts = draw_counts(make_stream(seed, "sites"), draws, len(rank_sums)).astype(np.int64)
    totals: Ints = (counts @ rank_sums).T
    return np.ascontiguousarray(totals)


def draw_case_totals(site_sums: list[npt.NDArray[np.int32]]) -> Ints:
    """Totals [A, B] when every site's cases are drawn again; the b-th draws of the sites go together."""
    totals = np.zeros(site_sums[0].shape, dtype=np.int64)
    for sums in site_sums:
        totals += sums
    return totals


def draw_both_totals(site_sums: list[npt.NDArray[np.int32]], seed: int) -> Ints:
    """Totals [A, B] when sites are drawn, and for each drawn site one of its case draws, independently."""
    submissions, draws = site_sums[0].shape
    stream = make_stream(seed, "sites+cases")
    sites = draw_indices(stream, draws * len(site_sums), len(site_sums)).reshape(len(site_sums), draws)
    cases = draw_indices(stream, draws * len(site_sums), draws).reshape(len(site_sums), draws)
    stacked = np.stack(site_sums)
    totals = np.zeros((submissions, draws), dtype=np.int64)
    for chosen, draw in zip(sites, cases, strict=True):
        totals += stacked[chosen, :, draw].T
    return totals


def summarise_totals(full: Ints, totals: Ints, ties: FinalTies) -> FederationBootstrap:
    """Final ranks in every draw, and how often each submission is before each other one.

    Parameters
    ----------
    full : ndarray of int, shape (A,)
        Totals without resampling.
    totals : ndarray of int, shape (A, B)
    """
    ranks = compute_final_ranks(totals, ties)
    places = compute_min_ranks(totals)
    low, median, high = np.quantile(ranks, [0.025, 0.5, 0.975], axis=1)
    better = np.array([((row < totals).mean(axis=1) + (row <= totals).mean(axis=1)) / 2.0 for row in totals])
    return {
        "draws": totals.shape[1],
        "rank_counts": compute_rank_counts(places, len(places)).tolist(),
        "median": median.tolist(),
        "interval": np.stack([low, high], axis=1).tolist(),
        "winner_counts": (places == 1).sum(axis=1).tolist(),
        "tau": summarise_tau(compute_tau(full, places)),
        "better_than": better.tolist(),
    }
