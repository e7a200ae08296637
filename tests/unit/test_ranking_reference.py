"""A slow, plain implementation of the published ranking (fractions, loops), and hand-worked values that it must give.

The other ranking tests compare the package with it on random tables. It is written from the specification, one case and
one pair at a time, and shares no code with the package.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest

Column = Sequence[float]
"""Values of one submission, case by case."""


def rank_min(numbers: Sequence[float | Fraction], higher_is_better: bool = False) -> list[int]:
    """1, 2, 2, 4."""
    if higher_is_better:
        return [1 + sum(other > number for other in numbers) for number in numbers]
    return [1 + sum(other < number for other in numbers) for number in numbers]


def rank_average(numbers: Sequence[float | Fraction]) -> list[float]:
    """1, 2.5, 2.5, 4."""
    return [
        (1 + sum(other < number for other in numbers) + sum(other <= number for other in numbers)) / 2
        for number in numbers
    ]


def mean_once(values: Column) -> float:
    """Exact sum, exact quotient, rounded once."""
    return float(sum((Fraction(value) for value in values), Fraction(0)) / len(values))


def rank_cases(columns: Sequence[Column], higher_is_better: bool) -> list[list[int]]:
    """Ranks within each case: [case][submission]."""
    return [rank_min(case, higher_is_better) for case in zip(*columns, strict=True)]


def one_sided_p(first: Column, second: Column, higher_is_better: bool) -> float:
    """p-value of "first is superior to second"."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    differences = [d for d in differences if d == d and d != 0]
    n = len(differences)
    if n == 0:
        return 1.0
    sizes = [abs(d) for d in differences]
    ranks = rank_average(sizes)
    v = sum(rank for d, rank in zip(differences, ranks, strict=True) if d > 0)
    ties = sum(sizes.count(size) ** 3 - sizes.count(size) for size in set(sizes))
    z = v - n * (n + 1) / 4
    sigma = math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48)
    # Phi(x) = erfc(-x / sqrt 2) / 2
    if higher_is_better:
        return math.erfc((z - 0.5) / sigma / math.sqrt(2)) / 2
    return math.erfc(-(z + 0.5) / sigma / math.sqrt(2)) / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def count_wins(columns: Sequence[Column], higher_is_better: bool) -> list[int]:
    """Opponents beaten at an unadjusted p of at most 0.05."""
    return [
        sum(one_sided_p(first, second, higher_is_better) <= 0.05 for second in columns if second is not first)
        for first in columns
    ]


def significance(columns: Sequence[Column], higher_is_better: bool) -> list[list[int]]:
    """1 where row beats column after Holm over all ordered pairs."""
    count = len(columns)
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    adjusted = holm([one_sided_p(columns[a], columns[b], higher_is_better) for a, b in pairs])
    matrix = [[0] * count for _ in range(count)]
    for (a, b), p in zip(pairs, adjusted, strict=True):
        matrix[a][b] = int(p <= 0.05)
    return matrix


def sub_ranks(method: str, columns: Sequence[Column], higher_is_better: bool) -> list[int]:
    """Ranks of one sub-ranking, ties = min."""
    if method == "rankThenMean":
        return rank_min([Fraction(sum(ranks)) for ranks in zip(*rank_cases(columns, higher_is_better), strict=True)])
    if method == "rankThenMedian":
        by_submission = zip(*rank_cases(columns, higher_is_better), strict=True)
        return rank_min([float(statistics.median(ranks)) for ranks in by_submission])
    if method == "aggregateThenMean":
        return rank_min([mean_once(column) for column in columns], higher_is_better)
    if method == "aggregateThenMedian":
        return rank_min([statistics.median(column) for column in columns], higher_is_better)
    return rank_min(count_wins(columns, higher_is_better), True)


def test_ranks_of_ties() -> None:
    assert rank_min([3.0, 1.0, 3.0, 9.0]) == [2, 1, 2, 4]
    assert rank_min([3.0, 1.0, 3.0, 9.0], higher_is_better=True) == [2, 4, 2, 1]
    assert rank_average([3.0, 1.0, 3.0, 9.0]) == [2.5, 1.0, 2.5, 4.0]


def test_p_value_by_hand() -> None:
    # d = 1, -2, 3, 4: ranks 1..4, V = 8, n = 4, z = 8 - 5 = 3, sigma = sqrt(4*5*9/24) = sqrt 7.5
    p = one_sided_p([1, 0, 3, 4], [0, 2, 0, 0], higher_is_better=True)
    assert p == pytest.approx(1 - statistics.NormalDist().cdf(2.5 / math.sqrt(7.5)), rel=1e-12)
    # the same as a distance: "first is smaller" has p = Phi((3 + 0.5) / sigma)
    p = one_sided_p([1, 0, 3, 4], [0, 2, 0, 0], higher_is_better=False)
    assert p == pytest.approx(statistics.NormalDist().cdf(3.5 / math.sqrt(7.5)), rel=1e-12)


def test_tied_differences_by_hand() -> None:
    # d = 1, 1, -1, 2 and one zero: ranks 2, 2, 2, 4; V = 8; z = 8 - 5; sigma^2 = 7.5 - (27 - 3) / 48 = 7
    p = one_sided_p([1, 1, 0, 2, 5], [0, 0, 1, 0, 5], higher_is_better=True)
    assert p == pytest.approx(1 - statistics.NormalDist().cdf(2.5 / math.sqrt(7.0)), rel=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
