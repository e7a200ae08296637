"""How much the sites agree: Kendall's tau-b between sites, Kendall's W, and a dendrogram."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from ranking.document import Dendrogram, Heterogeneity
from ranking.ranks import compute_average_ranks

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def compute_heterogeneity(rank_sums: Ints) -> Heterogeneity | None:
    """Agreement of the sites' rankings.

    Parameters
    ----------
    rank_sums : ndarray of int, shape (S, A)

    Returns
    -------
    Heterogeneity or None
        None with one site or one submission.
    """
    sites, count = rank_sums.shape
    if sites < 2 or count < 2:
        return None
    columns = np.ascontiguousarray(rank_sums.T)
    tau = compute_tau_matrix(rank_sums)
    pairs = tau[np.triu_indices(sites, 1)]
    defined = pairs[~np.isnan(pairs)]
    concordance = compute_concordance(compute_average_ranks(columns))
    return {
        "tau": [[None if math.isnan(value) else value for value in row] for row in tau.tolist()],
        "mean_tau": float(defined.mean()) if defined.size else None,
        "kendall_w": concordance[0] if concordance else None,
        "kendall_w_p": concordance[1] if concordance else None,
    }


def compute_tau_matrix(scores: Ints) -> Floats:
    """Kendall's tau-b between all pairs of rows.

    Parameters
    ----------
    scores : ndarray of int, shape (S, A)

    Returns
    -------
    ndarray of float64, shape (S, S)
        NaN where a row ties all.
    """
    first, second = np.triu_indices(scores.shape[1], 1)
    signs = np.sign(scores[:, first] - scores[:, second]).astype(np.float64)
    untied = np.abs(signs).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: Floats = (signs @ signs.T) / np.sqrt(untied[:, None] * untied[None, :])
    return tau


def compute_concordance(ranks: Floats) -> tuple[float, float] | None:
    """Kendall's W corrected for ties, and its chi-square p-value (Friedman's test).

    Parameters
    ----------
    ranks : ndarray of float64, shape (A, S)
        Ranks within each site, ties = average.

    Returns
    -------
    tuple of float, or None
        None where every site ties all submissions.
    """
    count, sites = ranks.shape
    sums = ranks.sum(axis=1)
    spread = float(((sums - sums.mean()) ** 2).sum())
    ties = 0
    for column in ranks.T:
        sizes = np.unique(column, return_counts=True)[1]
        ties += int((sizes**3 - sizes).sum())
    whole = sites**2 * (count**3 - count) - sites * ties
    if whole == 0:
        return None
    concordance = 12.0 * spread / whole
    return concordance, float(chdtrc(count - 1, sites * (count - 1) * concordance))


def compute_dendrogram(rank_sums: Ints) -> Dendrogram | None:
    """Sites clustered by Spearman's footrule between their rankings, average linkage.

    The published report names that distance in its text while its code takes the symmetric difference of sets.

    Returns
    -------
    Dendrogram or None
        None with fewer than three sites.
    """
    sites, count = rank_sums.shape
    if sites < 3:
        return None
    from scipy.cluster.hierarchy import leaves_list, linkage

    ranks = compute_average_ranks(np.ascontiguousarray(rank_sums.T)).T
    first, second = np.triu_indices(sites, 1)
    distances = np.abs(ranks[first] - ranks[second]).sum(axis=1) / count
    tree = linkage(distances, "average")
    return {
        "distance": "Spearman's footrule between the sites' rankings, per submission (mean difference in rank)",
        "linkage_method": "average",
        "linkage": tree.tolist(),
        "leaves": [int(leaf) for leaf in leaves_list(tree)],
    }
