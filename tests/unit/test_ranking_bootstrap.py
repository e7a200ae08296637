"""Bootstrap: draws pinned, every method per draw against its definition, same result however it is computed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from ranking.bootstrap import Weighting, compute_bootstrap_ranks
from ranking.draws import draw_counts, draw_indices, draw_uniform, make_stream
from ranking.pipeline import Settings, analyse_study, combine, compute_documents, load_study
from ranking.resample import draw_both_totals, draw_case_totals, draw_site_totals, summarise_totals
from ranking.rules import METHODS, load_rule
from ranking.signed_rank_draws import add_sums_plain, compute_win_draws, find_add_sums, is_worth_compiling
from ranking.site_share import summarise_draws, summarise_tau
from tests.unit import test_ranking_reference as plain
from tests.unit.test_ranking_cli import write_random_sites
from tests.unit.test_ranking_given import rank_draw
from tests.unit.test_ranking_methods import Table, make_table

PINNED_INDICES = [5, 3, 8, 8, 8, 7, 3, 8]
PINNED_COUNTS = [[0, 1, 1, 0, 3], [0, 1, 1, 2, 1]]


def test_draws_are_the_same_on_every_platform_and_release() -> None:
    """Pinned: whoever changes these numbers changes every published interval."""
    assert draw_indices(make_stream(1, "cases", "site"), 8, 10).tolist() == PINNED_INDICES
    assert draw_counts(make_stream(1, "cases", "site"), 2, 5).tolist() == PINNED_COUNTS


def test_streams_differ_by_name_and_seed() -> None:
    streams = [
        make_stream(1, "a"),
        make_stream(1, "b"),
        make_stream(2, "a"),
        make_stream(1, "a", "b"),
        make_stream(1, "ab"),
    ]
    first = [tuple(draw_indices(stream, 6, 2**31).tolist()) for stream in streams]
    assert len(set(first)) == len(first)


def test_draws_are_uniform() -> None:
    counts = draw_counts(make_stream(3, "x"), 4000, 7)
    assert (counts.sum(axis=1) == 7).all()
    # mean 1 and variance 1 - 1/7, each within 5 standard errors
    assert abs(counts.mean(axis=0) - 1).max() < 5 * np.sqrt(6 / 7 / 4000)
    assert abs(counts.var() - 6 / 7) < 0.05
    uniform = draw_uniform(make_stream(3, "y"), 20_000)
    assert 0 < uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 20_000)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", range(5))
def test_every_draw_equals_its_definition(method: str, kind: int) -> None:
    rng = np.random.default_rng([kind, METHODS.index(method)])
    weightings: tuple[Weighting, ...] = ("case", "challengeR")
    for number in range(6):
        table = make_table(rng, kind)
        counts = draw_counts(make_stream(number, "test"), 6, len(table))
        columns = table.T.tolist()
        for weighting in weightings:
            drawn = compute_bootstrap_ranks(method, table, True, counts, weighting)
            for draw, ranks in zip(counts.tolist(), drawn.T.tolist(), strict=True):
                assert ranks == rank_draw(method, weighting, columns, draw)
        drawn = compute_bootstrap_ranks(method, table, False, counts)
        for draw, ranks in zip(counts, drawn.T.tolist(), strict=True):
            assert ranks == plain.sub_ranks(method, np.repeat(table, draw, axis=0).T.tolist(), False)


def test_mean_of_challenger_weighting_by_hand() -> None:
    # Ranks of the first: 1 and 2. Drawn 3 and 1 times: 1 + (9 * 0 + 1 * 1) / 4 = 1.25, against 1 + (9 * 1 + 0) / 4.
    table = np.array([[0.9, 0.1], [0.1, 0.9]])
    counts = np.array([[3, 1], [1, 3], [2, 2]], dtype=np.int32)
    assert compute_bootstrap_ranks("rankThenMean", table, True, counts, "challengeR").T.tolist() == [
        [1, 2],
        [2, 1],
        [1, 1],
    ]


def test_weightings_differ_where_the_specification_says() -> None:
    """A case drawn often outweighs in challengeR's mean of ranks, and no case counts twice in its tests."""
    table = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5], [0.2, 0.9, 0.5]])
    counts = np.array([[2, 1, 0]], dtype=np.int32)
    case = compute_bootstrap_ranks("rankThenMean", table, True, counts, "case")
    # ranks 1 3 2 (twice) and 3 1 2 (once): means 5/3, 7/3, 2; squared weights 4 and 1: the same order here
    assert case.T.tolist() == [[1, 3, 2]]
    many = np.repeat(np.array([[0.9, 0.1], [0.8, 0.7]]), 3, axis=0)
    heavy = np.array([[5, 5, 5, 5, 5, 5]], dtype=np.int32)
    assert compute_bootstrap_ranks("testBased", many, True, heavy, "case").T.tolist() == [[1, 2]]
    # six distinct cases, all better: z = 10.5, (10.5 - 0.5) / sqrt(6*7*13/24 - ties) is significant too
    assert compute_bootstrap_ranks("testBased", many[:2], True, heavy[:, :2], "challengeR").T.tolist() == [[1, 1]]


def make_wide_table(rng: np.random.Generator, cases: int) -> Table:
    """Few ties, many ties, and zeros in one table."""
    table = rng.normal(size=(cases, 6)).round(1)
    table[:, 3] = table[:, 2]
    table[:, 4] = rng.normal(size=cases)
    return table


