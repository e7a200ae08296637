"""Wilcoxon tests of all pairs in every bootstrap sample at once.

A sample is given by counts (how often each case was drawn), so a pair is sorted once and not once per sample. With C_g
the number of drawn cases up to the g-th smallest absolute difference, D_g the signed number of drawn cases at it and T
= sum of t^3 - t over its ties, all of them integers,

    4 z = sum over g of D_g (C_g + C_(g-1) + 1),      48 sigma^2 = 2 n (n+1) (2n+1) - T,

and "a beats b at p <= 0.05" is 4z - 2 > 0 and 3 (4z - 2)^2 >= q^2 (48 sigma^2), q the 95 % quantile of the normal.
Samples for which the two sides agree to 1e-9 are decided by the p-value itself, as in :mod:`ranking.wilcoxon`.

The sums over g are done by numpy, or faster by :mod:`ranking.signed_rank_kernel` where numba is installed: the same
integers, so the same result.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from ranking.wilcoxon import ALPHA, compute_p

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

AddSums = Callable[[Floats, Indices, Indices, Weights, Weights, Weights], None]
"""``(differences [Q, n], order [Q, n], zeros [Q], weights [n, B], four_z [Q, B], ties [Q, B]) -> None``: adds to the
last two."""

_QUANTILE = float(ndtri(1.0 - ALPHA))
# Few enough that the blocks stay in the processor's cache.
_PAIRS_AT_ONCE = 16
# Below this many sums the compiler would take longer than numpy.
_WORTH_COMPILING = 1_000_000_000


def compute_win_draws(
    values: Floats, higher_is_better: bool, counts: npt.NDArray[np.integer], add_sums: AddSums | None = None
) -> npt.NDArray[np.int32]:
    """Count, in every sample, the opponents that each submission beats (unadjusted p <= 0.05).

    Parameters
    ----------
    values : ndarray of float64, shape (n, P)
    higher_is_better : bool
    counts : ndarray of int, shape (B, n)
        How often each case is in each sample.
    add_sums : callable, optional
        Which implementation adds the sums; by default :func:`add_sums_plain`.

    Returns
    -------
    ndarray of int32, shape (P, B)
    """
    # The largest sum is of t^3 <= (number of drawn cases)^3: single precision adds that exactly up to 2^24.
    single = int(counts.sum(axis=1).max(initial=0)) ** 3 < 2**24
    weights: Weights = np.ascontiguousarray(counts.T, dtype=np.float32 if single else np.float64)
    cubes = weights * weights * weights - weights
    columns = np.ascontiguousarray(values.T if higher_is_better else -values.T)
    first, second = np.triu_indices(values.shape[1], 1)
    wins = np.zeros((values.shape[1], weights.shape[1]), dtype=np.int32)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        with np.errstate(invalid="ignore", over="ignore"):
            differences = columns[first[block]] - columns[second[block]]
        differences[np.isnan(differences)] = 0.0
        four_z, significant = _compare_block(differences, weights, cubes, add_sums or add_sums_plain)
        up, down = significant & (four_z > 0), significant & (four_z < 0)
        for pair, (left, right) in enumerate(zip(first[block], second[block], strict=True)):
            wins[left] += up[pair]
            wins[right] += down[pair]
    return wins


def is_worth_compiling(pairs: int, cases: int, draws: int) -> bool:
    """Whether so much work (in all metrics and sites together) repays the compiler's start, and numba is there."""
    return pairs * cases * draws >= _WORTH_COMPILING and importlib.util.find_spec("numba") is not None


def find_add_sums(compiled: bool) -> AddSums:
    """The compiled or the plain implementation; their results are the same."""
    if compiled:
        from ranking.signed_rank_kernel import add_sums_compiled

        return add_sums_compiled
    return add_sums_plain


