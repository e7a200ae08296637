"""The podium figure: who is first, second, third, with which value, how often."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ranking.report_axes import (
    NARROW,
    LegendItem,
    Scale,
    Stage,
    build_legend,
    compute_log_ticks,
    compute_ticks,
)
from ranking.report_marks import Block, Dots, Figure, Label, Lines, Mark, Point, Rects
from ranking.report_plots_values import ValueRange, compute_range
from ranking.report_style import SERIES, compute_series
from ranking.report_text import format_number

_PLACES = 5
_ALL_PLACES = 6
_LEFT, _TOP, _DOTS_HEIGHT, _BARS_HEIGHT, _BETWEEN = 44.0, 26.0, 150.0, 64.0, 30.0


@dataclass(frozen=True)
class PodiumData:
    """What a podium shows."""

    values: Sequence[Sequence[float | None]]
    """[observation][A] value of every submission in a case or at a site."""
    ranks: Sequence[Sequence[float]]
    """[observation][A] its rank there; only whole ranks up to the last place shown are drawn."""
    counts: Sequence[Sequence[int]]
    """[A][A] how often each submission had each rank, over everything and not only the observations drawn."""
    value_title: str
    higher_is_better: bool


def plot_podium(name: str, title: str, caption: str, data: PodiumData, stage: Stage) -> Figure:
    """Podium: a block of columns for each place, a column for each of the best submissions and one for the others."""
    places = stage.count if stage.count <= _ALL_PLACES else _PLACES
    block = (NARROW - _LEFT - 6) / places
    columns = _Columns(block, min(stage.count, len(SERIES) + 1))
    shown = [
        value
        for values, ranks in zip(data.values, data.ranks, strict=True)
        for value, rank in zip(values, ranks, strict=True)
        if value is not None and rank <= places
    ]
    span = compute_range(data.value_title, shown)
    scale = _build_value_scale(span, data.higher_is_better)
    marks = _draw_podium_frame(places, block, span, scale)
    dots, lines = _place_observations(data, stage, places, columns, scale)
    marks.append(Lines("faint", tuple(lines), 0.6))
    marks += [Dots(colour, tuple(points), 4.2) for colour, points in sorted(dots.items())]
    marks += _draw_bars(data, stage, places, columns)
    bottom = _TOP + _DOTS_HEIGHT + _BETWEEN + _BARS_HEIGHT + 20
    legend, height = build_legend(_list_legend(stage), bottom, NARROW)
    return Figure(name, title, caption, NARROW, bottom + height, (*marks, *legend))


def _build_value_scale(span: ValueRange, higher_is_better: bool) -> Scale:
    # "Left" and "right" are y here; up is better.
    bottom, top = _TOP + _DOTS_HEIGHT, _TOP
    ends = (bottom, top) if higher_is_better else (top, bottom)
    return Scale(span.low, span.high, *ends, log=span.log)


@dataclass(frozen=True)
class _Columns:
    """Where the columns of the submissions stand."""

    block: float
    count: int

    def compute_x(self, place: int, position: int) -> float:
        """Middle of the column of the submission at a position of the final order, in the block of a place."""
        column = min(position, self.count - 1)
        return _LEFT + self.block * place + 3 + (self.block - 6) * (column + 0.5) / self.count


def _draw_podium_frame(places: int, block: float, span: ValueRange, scale: Scale) -> list[Mark]:
    bottom = _TOP + _DOTS_HEIGHT
    base = bottom + _BETWEEN + _BARS_HEIGHT
    ticks = compute_log_ticks(span.high) if span.log else compute_ticks(span.low, span.high)
    right = _LEFT + block * places
    grid = [((_LEFT, scale.compute_x(value)), (right, scale.compute_x(value))) for value, _ in ticks]
    bars = [((_LEFT, base - share * _BARS_HEIGHT), (right, base - share * _BARS_HEIGHT)) for share in (0, 0.5, 1)]
    marks: list[Mark] = [
        *(Rects("band", base - _TOP, ((_LEFT + block * place, _TOP, block),)) for place in range(1, places, 2)),
        Lines("grid", (*grid, *bars)),
        Label(2, 10, f"{span.title} (up is better{', log scale' if span.log else ''})", "x"),
        Label(2, bottom + _BETWEEN - 14, "how often at this place", "x"),
    ]
    marks += [Label(_LEFT - 5, scale.compute_x(value), text, "x", "end") for value, text in ticks]
    marks += [
        Label(_LEFT - 5, base - share * _BARS_HEIGHT, f"{format_number(share * 100)} %", "x", "end")
        for share in (0, 0.5, 1)
    ]
    marks += [
        Label(_LEFT + block * (place + 0.5), base + 10, f"place {place + 1}", "x", "middle") for place in range(places)
    ]
    return [Block(tuple(marks))]


def _place_observations(
    data: PodiumData, stage: Stage, places: int, columns: _Columns, scale: Scale
) -> tuple[dict[str, list[Point]], list[tuple[Point, ...]]]:
    dots: dict[str, list[Point]] = defaultdict(list)
    lines: list[tuple[Point, ...]] = []
    for values, ranks in zip(data.values, data.ranks, strict=True):
        path: list[Point] = []
        for position, submission in enumerate(stage.order):
            rank, value = ranks[submission], values[submission]
            if value is not None and rank == int(rank) and rank <= places:
                point = (columns.compute_x(int(rank) - 1, position), scale.compute_x(value))
                dots[compute_series(position)].append(point)
                path.append(point)
        # Tied submissions without a column of their own fall on one point.
        path = sorted(set(path))
        if len(path) > 1:
            lines.append(tuple(path))
    return {colour: sorted(set(points)) for colour, points in dots.items()}, sorted(set(lines))


def _draw_bars(data: PodiumData, stage: Stage, places: int, columns: _Columns) -> list[Mark]:
    base = _TOP + _DOTS_HEIGHT + _BETWEEN + _BARS_HEIGHT
    total = max((sum(row) for row in data.counts), default=0) or 1
    bars: dict[str, list[tuple[Point, ...]]] = defaultdict(list)
    for place in range(places):
        heights: dict[int, int] = defaultdict(int)
        for position, submission in enumerate(stage.order):
            heights[min(position, columns.count - 1)] += data.counts[submission][place]
        for column, count in heights.items():
            x = columns.compute_x(place, column)
            # The grey column adds up many submissions and could pass 100 % when they tie.
            if count:
                bars[compute_series(column)].append(((x, base), (x, base - min(1.0, count / total) * _BARS_HEIGHT)))
    width = max(1.5, (columns.block - 6) / columns.count - 1)
    return [Lines(colour, tuple(paths), width) for colour, paths in sorted(bars.items())]


def _list_legend(stage: Stage) -> list[LegendItem]:
    items: list[LegendItem] = [
        ("dot", compute_series(position), f"{position + 1} {stage.names[submission]}")
        for position, submission in enumerate(stage.order[: len(SERIES)])
    ]
    others = stage.count - len(SERIES)
    if others > 0:
        items.append(("dot", "other", f"all the other {others}" if others > 1 else f"8 {stage.names[stage.order[-1]]}"))
    return items
