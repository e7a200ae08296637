"""Figures of ranks: intervals, heat map, bootstrap blobs."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from ranking.document import Document, FinalRow, Interval, RankBootstrap
from ranking.report_axes import (
    ROW,
    TOP,
    LegendItem,
    Scale,
    Stage,
    build_frame,
    build_legend,
    build_rank_scale,
    compute_rank_ticks,
    compute_row_y,
    compute_rows_height,
    compute_width,
)
from ranking.report_marks import Cells, Dots, Figure, Lines, Mark, Point, Rects
from ranking.report_style import compute_step
from ranking.report_text import format_number

# Kind of resampling -> colour, words, distance of its line from the middle of the row.
RESAMPLINGS: dict[str, tuple[str, str, float]] = {
    "cases": ("c1", "cases drawn again", -4.0),
    "sites": ("c2", "sites drawn again", 0.0),
    "sites+cases": ("c3", "sites and cases drawn again", 4.0),
}
_BLOB_SIZES = 10
_LEAST_SHARE = 0.01
"""Rarer ranks are not drawn: one per cent of the draws would be a dot of one pixel."""


def plot_intervals(document: Document, stage: Stage) -> Figure:
    """Final rank of every submission with its intervals by kind of resampling and its simultaneous set."""
    table = {row["submission"]: row for row in document["federation"]["final_table"]}
    rows = [table[submission] for submission in stage.order]
    width = compute_width(stage.count)
    scale = build_rank_scale(stage.count, width)
    ticks = compute_rank_ticks(stage.count, scale.right - scale.left)
    marks = build_frame(stage.rows, stage.count, scale, ticks, "final rank (1 is best)")
    legend: list[LegendItem] = [("dot", "ink", "final rank")]
    sets = [(index, row["rank_set"]) for index, row in enumerate(rows) if row["rank_set"] is not None]
    if sets:
        marks.append(_draw_rank_sets(sets, scale))
        legend.append(("rect", "grid", "simultaneous 95 % set"))
    for name, (colour, words, shift) in RESAMPLINGS.items():
        paths = _build_interval_paths(rows, name, shift, scale)
        if paths:
            marks.append(Lines(colour, paths, 2.2))
            legend.append(("line", colour, f"95 %, {words}"))
    dots = tuple((scale.compute_x(row["final_rank"]), compute_row_y(index)) for index, row in enumerate(rows))
    bottom = compute_rows_height(stage.count)
    legend_marks, height = build_legend(legend, bottom, width)
    return Figure(
        "rank_intervals", "Final ranks and their uncertainty",
        "The dot is the final rank; a coloured line holds 95 % of the ranks seen when cases, sites or both are drawn "
        "again, and the grey bar belongs to a set that holds the true ranks of all submissions at once with 95 % "
        "confidence. Where lines overlap widely, the order of the submissions is not certain.",
        width, bottom + height, (*marks, Dots("ink", dots, 5.5), *legend_marks),
    )  # fmt: skip


def _draw_rank_sets(sets: Sequence[tuple[int, Interval | None]], scale: Scale) -> Rects:
    boxes: list[tuple[float, float, float]] = []
    for index, interval in sets:
        if interval is not None:
            left, right = scale.compute_x(interval[0] - 0.4), scale.compute_x(interval[1] + 0.4)
            boxes.append((left, compute_row_y(index) - (ROW - 2) / 2, right - left))
    return Rects("grid", ROW - 2, tuple(boxes))


def _build_interval_paths(
    rows: Sequence[FinalRow], name: str, shift: float, scale: Scale
) -> tuple[tuple[Point, ...], ...]:
    paths: list[tuple[Point, ...]] = []
    for index, row in enumerate(rows):
        interval = row["intervals"].get(name)
        if interval is not None:
            y = compute_row_y(index) + shift
            # A line of no length cannot be seen: an interval of one rank is drawn a little wider than the rank.
            paths.append(((scale.compute_x(interval[0] - 0.15), y), (scale.compute_x(interval[1] + 0.15), y)))
    return tuple(paths)


def plot_rank_heatmap(
    name: str, title: str, caption: str, counts: Sequence[Sequence[int]], stage: Stage, narrow: bool = False
) -> Figure:
    """How often each submission had each rank, as a map of submissions and ranks.

    Parameters
    ----------
    counts : sequence of sequence of int
        [A][A], row = submission in order of input, column = rank - 1.
    """
    width = compute_width(stage.count, narrow)
    scale = build_rank_scale(stage.count, width)
    ticks = compute_rank_ticks(stage.count, scale.right - scale.left)
    marks = build_frame(stage.rows, stage.count, scale, ticks, "rank (1 is best)")
    pitch = (scale.right - scale.left) / stage.count
    total = max(sum(row) for row in counts) or 1
    most = max(max(row) for row in counts) or 1
    colours = [[compute_step(count / most) if count else "" for count in counts[one]] for one in stage.order]
    marks += build_cells(colours, scale.left, TOP, pitch)
    height = compute_rows_height(stage.count)
    legend, legend_height = build_share_legend(height, width, most=100.0 * most / total)
    return Figure(name, title, caption, width, height + legend_height, (*marks, *legend))


def build_cells(colours: Sequence[Sequence[str]], left: float, top: float, pitch: float) -> list[Mark]:
    """Cells of a map, one mark for each colour; ``""`` is no cell.

    Cells wide enough to be counted stand apart; of narrow ones those of one colour join.
    """
    gap = 1.0 if pitch >= 9 else 0.0
    runs: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for row, line in enumerate(colours):
        column = 0
        for colour, same in groupby(line):
            length = len(list(same))
            if colour and gap:
                runs[colour] += [(column + step, row, 1) for step in range(length)]
            elif colour:
                runs[colour].append((column, row, length))
            column += length
    return [Cells(colour, left, top, pitch, ROW, tuple(found), gap) for colour, found in sorted(runs.items())]


def build_share_legend(top: float, width: float, most: float = 100.0) -> tuple[list[Mark], float]:
    """Legend of a map of shares: what its lightest, a middle and its darkest colour stand for, in per cent."""
    items: list[LegendItem] = [
        ("rect", f"s{step}", f"{_say_share(most * (step - 1) / 8)}–{_say_share(most * step / 8)} %")
        for step in (1, 4, 8)
    ]
    return build_legend(items, top, width)


def build_count_legend(top: float, width: float, most: int, noun: str) -> tuple[list[Mark], float]:
    """Legend of a map of counts up to ``most``, in whole numbers."""
    items: list[LegendItem] = []
    for step in range(1, 9):
        counts = [count for count in range(1, most + 1) if compute_step(count / most) == f"s{step}"]
        if counts and (most <= 8 or step in (1, 4, 8)):
            text = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
            items.append(("rect", f"s{step}", text))
    kind, colour, text = items[-1]
    items[-1] = (kind, colour, f"{text} {noun}")
    return build_legend(items, top, width)


def _say_share(value: float) -> str:
    return format_number(value, 0 if value >= 10 else 1)


def plot_blobs(
    name: str, title: str, caption: str, bootstrap: RankBootstrap, stage: Stage, narrow: bool = False
) -> Figure:
    """Ranks of every submission under bootstrap: area = share of draws, line = 95 % interval, stroke = median."""
    width = compute_width(stage.count, narrow)
    scale = build_rank_scale(stage.count, width)
    pitch = (scale.right - scale.left) / stage.count
    largest = min(ROW - 2.0, max(pitch * 1.7, 5.0))
    ticks = compute_rank_ticks(stage.count, scale.right - scale.left)
    marks = build_frame(stage.rows, stage.count, scale, ticks, "rank (1 is best)")
    blobs: dict[int, list[Point]] = defaultdict(list)
    for row, submission in enumerate(stage.order):
        y = compute_row_y(row)
        for rank, count in enumerate(bootstrap["rank_counts"][submission], start=1):
            if count >= _LEAST_SHARE * bootstrap["draws"]:
                size = math.ceil(math.sqrt(count / bootstrap["draws"]) * _BLOB_SIZES - 1e-9)
                blobs[size].append((scale.compute_x(rank), y))
    marks += [
        Dots("s5", tuple(points), max(1.6, largest * size / _BLOB_SIZES)) for size, points in sorted(blobs.items())
    ]
    marks += _draw_medians(bootstrap, stage, scale)
    height = compute_rows_height(stage.count)
    items: list[LegendItem] = [("dot", "s5", "area: share of draws"), ("line", "ink", "95 %, stroke at the median")]
    legend, legend_height = build_legend(items, height, width)
    return Figure(name, title, caption, width, height + legend_height, (*marks, *legend))


def _draw_medians(bootstrap: RankBootstrap, stage: Stage, scale: Scale) -> list[Mark]:
    intervals: list[tuple[Point, ...]] = []
    medians: list[tuple[Point, ...]] = []
    for row, submission in enumerate(stage.order):
        y = compute_row_y(row)
        low, high = bootstrap["interval"][submission]
        if high > low:
            intervals.append(((scale.compute_x(low), y), (scale.compute_x(high), y)))
        x = scale.compute_x(bootstrap["median"][submission])
        medians.append(((x, y - 5), (x, y + 5)))
    return [Lines("ink", tuple(intervals), 1.0), Lines("ink", tuple(medians), 1.8)]
