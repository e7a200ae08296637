"""Other published answers to "who is better": permutation test, significance score, critical difference, Bayesian
test."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ranking.agreement import compute_concordance
from ranking.document import CriticalDifference, Decathlon, PairwiseProbability, PermutationRanking
from ranking.draws import draw_uniform, make_stream
from ranking.final import find_order
from ranking.ranks import compute_average_ranks, compute_min_ranks
from ranking.separate import find_groups

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_PERMUTATIONS = 10_000
_BATCH = 500
_BAYES_DRAWS = 2_000
_ROPE = 0.5


def compute_permutation_ranking(case_sums: Ints, metrics: int, seed: int) -> PermutationRanking:
    """Per-case ranking over all cases of all sites, with a paired permutation test (Bakas et al. 2018).

    The difference of two submissions in a case changes its sign at random; p is the share of permutations (the
    observed order counted among them) with a mean difference at least as large as observed.

    Parameters
    ----------
    case_sums : ndarray of int, shape (A, N)
        Sum of the M per-case ranks of each submission, all cases of all sites; every submission present everywhere.
    metrics : int
        M.
    """
    count, cases = case_sums.shape
    totals = case_sums.sum(axis=1)
    first, second = np.triu_indices(count, 1)
    differences = (case_sums[second] - case_sums[first]).astype(np.float32)  # positive: first is better
    observed = (totals[second] - totals[first]).astype(np.float32)
    above = np.ones(len(first), dtype=np.int64)
    below = np.ones(len(first), dtype=np.int64)
    stream = make_stream(seed, "permutation")
    for _ in range(_PERMUTATIONS // _BATCH):
        signs = np.where(draw_uniform(stream, cases * _BATCH) < 0.5, np.float32(-1), np.float32(1))
        permuted = differences @ signs.reshape(cases, _BATCH)  # integers below 2**24: exact
        above += (permuted >= observed[:, None]).sum(axis=1)
        below += (permuted <= observed[:, None]).sum(axis=1)
    p = np.ones((count, count))
    p[first, second] = above / (_PERMUTATIONS + 1)
    p[second, first] = below / (_PERMUTATIONS + 1)
    return {
        "permutations": _PERMUTATIONS,
        "mean_rank": [int(total) / (metrics * cases) for total in totals],
        "rank": compute_min_ranks(totals).tolist(),
        "p": p.tolist(),
    }


def compute_decathlon(shares_beaten: Floats) -> Decathlon:
    """Significance score of the Medical Segmentation Decathlon: opponents beaten, mean over sites and metrics.

    Parameters
    ----------
    shares_beaten : ndarray of float64, shape (S, M, A)
        Share of opponents beaten (unadjusted), NaN where absent; absent counts as none.
    """
    present = (~np.isnan(shares_beaten)).any(axis=1).sum(axis=1)
    opponents = np.maximum(1, present - 1)  # a site where some are absent has fewer
    wins = np.rint(np.nan_to_num(shares_beaten) * opponents[:, None, None]).astype(np.int64).sum(axis=1)
    units = shares_beaten.shape[0] * shares_beaten.shape[1]
    scores = [
        sum((Fraction(won, others) for won, others in zip(column, opponents.tolist(), strict=True)), Fraction(0))
        / units
        for column in wins.T.tolist()
    ]
    levels = {score: level for level, score in enumerate(sorted(set(scores)))}
    return {
        "score": [float(score) for score in scores],
        "rank": compute_min_ranks(np.array([levels[score] for score in scores]), higher_is_better=True).tolist(),
    }


def compute_critical_difference(rank_sums: Ints) -> CriticalDifference | None:
    """Friedman's test over sites and Nemenyi's critical difference at 5 % (Demsar 2006).

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)

    Returns
    -------
    CriticalDifference or None
        None with one site or one submission.
    """
    sites, count = rank_sums.shape
    if sites < 2 or count < 2:
        return None
    from scipy.stats import studentized_range

    ranks = compute_average_ranks(np.ascontiguousarray(rank_sums.T))
    average = ranks.mean(axis=1)
    quantile = float(studentized_range.ppf(0.95, count, np.inf)) / np.sqrt(2.0)
    difference = float(quantile * np.sqrt(count * (count + 1) / (6.0 * sites)))
    concordance = compute_concordance(ranks)
    separated = np.abs(average[:, None] - average[None, :]) > difference
    return {
        "average_rank": average.tolist(),
        "critical_difference": difference,
        "friedman_p": concordance[1] if concordance else None,
        "cliques": [group for group in find_groups(find_order(average), separated) if len(group) > 1],
    }


def compute_bayesian_signed_rank(
    rank_sums: Ints, metrics: int, seed: int, rope: float = _ROPE
) -> PairwiseProbability | None:
    """Bayesian signed-rank test of every pair over sites, with a region of practical equivalence (Benavoli et al.
    2017).

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)
    metrics : int
        M.
    rope : float
        Half width of the region of practical equivalence, in mean ranks.
    """
    sites, count = rank_sums.shape
    if sites < 2 or count < 2:
        return None
    weights = _draw_dirichlet(sites, make_stream(seed, "bayes"))
    better = np.zeros((count, count))
    equivalent = np.eye(count)
    for first, second in zip(*np.triu_indices(count, 1), strict=True):
        # Positive: the first has the smaller rank sum. The prior's pseudo-observation of 0 comes first.
        difference = np.concatenate([[0], rank_sums[:, second] - rank_sums[:, first]])
        walsh = difference[:, None] + difference[None, :]
        bound = 2.0 * rope * metrics
        left = np.einsum("bi,bi->b", weights @ (walsh > bound), weights)
        right = np.einsum("bi,bi->b", weights @ (walsh < -bound), weights)
        inside = 1.0 - left - right
        winner = np.argmax(np.stack([inside, left, right]), axis=0)
        equivalent[first, second] = equivalent[second, first] = float((winner == 0).mean())
        better[first, second] = float((winner == 1).mean())
        better[second, first] = float((winner == 2).mean())
    return {
        "rope": rope,
        "draws": _BAYES_DRAWS,
        "better": better.tolist(),
        "equivalent": equivalent.tolist(),
    }


def _draw_dirichlet(sites: int, stream: np.random.PCG64) -> Floats:
    """Weights [draws, 1 + S] of a Dirichlet distribution with parameters (1/2, 1, ..., 1).

    The prior's pseudo-observation has strength 1/2, as Benavoli et al. recommend.
    """
    # A gamma variable of shape 1/2 is half a squared normal, one of shape 1 is exponential.
    prior = ndtri(draw_uniform(stream, _BAYES_DRAWS)) ** 2 / 2.0
    data = -np.log(draw_uniform(stream, _BAYES_DRAWS * sites)).reshape(_BAYES_DRAWS, sites)
    gammas = np.concatenate([prior[:, None], data], axis=1)
    weights: Floats = gammas / gammas.sum(axis=1, keepdims=True)
    return weights
