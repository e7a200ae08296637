"""Means that are rounded once, whatever the processor.

Ranks are decided by ``==`` on doubles, so the rounding of a mean decides ties. Here every sum is exact: a double is
split into integer limbs of 26 bits, sums of limbs (also weighted by counts, also by a matrix product) are integers
below 2**53 and thus exact in any order of addition, and where two means are close the quotient is taken of Python
integers, which Python rounds correctly. The result is what ``fractions`` would give, on every platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_LIMB_BITS = 26
# Sums of fewer values than this stay exact in a double: 2**26 * 2**27 = 2**53.
_MAX_WEIGHT = 2**27
# Approximate means are right to a few 1e-16; closer than this (relative) they are compared exactly.
_NEAR = 1e-12


class Limbs(NamedTuple):
    """``values == sum(limb * 2.0 ** exponent)``, exactly; limbs are integer-valued doubles below 2**26, largest
    exponent first."""

    limbs: list[Floats]
    exponents: list[int]


def compute_limbs(values: Floats) -> Limbs:
    """Split finite doubles into integer limbs.

    Parameters
    ----------
    values : ndarray of float64
        Any shape, finite.
    """
    rest = values.astype(np.float64, copy=True)
    exponent = int(np.frexp(np.abs(rest).max(initial=0.0))[1]) - _LIMB_BITS
    limbs: list[Floats] = []
    exponents: list[int] = []
    while True:
        limb = np.trunc(np.ldexp(rest, -exponent))
        rest = rest - np.ldexp(limb, exponent)
        limbs.append(limb)
        exponents.append(exponent)
        exponent -= _LIMB_BITS
        if not rest.any():
            return Limbs(limbs, exponents)


def compute_means(values: Floats, counts: npt.NDArray[np.integer] | None = None) -> Floats:
    """Mean of every column, rounded once.

    Parameters
    ----------
    values : ndarray of float64, shape (n, A)
        Infinities allowed: such a mean is infinite, or NaN when both signs meet.
    counts : ndarray of int, shape (B, n), optional
        How often each row counts, in each of B samples; every sample has at least one row. Without it each row
        counts once.

    Returns
    -------
    ndarray of float64, shape (B, A), or (A,) without counts
        Without counts: the exact quotient, rounded once. With counts: equal, larger or smaller within a sample
        exactly as the once-rounded means are, and right to 1e-15 (enough to rank; much quicker).
    """
    if counts is None:
        return _compute_plain_means(values)
    weights = counts.astype(np.float64)
    total = weights.sum(axis=1)
    if total.max(initial=0.0) >= _MAX_WEIGHT:
        raise ValueError(f"a sample has {total.max():.0f} rows, at most {_MAX_WEIGHT - 1} can be added exactly")
    finite = np.isfinite(values)
    split = compute_limbs(np.where(finite, values, 0.0))
    sums = [weights @ limb for limb in split.limbs]
    means = _approximate(sums, split.exponents, total[:, None])
    size = _approximate([weights @ np.abs(limb) for limb in split.limbs], split.exponents, total[:, None])
    _settle_ties(means, sums, split.exponents, total, size.max(axis=1))
    if not finite.all():
        _set_infinite(means, weights, values)
    return means


def _compute_plain_means(values: Floats) -> Floats:
    finite = np.isfinite(values)
    split = compute_limbs(np.where(finite, values, 0.0))
    sums = [limb.sum(axis=0) for limb in split.limbs]
    means = np.array([_divide(sums, split.exponents, (column,), len(values)) for column in range(values.shape[1])])
    if not finite.all():
        _set_infinite(means[None, :], np.ones((1, len(values))), values)
    return means


def _approximate(sums: Sequence[Floats], exponents: Sequence[int], total: Floats) -> Floats:
    """Quotient to a few 1e-16 of the largest term; no overflow, as the division comes first."""
    result = np.zeros_like(sums[0])
    for limb_sum, exponent in zip(reversed(sums), reversed(exponents), strict=True):
        result += np.ldexp(limb_sum / total, exponent)
    return result


def _settle_ties(means: Floats, sums: Sequence[Floats], exponents: Sequence[int], total: Floats, size: Floats) -> None:
    """Make means that are close to another one of their sample compare as the once-rounded quotients do; in place."""
    order = np.argsort(means, axis=1, kind="stable")
    ordered = np.take_along_axis(means, order, axis=1)
    near = np.diff(ordered, axis=1) <= _NEAR * size[:, None]
    samples = np.flatnonzero(near.any(axis=1))
    if not samples.size:
        return
    order, near = order[samples], near[samples]
    carried = _carry([np.take_along_axis(limb_sum[samples], order, axis=1) for limb_sum in sums])
    equal = near.copy()
    for limb_sum in carried:
        equal &= limb_sum[:, 1:] == limb_sum[:, :-1]
    # A run of equal exact sums takes the value of its first member, so that == holds.
    starts = np.concatenate([np.ones((len(samples), 1), dtype=bool), ~equal], axis=1)
    first = np.maximum.accumulate(np.where(starts, np.arange(order.shape[1]), 0), axis=1)
    settled = np.take_along_axis(ordered[samples], first, axis=1)
    close = near & ~equal
    for row in np.flatnonzero(close.any(axis=1)):
        inside = np.concatenate([[False], near[row]]) | np.concatenate([near[row], [False]])
        for column in np.flatnonzero(inside):
            place = (int(samples[row]), int(order[row, column]))
            settled[row, column] = _divide(sums, exponents, place, int(total[samples[row]]))
    means[samples[:, None], order] = settled


def _carry(sums: list[Floats]) -> list[Floats]:
    """Bring limb sums to their unique form, so that equal sums have equal limbs."""
    base = float(2**_LIMB_BITS)
    carried = list(sums)
    for index in range(len(carried) - 1, 0, -1):
        over = np.floor(carried[index] / base)
        carried[index] = carried[index] - over * base
        carried[index - 1] = carried[index - 1] + over
    return carried


def _divide(sums: Sequence[Floats], exponents: Sequence[int], place: tuple[int, ...], divisor: int) -> float:
    lowest = exponents[-1]
    numerator = sum(
        int(limb_sum[place]) << (exponent - lowest) for limb_sum, exponent in zip(sums, exponents, strict=True)
    )
    # Python's int / int is correctly rounded (half to even), also into the subnormal range.
    return (numerator << lowest) / divisor if lowest >= 0 else numerator / (divisor << -lowest)


def _set_infinite(means: Floats, weights: Floats, values: Floats) -> None:
    above = weights @ (values == np.inf) > 0
    below = weights @ (values == -np.inf) > 0
    means[above] = np.inf
    means[below] = -np.inf
    means[above & below] = np.nan


def compute_extended_mean(values: Sequence[float]) -> float:
    """Mean as R's ``colMeans`` takes it on a PC: added and divided in 80-bit numbers (64-bit mantissa), then made a
    double.

    Emulated on integers, so it is the same on every processor. Only for ``--ties upstream``, which reproduces the
    published tool's habit of separating equal mean ranks.
    """
    total = Fraction(0)
    for value in values:
        total = round_to_bits(total + Fraction(value), 64)
    return float(round_to_bits(total / len(values), 64))


def round_to_bits(number: Fraction, bits: int) -> Fraction:
    """Round to a mantissa of so many bits, half to even."""
    if number == 0:
        return number
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - bits
    unit = Fraction(2) ** exponent
    if size / unit >= 2**bits:
        unit *= 2
    return round(number / unit) * unit
