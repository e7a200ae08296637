"""The five methods, tests and final ranks: by hand, and against the plain implementation on random tables."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from scipy.stats import wilcoxon as scipy_wilcoxon

from ranking.exact import compute_extended_mean, compute_limbs, compute_means, round_to_bits
from ranking.final import compute_final_ranks, compute_mean_ranks, compute_upstream_mean_ranks
from ranking.methods import compute_case_ranks, compute_middle, compute_sub_ranking
from ranking.ranks import compute_average_ranks, compute_min_ranks, compute_rank_counts, compute_tau
from ranking.rules import METHODS
from ranking.wilcoxon import compute_holm, compute_pair_tests, compute_upper_tail
from tests.unit import test_ranking_reference as plain

Table = npt.NDArray[np.float64]


def make_table(rng: np.random.Generator, kind: int) -> Table:
    """Random tables with many ties, decimals that do not add up, few ties, penalties, and permuted columns."""
    cases, count = int(rng.integers(1, 25)), int(rng.integers(1, 7))
    if kind == 0:
        return rng.integers(0, 5, (cases, count)) / 10.0
    if kind == 1:
        return rng.normal(size=(cases, count)).round(2)
    if kind == 2:
        return rng.normal(size=(cases, count))
    if kind == 3:
        return rng.choice([0.0, 1000.0, 374.0, 0.1, 0.7], (cases, count))
    column = rng.normal(size=cases)
    return np.stack([rng.permutation(column) for _ in range(count)], axis=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", range(5))
def test_methods_equal_the_plain_ones(method: str, kind: int) -> None:
    rng = np.random.default_rng([kind, METHODS.index(method)])
    for _ in range(25):
        table = make_table(rng, kind)
        for higher in (True, False):
            expected = plain.sub_ranks(method, table.T.tolist(), higher)
            assert compute_sub_ranking(method, table, higher).rank.tolist() == expected


@pytest.mark.parametrize("kind", range(5))
def test_significance_equals_the_plain_one(kind: int) -> None:
    rng = np.random.default_rng([7, kind])
    for _ in range(15):
        table = make_table(rng, kind)
        for higher in (True, False):
            found = compute_pair_tests(table, higher).significant.astype(int)
            assert found.tolist() == plain.significance(table.T.tolist(), higher)


def test_rank_then_mean_by_hand() -> None:
    # Dice of three submissions in three cases; ranks 1 2 3 / 1 1 3 / 3 1 1 give means 5/3, 4/3, 7/3
    table = np.array([[0.9, 0.8, 0.7], [0.6, 0.6, 0.1], [0.2, 0.5, 0.5]])
    ranking = compute_sub_ranking("rankThenMean", table, True)
    assert ranking.value.tolist() == [5 / 3, 4 / 3, 7 / 3]
    assert ranking.rank.tolist() == [2, 1, 3]


def test_rank_then_median_takes_the_mean_of_the_two_middle_ranks() -> None:
    # ranks of the first: 1, 2, 2, 1 -> 1.5; of the second: 2, 1, 1, 2 -> 1.5; of the third: 3 throughout
    table = np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [2.0, 3.0, 1.0], [3.0, 2.0, 1.0]])
    ranking = compute_sub_ranking("rankThenMedian", table, True)
    assert ranking.value.tolist() == [1.5, 1.5, 3.0]
    assert ranking.rank.tolist() == [1, 1, 3]


def test_aggregate_methods_by_hand() -> None:
    table = np.array([[1.0, 2.0], [2.0, 2.0], [9.0, 2.0]])
    assert compute_sub_ranking("aggregateThenMean", table, False).value.tolist() == [4.0, 2.0]
    assert compute_sub_ranking("aggregateThenMean", table, False).rank.tolist() == [2, 1]
    assert compute_sub_ranking("aggregateThenMean", table, True).rank.tolist() == [1, 2]
    assert compute_sub_ranking("aggregateThenMedian", table, False).rank.tolist() == [1, 1]


def test_test_based_by_hand() -> None:
    # Ten cases, the first always better: z = 27.5, sigma = sqrt(10*11*21/24) = 9.81, p = 0.003; it beats one of one.
    table = np.stack([np.arange(10) + 1.0, np.zeros(10)], axis=1)
    ranking = compute_sub_ranking("testBased", table, True)
    assert (ranking.value.tolist(), ranking.rank.tolist()) == ([1.0, 0.0], [1, 2])
    assert compute_sub_ranking("testBased", table, False).rank.tolist() == [2, 1]


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown method 'median'"):
        compute_sub_ranking("median", np.zeros((1, 1)), True)


def test_means_that_differ_only_by_the_order_of_addition_tie() -> None:
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001 or 0.6, depending on the order.
    column = np.array([0.1, 0.2, 0.3])
    table = np.stack([column, column[::-1], column[[1, 2, 0]]], axis=1)
    assert len(set(table.mean(axis=0).tolist())) > 1  # the trap is real
    assert compute_sub_ranking("aggregateThenMean", table, True).rank.tolist() == [1, 1, 1]


def test_means_that_differ_in_the_last_place_do_not_tie() -> None:
    table = np.array([[0.5, 0.5], [0.25, np.nextafter(0.25, 1.0)], [0.5, 0.5]])
    means = [plain.mean_once(column) for column in table.T.tolist()]
    expected = plain.rank_min(means, True)
    assert compute_sub_ranking("aggregateThenMean", table, True).rank.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=3, max_size=3),
        min_size=1,
        max_size=12,
    )
)
def test_means_are_rounded_once_for_any_doubles(rows: list[list[float]]) -> None:
    table = np.array(rows)
    exact = [plain.mean_once(column) for column in table.T.tolist()]
    assert compute_means(table).tolist() == exact
    counts = np.array([[1] * len(rows), [2] + [1] * (len(rows) - 1)])
    drawn = compute_means(table, counts)
    assert plain.rank_min(drawn[0].tolist()) == plain.rank_min(exact)
    twice = np.repeat(table, counts[1], axis=0)
    assert plain.rank_min(drawn[1].tolist()) == plain.rank_min([plain.mean_once(c) for c in twice.T.tolist()])


def test_limbs_add_up_to_the_values() -> None:
    values = np.array([0.1, -3.75, 5e-324, 1.7e308, 0.0, 2.0**-1000])
    limbs, exponents = compute_limbs(values)
    for index, value in enumerate(values):
        parts = [Fraction(int(limb[index])) * Fraction(2) ** e for limb, e in zip(limbs, exponents, strict=True)]
        assert sum(parts) == Fraction(float(value))


def test_infinite_means() -> None:
    table = np.array([[np.inf, 1.0, -np.inf, np.inf], [1.0, 2.0, 1.0, -np.inf]])
    means = compute_means(table)
    assert means[:3].tolist() == [math.inf, 1.5, -math.inf]
    assert math.isnan(means[3])
    assert compute_min_ranks(means).tolist() == [3, 2, 1, 4]  # the undefined one last
    assert compute_min_ranks(means, higher_is_better=True).tolist() == [1, 2, 3, 4]


def test_middle_of_two_doubles() -> None:
    low, high = np.array([1.0, 1.7e308, -np.inf]), np.array([2.0, 1.7e308, np.inf])
    middle = compute_middle(low, high)
    assert middle[:2].tolist() == [1.5, 1.7e308]
    assert math.isnan(middle[2])


def test_bottom_ranks_missing_below_real_zeros() -> None:
    values = np.array([[0.0, 0.0, 0.5, 0.0]])
    missing = np.array([[True, False, False, True]])
    assert compute_case_ranks(values, True).T.tolist() == [[2, 2, 1, 2]]
    assert compute_case_ranks(values, True, missing).T.tolist() == [[3, 2, 1, 3]]
    assert compute_case_ranks(values, False, missing).T.tolist() == [[3, 1, 2, 3]]


def test_p_values_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        table = rng.normal(size=(int(rng.integers(2, 120)), 3)).round(1)
        directions: list[tuple[bool, Literal["greater", "less"]]] = [(True, "greater"), (False, "less")]
        for higher, alternative in directions:
            found = compute_pair_tests(table, higher).p
            for a, b in ((0, 1), (1, 0), (0, 2), (2, 1)):
                if not (table[:, a] - table[:, b]).any():
                    assert found[a, b] == 1.0
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    expected = scipy_wilcoxon(
                        table[:, a],
                        table[:, b],
                        zero_method="wilcox",
                        correction=True,
                        method="approx",
                        alternative=alternative,
                    ).pvalue
                assert found[a, b] == pytest.approx(expected, rel=1e-12)


def test_p_value_edges() -> None:
    tests = compute_pair_tests(np.array([[0.3, 0.3], [0.1, 0.1]]), True)
    assert (tests.p == 1.0).all()  # identical columns
    one = compute_pair_tests(np.array([[0.9, 0.1]]), True).p
    assert one[0, 1] == 0.5  # one case: z - 0.5 = 0
    assert one[1, 0] == pytest.approx(1 - 0.5 * math.erfc(math.sqrt(2)), rel=1e-12)  # (-0.5 - 0.5) / 0.5 = -2


def test_infinite_distances_are_dropped_where_both_are_infinite() -> None:
    with_infinite = np.array([[np.inf, np.inf], [1.0, 2.0], [5.0, 9.0], [np.inf, 3.0]])
    without = np.array([[1.0, 2.0], [5.0, 9.0], [1e9, 3.0]])
    assert np.array_equal(compute_pair_tests(with_infinite, False).p, compute_pair_tests(without, False).p)


def test_far_tail_keeps_its_digits() -> None:
    # 1 - Phi(x) from tables: Phi(-10) = 7.619853024160527e-24, Phi(-30) = 4.906713927148187e-198
    tail = compute_upper_tail(np.array([0.0, 10.0, 30.0, -10.0]))
    assert tail[0] == 0.5
    assert tail[1] == pytest.approx(7.619853024160527e-24, rel=3e-15)
    assert tail[2] == pytest.approx(4.906713927148187e-198, rel=3e-15)
    assert tail[3] == 1.0


def test_holm_is_over_both_directions() -> None:
    # Two submissions: the family has 2 tests, so the smaller p is doubled.
    table = np.stack([np.arange(6) + 1.0, np.zeros(6)], axis=1)
    tests = compute_pair_tests(table, True)
    assert tests.p_holm[0, 1] == 2 * tests.p[0, 1]
    p = np.random.default_rng(0).uniform(size=50)
    assert compute_holm(p).tolist() == plain.holm(p.tolist())


def test_tau_and_counts() -> None:
    rng = np.random.default_rng(5)
    reference, drawn = rng.integers(1, 5, 8), rng.integers(1, 7, (8, 40)).astype(np.int32)
    for found, sample in zip(compute_tau(reference, drawn), drawn.T, strict=True):
        assert found == pytest.approx(kendalltau(reference, sample).statistic, rel=1e-12)
    assert math.isnan(compute_tau(np.ones(3), np.ones((3, 1), dtype=np.int32))[0])
    assert compute_rank_counts(np.array([[1, 2, 1], [3, 3, 1]]), 3).tolist() == [[2, 1, 0], [1, 0, 2]]
    wide = np.tile(np.arange(200, dtype=np.int32)[:, None], (1, 2))  # more than an int8 can count
    assert compute_tau(np.arange(200), wide).tolist() == [1.0, 1.0]


def test_final_ranks_average_their_ties() -> None:
    # Two sites, M = 6: totals 56 and 56 are equal although (k/6 + l/6)/2 in doubles may differ.
    sums = np.array([[27, 29, 6], [29, 27, 12]])
    assert compute_mean_ranks(sums, 6).tolist() == [56 / 12, 56 / 12, 1.5]
    assert compute_final_ranks(sums.sum(axis=0)).tolist() == [2.5, 2.5, 1.0]
    assert compute_final_ranks(sums.sum(axis=0), "min").tolist() == [2.0, 2.0, 1.0]
    assert compute_average_ranks(np.array([4.0, 4.0, 4.0, 1.0])).tolist() == [3.0, 3.0, 3.0, 1.0]


def test_upstream_means_are_those_of_80_bit_arithmetic() -> None:
    """On a PC numpy's longdouble is the 80-bit number that R uses; elsewhere there is nothing to compare with."""
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("no 80-bit numbers on this machine")
    rng = np.random.default_rng(11)
    ranks = rng.integers(1, 20, (7, 6, 12))
    found = compute_upstream_mean_ranks(ranks)
    sites = np.array([[float(column.astype(np.longdouble).sum() / np.longdouble(6)) for column in s.T] for s in ranks])
    for submission in range(12):
        total = np.longdouble(0)
        for value in sites[:, submission]:
            total += np.longdouble(value)
        assert found[submission] == float(total / np.longdouble(7))


def test_upstream_separates_one_exact_tie_in_sixteen_at_thirty_sites() -> None:
    """The quirk is real, and as frequent as the specification says (6 % of exact ties at 30 sites)."""
    rng = np.random.default_rng(1)
    differing, trials = 0, 1000
    for _ in range(trials):
        first = rng.integers(20, 60, 30).tolist()
        second = rng.integers(20, 60, 30).tolist()
        while sum(first) != sum(second):
            second[int(rng.integers(30))] += 1 if sum(second) < sum(first) else -1
        means = [compute_extended_mean([value / 6 for value in sums]) for sums in (first, second)]
        differing += means[0] != means[1]
    assert 0.03 < differing / trials < 0.10


def test_rounding_to_bits_is_half_to_even() -> None:
    assert round_to_bits(Fraction(0b10111, 1), 4) == 0b11000
    assert round_to_bits(Fraction(0b10101, 1), 4) == 0b10100
    assert round_to_bits(Fraction(-5, 2), 2) == -2
    assert round_to_bits(Fraction(1, 3), 53) == Fraction(1 / 3)
