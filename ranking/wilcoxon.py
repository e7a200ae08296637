"""Wilcoxon signed-rank tests of all pairs at once, and Holm's correction, as the published ranking uses them.

Zeros are dropped (Wilcoxon's rule, not Pratt's), tied absolute differences share their average rank, the normal
approximation with continuity correction is used at every n, one-sided. n = 0 gives p = 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import erfcx

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
_BLOCK = 2_000_000
_SQRT_HALF = np.sqrt(0.5)


class PairTests(NamedTuple):
    """All ordered pairs of one sub-ranking; entries [a, b] are of "a is superior to b", the diagonals are 1."""

    p: Floats
    p_holm: Floats

    @property
    def beats(self) -> npt.NDArray[np.bool_]:
        """Unadjusted p <= 0.05, off the diagonal."""
        return self.p <= ALPHA

    @property
    def significant(self) -> npt.NDArray[np.bool_]:
        """Holm-adjusted p <= 0.05, off the diagonal."""
        return self.p_holm <= ALPHA


def compute_pair_tests(values: Floats, higher_is_better: bool) -> PairTests:
    """Test every ordered pair of submissions of one metric at one site.

    Parameters
    ----------
    values : ndarray of float64, shape (n, P)
        Missing values replaced.
    higher_is_better : bool
        Direction of the metric.

    Returns
    -------
    PairTests
        Arrays of shape (P, P).
    """
    count = values.shape[1]
    first, second = np.triu_indices(count, 1)
    z, sigma = compute_signed_ranks(values, first, second)
    if not higher_is_better:
        z = -z
    p = np.ones((count, count))
    p[first, second] = compute_p(z, sigma)
    p[second, first] = compute_p(-z, sigma)
    p_holm = np.ones((count, count))
    off = ~np.eye(count, dtype=bool)
    p_holm[off] = compute_holm(p[off])
    return PairTests(p, p_holm)


def compute_signed_ranks(
    values: Floats, first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Centred rank sum and its standard deviation for pairs of columns.

    Parameters
    ----------
    values : ndarray of float64, shape (n, P)
    first, second : ndarray of int, shape (Q,)
        Columns of each pair; the difference is first - second.

    Returns
    -------
    z : ndarray of float64, shape (Q,)
        Sum of the ranks of positive differences minus n(n+1)/4; exact (a multiple of 1/4).
    sigma : ndarray of float64, shape (Q,)
        sqrt(n(n+1)(2n+1)/24 - sum(t^3 - t)/48); 0 when all differences are zero.
    """
    z, sigma = np.empty(len(first)), np.empty(len(first))
    step = max(1, _BLOCK // max(1, len(values)))
    columns = np.ascontiguousarray(values.T)
    for start in range(0, len(first), step):
        block = slice(start, start + step)
        z[block], sigma[block] = _sum_block(columns[first[block]], columns[second[block]])
    return z, sigma


def _sum_block(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    with np.errstate(invalid="ignore", over="ignore"):
        differences = left - right
    differences[np.isnan(differences)] = 0.0  # inf - inf is dropped, as zeros are
    # A double's bits order as its absolute value does once the sign bit is gone. Shifted left, they leave the lowest
    # bit for "positive", so one sort of integers sorts the differences and carries their signs along.
    keys = (differences.view(np.uint64) << np.uint64(1)) | (differences > 0)
    keys.sort(axis=1)
    positive = (keys & np.uint64(1)).astype(bool)
    keys >>= np.uint64(1)
    length = keys.shape[1]
    zeros = (keys == 0).sum(axis=1)
    n = length - zeros
    starts = np.ones(keys.shape, dtype=bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=starts[:, 1:])
    positions = np.arange(length)
    tied = (~starts & (keys > 0)).any(axis=1)
    twice_rank = np.broadcast_to(2 * (positions + 1), keys.shape)
    twice_sum = np.einsum("ij,ij->i", positive, twice_rank) - 2 * zeros * positive.sum(axis=1)
    ties = np.zeros(len(keys), dtype=np.int64)
    if tied.any():
        begin, end = _find_runs(starts[tied])
        shared = positive[tied] * (begin + end + 2 - 2 * zeros[tied, None])
        twice_sum[tied] = shared.sum(axis=1)
        size = end - begin + 1
        ties[tied] = ((size * size - 1) * (keys[tied] > 0)).sum(axis=1)  # over a run of t: t(t^2 - 1)
    z = twice_sum / 2.0 - n * (n + 1) / 4.0
    sigma = np.sqrt(n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0)
    return z, sigma


def _find_runs(starts: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First and last position of the run that each position belongs to, row by row."""
    positions = np.arange(starts.shape[1])
    begin = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
    ends = np.concatenate([starts[:, 1:], np.ones((len(starts), 1), dtype=bool)], axis=1)
    end = np.minimum.accumulate(np.where(ends, positions, starts.shape[1])[:, ::-1], axis=1)[:, ::-1]
    return begin, end


def compute_p(z: Floats, sigma: Floats) -> Floats:
    """One-sided p-value of "larger", with continuity correction; 1 where sigma is 0 (nothing differs)."""
    flat = sigma == 0
    return np.where(flat, 1.0, compute_upper_tail((z - 0.5) / np.where(flat, 1.0, sigma)))


def compute_upper_tail(x: Floats) -> Floats:
    """1 - Phi(x), right to a few 1e-16 relative also in the far tail.

    exp(-x^2/2) is split in two factors with an exactly representable first exponent (Cody 1969), because rounding
    x^2 would cost up to x^2/2 units in the last place.
    """
    size = np.abs(x)
    coarse = np.trunc(size * 16.0) / 16.0
    rest = (size - coarse) * (size + coarse)
    tail = 0.5 * np.exp(-0.5 * coarse * coarse) * np.exp(-0.5 * rest) * erfcx(size * _SQRT_HALF)
    p: Floats = np.where(x < 0, 1.0 - tail, tail)
    return p


def compute_holm(p: Floats) -> Floats:
    """Holm's adjusted p-values of one family (Holm 1979): cumulative maximum of (m - i + 1) p_(i), at most 1."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
