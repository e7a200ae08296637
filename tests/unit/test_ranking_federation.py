"""Final ranking and federation-aware answers: by hand, and against scipy where it has the same statistic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, kendalltau

from ranking.agreement import compute_concordance, compute_dendrogram, compute_heterogeneity, compute_tau_matrix
from ranking.answers import (
    compute_bayesian_signed_rank,
    compute_critical_difference,
    compute_decathlon,
    compute_permutation_ranking,
)
from ranking.final import compute_final_ranks, compute_left_out, compute_weighted, compute_worst_sites, find_order
from ranking.ranks import compute_average_ranks
from ranking.separate import compute_separation, find_groups, format_groups

# Three sites, three submissions; totals 36, 36 and 51 of M = 6 metrics.
SUMS = np.array([[6, 12, 18], [18, 6, 12], [12, 18, 21]])


def test_leave_one_site_out_by_hand() -> None:
    full = compute_final_ranks(SUMS.sum(axis=0))
    assert full.tolist() == [1.5, 1.5, 3.0]
    entries, shifts = compute_left_out(SUMS, full, "average")
    # without the first site: 30, 24, 33; without the second: 18, 30, 39; without the third: 24, 18, 30
    assert [entry["final_rank"] for entry in entries] == [[2, 1, 3], [1, 2, 3], [2, 1, 3]]
    assert shifts.tolist() == [[0.5, -0.5, 0.5], [-0.5, 0.5, -0.5], [0.0, 0.0, 0.0]]
    assert [entry["changed"] for entry in entries] == [2, 2, 2]
    assert entries[0]["largest_shift"] == 0.5
    assert entries[0]["most_moved"] == [0, 1]
    assert entries[0]["tau"] == pytest.approx(kendalltau([1.5, 1.5, 3], [2, 1, 3]).statistic)
    assert compute_left_out(SUMS[:1], full, "average")[0] == []


def test_leaving_out_a_site_that_changes_nothing() -> None:
    entries, _ = compute_left_out(np.array([[1, 2], [1, 2]]), np.array([1.0, 2.0]), "average")
    assert [(entry["changed"], entry["largest_shift"], entry["most_moved"]) for entry in entries] == [(0, 0.0, [])] * 2


def test_worst_sites_by_hand() -> None:
    # ranks of the submissions over the sites: 1 3 1, 2 1 2, 3 2 3
    first, second, third = compute_worst_sites(SUMS)
    assert (first["best_rank"], first["median_rank"], first["worst_rank"], first["worst_sites"]) == (1, 1, 3, [1])
    assert (second["worst_rank"], second["worst_sites"]) == (2, [0, 2])
    # 90 % quantile (type 7) of 1, 1, 3: position 1.8, so 1 + 0.8 * 2; quartiles 1 and 2
    assert first["tenth_percentile_rank"] == pytest.approx(2.6)
    assert first["spread"] == 1.0
    assert third["submission"] == 2


def test_weights_by_hand() -> None:
    weighted = compute_weighted(SUMS, 6, [1, 4, 1], "average")
    assert weighted["equal"]["final_rank"] == [1.5, 1.5, 3.0]
    # by cases: 6 + 72 + 12 = 90, 12 + 24 + 18 = 54, 18 + 48 + 21 = 87
    assert weighted["cases"]["mean_rank"] == [90 / 36, 54 / 36, 87 / 36]
    assert weighted["cases"]["final_rank"] == [3, 1, 2]
    assert weighted["cases"]["changed"] == 3
    # by the square root: 6 + 36 + 12, 12 + 12 + 18, 18 + 24 + 21
    assert weighted["sqrt-cases"]["mean_rank"] == [54 / 24, 42 / 24, 63 / 24]
    assert weighted["sqrt-cases"]["weights"] == [0.25, 0.5, 0.25]


def test_equal_totals_tie_under_irrational_weights() -> None:
    sums = np.array([[6, 9], [9, 6], [7, 7]])
    assert compute_weighted(sums, 6, [3, 3, 7], "average")["sqrt-cases"]["final_rank"] == [1.5, 1.5]


def test_tau_matrix_and_concordance_agree_with_scipy() -> None:
    rng = np.random.default_rng(2)
    sums = rng.integers(6, 20, (7, 5))
    tau = compute_tau_matrix(sums)
    for a, b in itertools.product(range(7), repeat=2):
        assert tau[a, b] == pytest.approx(kendalltau(sums[a], sums[b]).statistic)
    found = compute_heterogeneity(sums)
    assert found is not None
    friedman = friedmanchisquare(*sums.T)
    assert found["kendall_w"] == pytest.approx(friedman.statistic / (7 * 4))
    assert found["kendall_w_p"] == pytest.approx(friedman.pvalue)


def test_agreement_edges() -> None:
    assert compute_heterogeneity(SUMS[:1]) is None
    assert compute_heterogeneity(SUMS[:, :1]) is None
    same = compute_heterogeneity(np.array([[1, 2, 3], [2, 4, 9]]))
    assert same is not None
    assert (same["mean_tau"], same["kendall_w"]) == (1.0, 1.0)
    tied = compute_heterogeneity(np.array([[5, 5], [5, 5]]))
    assert tied is not None
    assert tied["tau"] == [[None, None], [None, None]]
    assert (tied["mean_tau"], tied["kendall_w"], tied["kendall_w_p"]) == (None, None, None)
    assert compute_concordance(np.ones((3, 2))) is None


def test_dendrogram_by_hand() -> None:
    # Sites 0 and 1 agree, site 2 is reversed: footrule (2 + 0 + 2) / 3 to both.
    tree = compute_dendrogram(np.array([[1, 2, 3], [10, 20, 30], [3, 2, 1]]))
    assert tree is not None
    assert tree["linkage"] == [[0, 1, 0, 2], [2, 3, pytest.approx(4 / 3), 3]]
    assert sorted(tree["leaves"]) == [0, 1, 2]
    assert compute_dendrogram(SUMS[:2]) is None


def test_separation_of_clear_and_of_equal_submissions() -> None:
    rng = np.random.default_rng(4)
    clear = np.array([10, 20, 30, 40]) + rng.integers(-2, 3, (12, 4))
    found = compute_separation(clear)
    assert found is not None
    assert found.rank_sets.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    equal = compute_separation(rng.integers(10, 40, (12, 4)))
    assert equal is not None
    assert equal.rank_sets.tolist() == [[1, 4]] * 4
    assert compute_separation(clear[:1]) is None
    assert compute_separation(clear[:, :1]) is None


def test_two_sites_that_agree_are_no_certainty() -> None:
    """With two sites the same difference twice has variance 0; the floor of the variance keeps it from proof."""
    found = compute_separation(np.array([[10, 11, 12], [10, 11, 12]]))
    assert found is not None
    assert not found.better.any()


def test_critical_value_is_that_of_the_t_distribution_for_one_pair() -> None:
    """One pair, S sites: |t| must exceed the 97.5 % quantile with S - 1 degrees of freedom, 2.262 for 10 sites."""
    pattern = np.array([1, -1] * 5)
    for shift, expected in ((7.0, False), (8.0, True)):
        first = 10 * pattern
        second = -10 * pattern + 2 * shift  # differences -20, 20 ... minus 2 shift; sd 21.08, se 6.667
        found = compute_separation(np.stack([first, second], axis=1).astype(np.int64))
        assert found is not None
        # t = 14 / 6.667 = 2.10 or 16 / 6.667 = 2.40
        assert bool(found.better[0, 1]) is expected


@pytest.mark.parametrize("sites", [3, 5, 10])
def test_equal_submissions_are_rarely_separated(sites: int) -> None:
    """Six equal submissions: some pair is separated in at most 5 % of replications (8 % here, for chance)."""
    rng = np.random.default_rng(sites)
    wrong = 0
    for _ in range(400):
        found = compute_separation(np.rint(rng.normal(20, 4, (sites, 6))).astype(np.int64))
        assert found is not None
        wrong += bool(found.better.any())
    assert wrong <= 32


def test_groups_and_letters_by_hand() -> None:
    separated = np.zeros((4, 4), dtype=bool)
    for a, b in ((0, 2), (0, 3), (1, 3)):
        separated[a, b] = separated[b, a] = True
    groups = find_groups([0, 1, 2, 3], separated)
    assert groups == [[0, 1], [1, 2], [2, 3]]
    assert format_groups(groups, 4) == ["a", "ab", "bc", "c"]
    assert find_groups([2, 0, 1, 3], np.ones((4, 4), dtype=bool)) == [[2], [0], [1], [3]]
    assert find_groups([1, 0], np.zeros((2, 2), dtype=bool)) == [[1, 0]]
    assert format_groups([[index] for index in range(60)], 60)[59] == "(60)"


def test_permutation_test_by_enumeration() -> None:
    """Six cases have 64 sign patterns: the simulated p-value is that of the enumeration."""
    case_sums = np.array([[6, 7, 8, 9, 6, 7], [8, 9, 7, 12, 9, 8], [6, 7, 8, 9, 6, 7]])
    found = compute_permutation_ranking(case_sums, 6, seed=1)
    differences = case_sums[1] - case_sums[0]
    signs = np.array(list(itertools.product((1, -1), repeat=6)))
    patterns = signs @ differences
    exact = np.mean([total >= differences.sum() for total in patterns])
    assert found["p"][0][1] == pytest.approx(exact, abs=5 * math.sqrt(exact / 10_000))
    assert found["p"][0][2] == 1.0  # identical: every permutation is at least as large
    assert found["mean_rank"] == [43 / 36, 53 / 36, 43 / 36]
    assert found["rank"] == [1, 3, 1]


def test_decathlon_by_hand() -> None:
    # Two sites, one metric, three submissions: shares of the opponents beaten, two at the first site, one at the other
    shares = np.array([[[1.0, 0.5, 0.0]], [[1.0, 0.0, np.nan]]])
    assert compute_decathlon(shares) == {"score": [1.0, 0.25, 0.0], "rank": [1, 2, 3]}
    # One of two opponents beaten among three stays a half when a fourth is absent
    assert compute_decathlon(np.array([[[0.5, 0.5, 0.0, np.nan]]])) == {
        "score": [0.5, 0.5, 0.0, 0.0],
        "rank": [1, 1, 3, 3],
    }


def test_critical_difference_of_demsar() -> None:
    """Demsar (2006): k = 4 and N = 14 give 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25."""
    rng = np.random.default_rng(0)
    sums = np.argsort(rng.normal(size=(14, 4)), axis=1) + 1
    found = compute_critical_difference(sums)
    assert found is not None
    assert found["critical_difference"] == pytest.approx(1.25, abs=0.005)
    assert found["average_rank"] == pytest.approx(sums.mean(axis=0))
    assert found["friedman_p"] == pytest.approx(friedmanchisquare(*sums.T).pvalue)
    spread = compute_critical_difference(np.tile([1, 2, 3, 4], (14, 1)))
    assert spread is not None
    assert spread["cliques"] == [[0, 1], [1, 2], [2, 3]]
    assert compute_critical_difference(sums[:1]) is None


def test_bayesian_test_of_clear_equal_and_open_pairs() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(-1, 2, (15, 1))
    better, same = np.full((15, 1), 12), np.full((15, 1), 30)
    found = compute_bayesian_signed_rank(np.concatenate([better, same, same + noise], axis=1), 6, seed=1)
    assert found is not None
    assert found["better"][0][1] > 0.99
    assert found["better"][1][0] < 0.01
    assert found["equivalent"][1][2] > 0.99  # within one sixth of a rank, and the region is half a rank
    for a, b in itertools.combinations(range(3), 2):
        assert found["better"][a][b] + found["better"][b][a] + found["equivalent"][a][b] == pytest.approx(1.0)
    assert compute_bayesian_signed_rank(SUMS[:1], 6, seed=1) is None


def test_order_keeps_the_input_order_of_ties() -> None:
    assert find_order(np.array([2.5, 1.0, 2.5, 4.0])) == [1, 0, 2, 3]
    assert compute_average_ranks(np.array([[3, 1], [3, 2]])).tolist() == [[1.5, 1.0], [1.5, 2.0]]