@pytest.mark.parametrize("cases", [1, 40, 300])
def test_compiled_sums_equal_the_plain_ones(cases: int) -> None:
    """300 cases are beyond single precision: the other branch of the weights."""
    pytest.importorskip("numba")
    table = make_wide_table(np.random.default_rng(cases), cases)
    counts = draw_counts(make_stream(cases, "x"), 30, cases)
    found = [compute_win_draws(table, True, counts, find_add_sums(compiled)) for compiled in (False, True)]
    assert np.array_equal(found[0], found[1])
    for draw in (0, 7):
        sample = np.repeat(table, counts[draw], axis=0).T.tolist()
        assert found[0][:, draw].tolist() == plain.count_wins(sample, True)


def test_compiling_is_only_for_much_work() -> None:
    assert not is_worth_compiling(10, 100, 1000)
    assert find_add_sums(False) is add_sums_plain


def test_borderline_tests_are_decided_by_the_p_value() -> None:
    """Thousands of small samples, many of them repeated: the quick inequality and the p-value never disagree."""
    rng = np.random.default_rng(17)
    table = rng.integers(0, 4, (12, 5)) / 10.0
    counts = draw_counts(make_stream(5, "borderline"), 300, 12)
    wins = compute_win_draws(table, False, counts)
    for draw, expected in zip(counts, wins.T.tolist(), strict=True):
        assert plain.count_wins(np.repeat(table, draw, axis=0).T.tolist(), False) == expected


def test_summary_of_draws_by_hand() -> None:
    drawn = np.array([[1, 1, 2, 1], [2, 2, 1, 1], [3, 3, 3, 3]], dtype=np.int32)
    summary = summarise_draws(np.array([1, 2, 3]), drawn)
    assert summary["rank_counts"] == [[3, 1, 0], [2, 2, 0], [0, 0, 4]]
    assert summary["winner_counts"] == [3, 2, 0]
    assert summary["median"] == [1.0, 1.5, 3.0]
    # type 7 at 97.5 % of 1, 1, 1, 2: position 2.925, so 1 + 0.925
    assert summary["interval"][0] == pytest.approx([1.0, 1.925])
    # tau-b: 1, 1, 1/3, and 2 / sqrt(3 * 2) for the tie
    assert summary["tau"]["mean"] == pytest.approx((1 + 1 + 1 / 3 + 2 / np.sqrt(6)) / 4)
    assert summary["tau"]["undefined"] == 0
    assert summarise_tau(np.array([np.nan, np.nan])) == {"percentiles": None, "mean": None, "undefined": 2}


def test_site_draws_are_sums_over_drawn_sites() -> None:
    sums = np.array([[1, 10], [2, 20], [4, 40]])
    totals = draw_site_totals(sums, 50, seed=1)
    possible = {sum(chosen) for chosen in itertools.product([1, 2, 4], repeat=3)}
    assert set(totals[0].tolist()) <= possible
    assert len(set(totals[0].tolist())) > 3
    assert np.array_equal(totals[1], 10 * totals[0])


def test_case_draws_go_together_and_both_draws_are_independent() -> None:
    first = np.array([[1, 2], [3, 4]], dtype=np.int32)
    second = np.array([[10, 20], [30, 40]], dtype=np.int32)
    assert draw_case_totals([first, second]).tolist() == [[11, 22], [33, 44]]
    draws = 400
    sites = [np.tile(np.arange(draws, dtype=np.int32), (2, 1)) + 1000 * site for site in range(2)]
    totals = draw_both_totals(sites, seed=1)
    drawn_sites = totals[0] // 1000
    assert np.bincount(drawn_sites, minlength=3)[:3] == pytest.approx([100, 200, 100], abs=50)
    both = totals[0] % 1000  # sum of two independent case draws of 0 .. 399
    assert both.mean() == pytest.approx(399, abs=35)
    assert both.var() == pytest.approx(2 * 400**2 / 12, rel=0.35)


def test_probabilities_of_ranks_and_of_better_than() -> None:
    totals = np.array([[3, 3, 5, 1], [4, 3, 4, 2]])
    summary = summarise_totals(np.array([3, 4]), totals, "average")
    assert summary["better_than"] == [[0.5, 0.625], [0.375, 0.5]]
    assert summary["rank_counts"] == [[3, 1], [2, 2]]
    assert summary["median"] == [1.25, 1.75]


def test_workers_and_their_number_do_not_matter(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data", submissions=3)
    rule = load_rule()
    documents = []
    for workers in (1, 2):
        settings = Settings(methods=("rankThenMean", "testBased"), draws=30, workers=workers)
        study = load_study(data, rule, settings)
        documents.append(combine(study, *analyse_study(study, settings), settings))
    assert documents[0] == documents[1]


def test_a_site_is_drawn_alike_whatever_the_other_sites(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data")
    whole = compute_documents(data, Settings(draws=30))[0]
    (data / "site.0.yaml").unlink()
    (data / "site.2.yaml").unlink()
    alone = compute_documents(data, Settings(draws=30))[0]
    assert alone["per_site"][0] == whole["per_site"][1]


def test_seed_and_weighting_matter(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data")
    variants = [Settings(draws=60), Settings(draws=60, seed=2), Settings(draws=60, bootstrap="challengeR")]
    counts = [compute_documents(data, variant)[0]["per_site"][0]["metrics"][0]["bootstrap"] for variant in variants]
    assert counts[0] != counts[1]
    assert counts[0] != counts[2]
