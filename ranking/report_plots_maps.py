"""Figures of submissions against submissions, and of one ranking against another."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ranking.document import CriticalDifference
from ranking.report_axes import (
    LABELS,
    NARROW,
    ROW,
    TOP,
    Scale,
    Stage,
    build_frame,
    build_legend,
    compute_rank_ticks,
    compute_row_y,
    compute_rows_height,
    compute_width,
)
from ranking.report_marks import Block, Dots, Figure, Label, Lines, Mark, Point
from ranking.report_plots_ranks import build_cells, build_count_legend, build_share_legend
from ranking.report_style import SERIES, compute_series, compute_step
from ranking.report_text import format_number, shorten_text, split_camel_case

_HEADER_LINE = 10.0


def plot_pairs(
    name: str, title: str, caption: str, shares: Sequence[Sequence[float]], stage: Stage,
    counted: tuple[int, str] | None = None, narrow: bool = False,
) -> Figure:  # fmt: skip
    """Map of a share (0 to 1) for every ordered pair of submissions, row against column.

    ``counted`` is the count that a share of 1 means, and of what; without it the legend is in per cent.
    """
    width = compute_width(stage.count, narrow)
    pitch = (width - 10 - LABELS) / stage.count
    scale = Scale(0.5, stage.count + 0.5, LABELS, width - 10)
    ticks = compute_rank_ticks(stage.count, width - 10 - LABELS)
    marks = build_frame(stage.rows, stage.count, scale, ticks, "column: the submission with this number")
    colours = [
        ["faint" if one == other else _choose_colour(shares[one][other]) for other in stage.order]
        for one in stage.order
    ]
    marks += build_cells(colours, LABELS, TOP, pitch)
    height = compute_rows_height(stage.count)
    legend, legend_height = (
        build_count_legend(height, width, *counted) if counted else build_share_legend(height, width)
    )
    return Figure(name, title, caption, width, height + legend_height, (*marks, *legend))


def _choose_colour(share: float) -> str:
    return compute_step(share) if share > 0 else ""


def plot_lines(
    name: str, title: str, caption: str, ranks: Mapping[str, Sequence[float]], stage: Stage, narrow: bool = False
) -> Figure:
    """One line per submission over several rankings: from its name, in the order of the first, to its number.

    Parameters
    ----------
    ranks : mapping of str to sequence of float
        Heading of the column -> [A] rank in order of input.
    """
    headings = [split_camel_case(heading) for heading in ranks]
    columns = list(ranks.values())
    width = NARROW if len(columns) < 4 else compute_width(stage.count, narrow)
    left, right = LABELS + 16, width - 32
    xs = [left + (right - left) * (index / max(len(columns) - 1, 1)) for index in range(len(columns))]
    top = 8 + _HEADER_LINE * max(len(words) for words in headings) + 6
    marks: list[Mark] = [
        Label(x, 6 + _HEADER_LINE * line, word, "h", "middle")
        for x, words in zip(xs, headings, strict=True)
        for line, word in enumerate(words)
    ]
    marks.append(Lines("grid", tuple(((x, top), (x, top + ROW * stage.count)) for x in xs)))
    marks += _draw_ends(columns[0], stage, top, xs[0], at_left=True)
    marks += _draw_ends(columns[-1], stage, top, xs[-1], at_left=False)
    paths: dict[str, list[tuple[Point, ...]]] = defaultdict(list)
    for position in reversed(range(stage.count)):
        submission = stage.order[position]
        path = tuple((x, top + ROW * (ranks[submission] - 0.5)) for x, ranks in zip(xs, columns, strict=True))
        paths[compute_series(position)].append(path)
    for colour, found in paths.items():
        line, size = (2.2, 5.0) if colour in SERIES else (1.1, 3.0)
        marks.append(Lines(colour, tuple(found), line))
        marks.append(Dots(colour, tuple(point for path in found for point in path), size))
    return Figure(name, title, caption, width, top + ROW * stage.count + 6, tuple(marks))


def _draw_ends(ranks: Sequence[float], stage: Stage, top: float, x: float, at_left: bool) -> list[Mark]:
    """Names (left) or key numbers (right), one per row, joined to where the lines end when ranks are tied."""
    ordered = sorted(range(stage.count), key=lambda position: (ranks[stage.order[position]], position))
    leaders: list[tuple[Point, ...]] = []
    labels: list[Label] = []
    for slot, position in enumerate(ordered):
        submission, y = stage.order[position], ROW * (slot + 0.5)
        if at_left:
            labels += _build_row(stage, submission, slot)
        else:
            labels.append(Label(x + 12, y, str(position + 1), "k"))
        leaders.append(((x - 12 if at_left else x + 10, top + y), (x, top + ROW * (ranks[submission] - 0.5))))
    return [Lines("faint", tuple(leaders), 0.8), Block(tuple(labels), top)]


def plot_critical_difference(title: str, caption: str, diagram: CriticalDifference, stage: Stage) -> Figure:
    """Average ranks over sites, with bars at the right that join submissions within the critical difference."""
    average = diagram["average_rank"]
    order = sorted(stage.order, key=lambda submission: (average[submission], stage.get_key(submission)))
    rows = [row for submission in order for row in _build_row(stage, submission, order.index(submission))]
    lanes = _assign_lanes(diagram["cliques"], order)
    used = max(lanes, default=-1) + 1
    right = NARROW - 14 - 7.0 * used
    scale = Scale(0.5, stage.count + 0.5, LABELS, right)
    ticks = compute_rank_ticks(stage.count, right - LABELS)
    marks = build_frame(tuple(rows), stage.count, scale, ticks, "average rank over sites")
    dots = tuple((scale.compute_x(average[submission]), compute_row_y(row)) for row, submission in enumerate(order))
    bars: list[tuple[Point, ...]] = []
    for clique, lane in zip(diagram["cliques"], lanes, strict=True):
        places = [order.index(submission) for submission in clique]
        x = right + 7 + 7.0 * lane
        bars.append(((x, compute_row_y(min(places)) - 5), (x, compute_row_y(max(places)) + 5)))
    height = compute_rows_height(stage.count)
    difference = diagram["critical_difference"]
    length = (right - LABELS) / stage.count * min(difference, stage.count)
    marks += [Dots("c1", dots, 6), Lines("c2", tuple(bars), 2.6)]
    marks += [
        Lines("ink", (((LABELS, height + 9), (LABELS + length, height + 9)),), 2),
        Label(LABELS - 8, height + 9, "critical difference", "x", "end"),
        Label(LABELS, height + 22, f"{format_number(difference)} ranks", "x"),
    ]
    return Figure("critical_difference", title, caption, NARROW, height + 32, tuple(marks))


def _build_row(stage: Stage, submission: int, row: int) -> list[Label]:
    y, name = ROW * (row + 0.5), stage.names[submission]
    key = Label(17, y, str(stage.get_key(submission)), "k", "end")
    return [key, Label(22, y, shorten_text(name, 10.5, LABELS - 28), "t", full=name)]


def _assign_lanes(cliques: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Lane of each bar so that bars in one lane do not touch."""
    ends: list[int] = []
    lanes: list[int] = []
    for clique in cliques:
        places = [order.index(submission) for submission in clique]
        lane = next((index for index, end in enumerate(ends) if end < min(places)), len(ends))
        if lane == len(ends):
            ends.append(0)
        ends[lane] = max(places)
        lanes.append(lane)
    return lanes


def build_direction_legend(top: float, width: float) -> tuple[list[Mark], float]:
    """Legend of a map of rank changes."""
    return build_legend(
        [
            ("rect", "b2", "better without the site"),
            ("rect", "w2", "worse without the site"),
        ],
        top, width,
    )  # fmt: skip