def _compare_block(differences: Floats, weights: Weights, cubes: Weights, add_sums: AddSums) -> tuple[Weights, Bools]:
    """4z of each pair and sample, and whether the better of the two beats the other."""
    sizes = np.abs(differences)
    order = np.argsort(sizes, axis=1, kind="stable")
    ordered = np.take_along_axis(sizes, order, axis=1)
    same = ordered[:, 1:] == ordered[:, :-1]
    alone = np.ones(sizes.shape, dtype=bool)
    alone[:, 1:] &= ~same
    alone[:, :-1] &= ~same
    untied = np.zeros(sizes.shape, dtype=weights.dtype)
    np.put_along_axis(untied, order, alone & (ordered > 0), axis=1)
    nonzero = sizes > 0
    n = nonzero.astype(weights.dtype) @ weights
    four_z: Weights = np.sign(differences).astype(weights.dtype) @ weights
    ties: Weights = untied @ cubes
    add_sums(differences, order, sizes.shape[1] - nonzero.sum(axis=1), weights, four_z, ties)
    return four_z, _decide(four_z, n, ties)


def add_sums_plain(
    differences: Floats, order: Indices, zeros: Indices, weights: Weights, four_z: Weights, ties: Weights
) -> None:
    """Add sum of D_g (C_g + C_(g-1)) to ``four_z`` and t^3 - t of tied groups to ``ties``; in place."""
    rows, samples = weights.shape
    # One allocation for all pairs: fresh ones would cost more than the sums, in page faults.
    buffers = np.empty((4, rows + 1, samples), dtype=weights.dtype)
    for pair in range(len(differences)):
        cases = order[pair, int(zeros[pair]) :]
        if len(cases):
            drawn = np.take(weights, cases, axis=0, out=buffers[0, : len(cases)], mode="clip")
            _add_pair(differences[pair, cases], drawn, buffers[1:], four_z[pair], ties[pair])


def _add_pair(ordered: Floats, drawn: Weights, buffers: Weights, four_z: Weights, ties: Weights) -> None:
    signs = np.sign(ordered).astype(drawn.dtype)
    sizes = np.abs(ordered)
    ends = np.flatnonzero(np.append(sizes[1:] != sizes[:-1], True)) + 1
    running = _add_up(drawn, buffers[0])
    both = buffers[1, : len(ends)]
    if len(ends) == len(ordered):
        np.add(running[1:], running[:-1], out=both)
        both *= drawn
        four_z += signs @ both
        return
    starts = np.concatenate([[0], ends[:-1]])
    many = ends - starts > 1
    np.take(running, ends, axis=0, out=both, mode="clip")
    below = np.take(running, starts, axis=0, out=buffers[2, : len(ends)], mode="clip")
    grouped = both[many] - below[many]
    ties += np.add.reduce(grouped * grouped * grouped - grouped, axis=0)
    if (np.minimum.reduceat(signs, starts) == np.maximum.reduceat(signs, starts)).all():
        # (C_g - C_(g-1)) (C_g + C_(g-1)), with the sign of the group
        both *= both
        below *= below
        four_z += signs[starts] @ both - signs[starts] @ below
    else:
        both += below
        drawn *= signs[:, None]
        signed = _add_up(drawn, buffers[0])
        both *= np.subtract(signed[ends], signed[starts], out=buffers[2, : len(ends)])
        four_z += np.ones(len(ends), dtype=drawn.dtype) @ both


def _add_up(drawn: Weights, buffer: Weights) -> Weights:
    """Running sums along the cases, with a row of zeros in front; row by row, which is quicker than ``cumsum``."""
    running: Weights = buffer[: len(drawn) + 1]
    running[0] = 0.0
    for row, weight in enumerate(drawn):
        np.add(running[row], weight, out=running[row + 1])
    return running


def _decide(four_z: Weights, n: Weights, ties: Weights) -> Bools:
    """Whether |4z| is significant on its own side: p <= 0.05 with the continuity correction."""
    wide = n.astype(np.float64)
    spread = (4.0 * wide + 6.0) * wide
    spread += 2.0
    spread *= wide
    spread -= ties
    excess = np.abs(four_z).astype(np.float64)
    excess -= 2.0
    np.maximum(excess, 0.0, out=excess)
    margin = excess * excess
    margin *= 3.0 / _QUANTILE**2
    margin -= spread
    tolerance = 1e-9 * float(spread.max(initial=0.0)) + 1e-300
    significant = margin >= tolerance
    close = margin > -tolerance
    close ^= significant
    if close.any():
        z, sigma = excess[close] / 4.0 + 0.5, np.sqrt(spread[close] / 48.0)
        significant[close] = compute_p(z, sigma) <= ALPHA
    return significant
