"""Figures: where the marks stand, worked out by hand from the numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import pytest

from ranking.document import Dendrogram, RankBootstrap, Tau
from ranking.report_axes import (
    LABELS,
    NARROW,
    ROW,
    TOP,
    Scale,
    Stage,
    build_legend,
    build_row_labels,
    compute_log_ticks,
    compute_rank_ticks,
    compute_row_y,
    compute_ticks,
    compute_width,
)
from ranking.report_marks import Areas, Block, Cells, Dots, Figure, Label, Lines, Mark
from ranking.report_plots_maps import plot_critical_difference, plot_lines, plot_pairs
from ranking.report_plots_podium import PodiumData, plot_podium
from ranking.report_plots_ranks import plot_blobs, plot_rank_heatmap
from ranking.report_plots_sites import plot_dendrogram, plot_left_out, plot_worst_site
from ranking.report_plots_values import compute_range, compute_spread, plot_spreads, plot_violins

M = TypeVar("M", bound=Mark)


def _make_stage(order: list[int], sites: int = 3) -> Stage:
    names = tuple(f"team_{submission}" for submission in range(len(order)))
    site_names = tuple(f"site_{site}" for site in range(sites))
    rows = build_row_labels([names[submission] for submission in order], keyed=True)
    return Stage(tuple(order), names, rows, site_names, build_row_labels(site_names, keyed=False))


def _find(figure: Figure, kind: type[M], colour: str = "") -> list[M]:
    found: list[M] = []

    def collect(marks: tuple[Mark, ...]) -> None:
        for mark in marks:
            if isinstance(mark, Block):
                collect(mark.marks)
            elif isinstance(mark, kind) and (not colour or getattr(mark, "colour", "") == colour):
                found.append(mark)

    collect(figure.marks)
    return found


def _texts(figure: Figure) -> list[str]:
    return [label.text for label in _find(figure, Label)]


def _make_tau(percentiles: list[float] | None) -> Tau:
    return {"percentiles": percentiles, "mean": None, "undefined": 0}


def _make_bootstrap(counts: list[list[int]], medians: list[float], intervals: list[list[float]]) -> RankBootstrap:
    return {
        "draws": sum(counts[0]),
        "rank_counts": counts,
        "median": medians,
        "interval": intervals,
        "winner_counts": [row[0] for row in counts],
        "tau": _make_tau(None),
    }


def _rank_x(rank: float, count: int) -> float:
    """A rank stands in the middle of its column; the columns fill the room right of the names."""
    return LABELS + (NARROW - 10 - LABELS) * (rank - 0.5) / count


def test_scale_maps_its_ends_and_holds_the_rest() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale.compute_x(value) for value in (0, 5, 10, -3, 99)] == [100, 150, 200, 100, 200]
    log = Scale(0, 99, 0, 100, log=True)
    assert log.compute_x(9) == pytest.approx(50)  # log(1 + 9) is half of log(1 + 99)
    assert Scale(3, 3, 100, 200).compute_x(3) == 150


def test_ticks_are_round_and_do_not_touch() -> None:
    assert [text for _, text in compute_ticks(0, 1)] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert [text for _, text in compute_ticks(-37, 240)] == ["0", "100", "200"]
    assert [text for _, text in compute_log_ticks(1000)] == ["0", "1", "10", "100", "1000"]
    assert [text for _, text in compute_rank_ticks(5, 216)] == ["1", "2", "3", "4", "5"]
    assert [text for _, text in compute_rank_ticks(40, 216)] == ["1", "5", "10", "15", "20", "25", "30", "35", "40"]
    for count in range(1, 300):
        ticks = [value for value, _ in compute_rank_ticks(count, 216)]
        assert ticks[0] == 1 and ticks[-1] <= count
        # 216 pixels for so many ranks; a number of three digits is 18 wide.
        assert all(216 / count * (after - before) > 9 for before, after in pairwise(ticks[1:]))


def test_figures_grow_only_when_they_must() -> None:
    assert [compute_width(count) for count in (1, 17, 18, 40)] == [NARROW, NARROW, 590, 590]
    assert compute_width(40, narrow=True) == NARROW


def test_legend_wraps() -> None:
    marks, height = build_legend([("dot", "c1", "a text of some length")] * 5, 100, NARROW)
    labels = [mark for mark in marks if isinstance(mark, Label)]
    assert len({label.y for label in labels}) > 1
    assert max(label.y for label in labels) < 100 + height


def test_rows_stand_in_the_final_order_with_their_numbers() -> None:
    stage = _make_stage([2, 0, 1])
    assert [(label.text, label.y) for label in stage.rows] == [
        ("1", 7.5), ("team_2", 7.5), ("2", 22.5), ("team_0", 22.5), ("3", 37.5), ("team_1", 37.5),
    ]  # fmt: skip
    assert [stage.get_key(submission) for submission in range(3)] == [2, 3, 1]


def test_heatmap_colours_by_share_of_the_most_frequent() -> None:
    # Submission 1 is first in the final order: four times rank 1, never rank 2, twice rank 3.
    counts = [[0, 3, 3], [4, 0, 2], [2, 3, 1]]
    figure = plot_rank_heatmap("heatmap", "Title", "Caption.", counts, _make_stage([1, 0, 2]))
    cells = {mark.colour: set(mark.runs) for mark in _find(figure, Cells)}
    assert cells == {
        "s8": {(0, 0, 1)},
        "s6": {(1, 1, 1), (2, 1, 1), (1, 2, 1)},
        "s4": {(2, 0, 1), (0, 2, 1)},
        "s2": {(2, 2, 1)},
    }
    assert figure.width == NARROW
    # The darkest is 4 of 6 sub-rankings.
    assert any("67 %" in text for text in _texts(figure))


def test_blobs_have_the_area_of_their_share() -> None:
    bootstrap = _make_bootstrap([[100, 0], [75, 25]], [1, 1], [[1, 1], [1, 2]])
    figure = plot_blobs("blobs", "Title", "Caption.", bootstrap, _make_stage([0, 1]))
    blobs = {dots.diameter: dots.points for dots in _find(figure, Dots, "s5") if len(dots.points[0]) == 2}
    places = {point: diameter for diameter, points in blobs.items() for point in points}
    assert places[_rank_x(1, 2), compute_row_y(0)] == ROW - 2
    # A quarter of the draws: half the diameter.
    assert places[_rank_x(2, 2), compute_row_y(1)] == pytest.approx((ROW - 2) / 2)
    (interval,) = [line for line in _find(figure, Lines, "ink") if line.width == 1.0 and len(line.paths) == 1]
    assert interval.paths[0] == ((_rank_x(1, 2), compute_row_y(1)), (_rank_x(2, 2), compute_row_y(1)))


def test_blobs_leave_out_what_is_rarer_than_one_in_a_hundred() -> None:
    bootstrap = _make_bootstrap([[992, 8], [0, 1000]], [1, 2], [[1, 1], [2, 2]])
    figure = plot_blobs("blobs", "Title", "Caption.", bootstrap, _make_stage([0, 1]))
    drawn = {point for dots in _find(figure, Dots, "s5") for point in dots.points if point[1] < TOP + 2 * ROW}
    assert drawn == {(_rank_x(1, 2), compute_row_y(0)), (_rank_x(2, 2), compute_row_y(1))}


def test_pairs_map_has_a_grey_diagonal_and_nothing_for_zero() -> None:
    figure = plot_pairs("pairs", "Title", "Caption.", [[0, 1.0], [0, 0]], _make_stage([0, 1]), (6, "of 6 metrics"))
    cells = {mark.colour: mark.runs for mark in _find(figure, Cells)}
    assert cells == {"faint": ((0, 0, 1), (1, 1, 1)), "s8": ((1, 0, 1),)}
    assert [text for text in _texts(figure) if "metrics" in text] == ["6 of 6 metrics"]
    assert {"1", "2", "3", "4", "5"} <= set(_texts(figure))


def test_lines_join_the_ranks_and_names_stand_in_the_order_of_the_first() -> None:
    ranks = {"rankThenMean": [2.0, 1.0], "testBased": [1.5, 1.5]}
    figure = plot_lines("lines", "Title", "Caption.", ranks, _make_stage([0, 1]))
    (line,) = _find(figure, Lines, "c1")[0].paths
    heights = [(y - line[0][1]) / ROW for _, y in line]
    assert heights == pytest.approx([0, -0.5])  # from rank 2 to rank 1.5
    names = [label for label in _find(figure, Label) if label.text.startswith("team")]
    assert [label.text for label in sorted(names, key=lambda label: label.y)] == ["team_1", "team_0"]
    assert {"rank", "Then", "Mean", "test", "Based"} <= set(_texts(figure))


def test_podium_counts_and_joins() -> None:
    # Case 0: team_0 first with 0.9, team_1 second with 0.8; case 1: both first.
    data = PodiumData([[0.9, 0.8], [0.7, 0.7]], [[1, 2], [1, 1]], [[2, 0], [1, 1]], "Dice", higher_is_better=True)
    figure = plot_podium("podium", "Title", "Caption.", data, _make_stage([0, 1]))
    bars = {line.colour: line.paths for line in _find(figure, Lines) if line.width > 10}
    full = {colour: [path[0][1] - path[1][1] for path in paths] for colour, paths in bars.items()}
    assert full["c1"] == pytest.approx([64])  # team_0 is first in both of two cases
    assert full["c2"] == pytest.approx([32, 32])  # team_1 first in one, second in one
    dots = {mark.colour: mark.points for mark in _find(figure, Dots) if mark.diameter == 4.2}
    assert len(dots["c1"]) == 2 and len(dots["c2"]) == 2
    # Up is better: 0.9 stands at the top of the frame, 0.7 at its bottom.
    assert min(y for _, y in dots["c1"]) == 26 and max(y for _, y in dots["c1"]) == 26 + 150
    assert len(_find(figure, Lines, "faint")[0].paths) == 2


def test_podium_turns_for_a_metric_of_which_less_is_better() -> None:
    data = PodiumData([[2.0, 5.0]], [[1, 2]], [[1, 0], [0, 1]], "HD95", higher_is_better=False)
    figure = plot_podium("podium", "Title", "Caption.", data, _make_stage([0, 1]))
    dots = {mark.colour: mark.points for mark in _find(figure, Dots) if mark.diameter == 4.2}
    assert [y for _, y in (*dots["c1"], *dots["c2"])] == [26, 26 + 150]


@pytest.mark.parametrize("count", [1, 6, 7, 8, 9, 40])
def test_podium_has_a_column_for_the_best_and_one_for_the_others(count: int) -> None:
    order = list(range(count))
    ranks = [list(range(1, count + 1))]
    counts = [[int(rank == submission) for rank in range(count)] for submission in order]
    data = PodiumData([[float(rank) for rank in ranks[0]]], ranks, counts, "rank", higher_is_better=False)
    figure = plot_podium("podium", "Title", "Caption.", data, _make_stage(order))
    places = [text for text in _texts(figure) if text.startswith("place ")]
    assert len(places) == (count if count <= 6 else 5)
    others = [text for text in _texts(figure) if "other" in text]
    assert others == ([f"all the other {count - 7}"] if count > 8 else [])
    assert ("8 team_7" in _texts(figure)) == (count == 8)


def test_spread_of_known_values() -> None:
    # R: quantile(c(1, 2, 3, 4, 100), type = 7) is 1 2 3 4 100; whiskers reach 1.5 * 2 beyond 2 and 4.
    box = compute_spread([3.0, 1.0, None, 100.0, 2.0, 4.0]).box
    assert box is not None
    assert (box["q1"], box["median"], box["q3"]) == (2, 3, 4)
    assert (box["whisker_low"], box["whisker_high"], box["high"], box["missing"]) == (1, 4, 100, 1)
    assert compute_spread([None, None]).box is None


def test_ranges_choose_their_scale() -> None:
    assert compute_range("HD95", [1.0, 2.0, 3.0, 374.0]).log
    assert not compute_range("HD95", [100.0, 200.0, 374.0]).log
    dice = compute_range("Dice", [0.5, 0.9], (0.0, 1.0))
    assert (dice.low, dice.high, dice.log) == (0, 1, False)
    assert compute_range("constant", [3.0, 3.0]).high > 3
    assert compute_range("nothing", []).high == 1


def test_spread_plot_draws_box_dots_and_extremes() -> None:
    span = compute_range("Dice", [0.0, 1.0])
    spreads = [compute_spread([0.0, 0.7, 0.75, 0.8, 1.0]), compute_spread([None])]
    figure = plot_spreads("boxes", "Title", "Caption.", spreads, span, _make_stage([1, 0]))
    assert len(_find(figure, Dots, "c1")[0].points) == 5
    # Both ends lie beyond 1.5 * 0.1 from the box and are drawn as single points in the second row.
    extremes = _find(figure, Dots, "rule")[0].points
    assert [x for x, _ in extremes] == [LABELS + 4, NARROW - 10] and {y for _, y in extremes} == {compute_row_y(1)}


def test_violin_is_widest_where_the_draws_are() -> None:
    percentiles = [0.5 + 0.1 * (index / 100) for index in range(90)] + [0.9 + 0.01 * index / 11 for index in range(11)]
    figure = plot_violins("tau", "Title", "Caption.", [("site_0", _make_tau(percentiles)), ("site_1", None)])
    (outline,) = _find(figure, Areas)[0].polygons
    y = compute_row_y(0)
    assert min(at for _, at in outline) == pytest.approx(y - ROW / 2 + 0.8)
    assert {round(at - y, 6) for _, at in outline} == {round(y - at, 6) for _, at in outline}  # symmetric
    widest = max(outline, key=lambda point: y - point[1])
    assert widest[0] < (outline[0][0] + max(x for x, _ in outline)) / 2
    assert "not defined" in _texts(figure)


def test_violin_of_equal_draws_can_be_seen() -> None:
    figure = plot_violins("tau", "Title", "Caption.", [("site_0", _make_tau([1.0] * 101))])
    (outline,) = _find(figure, Areas)[0].polygons
    assert max(x for x, _ in outline) - min(x for x, _ in outline) > 1


def test_dendrogram_joins_at_its_heights() -> None:
    # Sites 0 and 2 join at 1, site 1 joins them at 4.
    tree: Dendrogram = {
        "distance": "footrule", "linkage_method": "average", "linkage": [[0, 2, 1, 2], [1, 3, 4, 3]],
        "leaves": [1, 0, 2],
    }  # fmt: skip
    figure = plot_dendrogram("Tree", "Caption.", tree, _make_stage([0, 1]))
    first, second = _find(figure, Lines, "c1")[0].paths
    left, right = LABELS + 6, NARROW - 16
    quarter = left + (right - left) / 4
    assert first == (
        (left, compute_row_y(1)), (quarter, compute_row_y(1)), (quarter, compute_row_y(2)), (left, compute_row_y(2)),
    )  # fmt: skip
    middle = (compute_row_y(1) + compute_row_y(2)) / 2
    assert second == (
        (left, compute_row_y(0)), (right, compute_row_y(0)), (right, middle), (quarter, middle),
    )  # fmt: skip
    assert [text for text in _texts(figure) if text.startswith("site")] == ["site_1", "site_0", "site_2"]


def test_left_out_map_writes_the_shifts() -> None:
    figure = plot_left_out("Title", "Caption.", [[0, -1.5, 3], [0, 0, 0]], _make_stage([1, 0]))
    cells = {mark.colour: mark.runs for mark in _find(figure, Cells)}
    assert cells == {"b2": ((1, 1, 1),), "w3": ((2, 1, 1),)}
    assert [text for text in _texts(figure) if text[0] in "+−"] == ["−1½", "+3"]
    assert [label.text for label in _find(figure, Label) if label.vertical] == ["site_0", "site_1", "site_2"]


def test_worst_site_spans_best_to_worst() -> None:
    figure = plot_worst_site(
        "Title", "Caption.",
        [{"submission": 0, "best_rank": 1, "median_rank": 1.5, "tenth_percentile_rank": 2, "worst_rank": 3,
          "worst_sites": [0], "spread": 1}],
        _make_stage([0]),
    )  # fmt: skip
    # With one submission the scale is one rank wide, and what lies beyond is held at its end.
    assert _find(figure, Lines, "other")[0].paths == (
        ((_rank_x(1, 1), compute_row_y(0)), (NARROW - 10, compute_row_y(0))),
    )


def test_critical_difference_bars_span_their_groups() -> None:
    figure = plot_critical_difference(
        "Title", "Caption.",
        {"average_rank": [3.0, 1.0, 2.0, 4.0], "critical_difference": 1.2, "friedman_p": 0.01,
         "cliques": [[1, 2], [2, 0]]},
        _make_stage([1, 2, 0, 3]),
    )  # fmt: skip
    bars = _find(figure, Lines, "c2")[0].paths
    assert [(bar[0][1], bar[1][1]) for bar in bars] == [
        (compute_row_y(0) - 5, compute_row_y(1) + 5), (compute_row_y(1) - 5, compute_row_y(2) + 5),
    ]  # fmt: skip
    assert bars[0][0][0] != bars[1][0][0]  # they overlap, so each has its own lane
    assert "1.2 ranks" in _texts(figure)
