"""The inner sums of :mod:`ranking.signed_rank_draws`, compiled (optional extra ``fast``)."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]


def add_sums_compiled(
    differences: Floats, order: Indices, zeros: Indices, weights: Weights, four_z: Weights, ties: Weights
) -> None:
    """As :func:`ranking.signed_rank_draws.add_sums_plain`: the same integers, in the same arrays."""
    _add_sums(differences, order, zeros, weights, four_z, ties)


@numba.njit(nogil=True)
def _add_sums(
    differences: Floats, order: Indices, zeros: Indices, weights: Weights, four_z: Weights, ties: Weights
) -> None:
    pairs, cases = differences.shape
    samples = weights.shape[1]
    running = np.empty(samples, dtype=weights.dtype)
    size = np.empty(samples, dtype=weights.dtype)
    signed = np.empty(samples, dtype=weights.dtype)
    for pair in range(pairs):
        running[:] = 0
        start = zeros[pair]
        while start < cases:
            difference = abs(differences[pair, order[pair, start]])
            end = start + 1
            while end < cases and abs(differences[pair, order[pair, end]]) == difference:
                end += 1
            if end == start + 1:
                case = order[pair, start]
                if differences[pair, case] > 0:
                    for sample in range(samples):
                        before = running[sample]
                        after = before + weights[case, sample]
                        running[sample] = after
                        four_z[pair, sample] += (before + after) * weights[case, sample]
                else:
                    for sample in range(samples):
                        before = running[sample]
                        after = before + weights[case, sample]
                        running[sample] = after
                        four_z[pair, sample] -= (before + after) * weights[case, sample]
            else:
                size[:] = 0
                signed[:] = 0
                for position in range(start, end):
                    case = order[pair, position]
                    sign = weights.dtype.type(1 if differences[pair, case] > 0 else -1)
                    for sample in range(samples):
                        weight = weights[case, sample]
                        size[sample] += weight
                        signed[sample] += sign * weight
                for sample in range(samples):
                    after = running[sample] + size[sample]
                    four_z[pair, sample] += signed[sample] * (running[sample] + after)
                    running[sample] = after
                    ties[pair, sample] += size[sample] * size[sample] * size[sample] - size[sample]
            start = end
