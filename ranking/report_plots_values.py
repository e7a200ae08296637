"""Figures of values: dot and box plots, violins of Kendall's tau."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranking.document import Box, Document, Tau
from ranking.report_axes import (
    LABELS,
    NARROW,
    ROW,
    Scale,
    Stage,
    build_frame,
    build_row_labels,
    compute_log_ticks,
    compute_row_y,
    compute_rows_height,
    compute_ticks,
)
from ranking.report_marks import Areas, Dots, Figure, Label, Lines, Mark, Point, Rects
from ranking.report_text import format_name

_LOG_RATIO = 20.0
_VIOLIN_POINTS = 32


@dataclass(frozen=True)
class ValueRange:
    """Range of one metric over all sites, so that the plots of different sites can be compared."""

    title: str
    low: float
    high: float
    log: bool


def compute_value_range(document: Document, metric: int) -> ValueRange:
    """Smallest and largest value of a metric over all sites and submissions.

    The scale becomes logarithmic (of 1 + value) when the largest value is more than 20 times the typical one, as with
    surface distances and their penalties.
    """
    info = document["metrics"][metric]
    boxes = [box for site in document["per_site"] for box in site["metrics"][metric]["box"] if box is not None]
    numbers = [box[end] for box in boxes for end in ("low", "q1", "median", "q3", "high")]
    bounds = (info["low"], info["high"])
    return compute_range(format_name(info["name"]), [number for number in numbers if number is not None], bounds)


def compute_range(
    title: str, numbers: Sequence[float], bounds: tuple[float | None, float | None] = (None, None)
) -> ValueRange:
    """Range of some numbers; a quantity with two bounds is shown on its whole range."""
    if not numbers:
        return ValueRange(title, 0.0, 1.0, False)
    finite = sorted(numbers)
    low, high = finite[0], finite[-1]
    if low >= 0 and high > 10 and high > _LOG_RATIO * finite[len(finite) // 2]:
        return ValueRange(title, 0.0, high, True)
    if bounds[0] is not None and bounds[1] is not None:
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return ValueRange(title, low, high if high > low else low + 1.0, False)


@dataclass(frozen=True)
class Spread:
    """One row of a dot and box plot; a None is not drawn."""

    box: Box | None
    points: Sequence[float | None]


def plot_spreads(
    name: str, title: str, caption: str, spreads: Sequence[Spread], values: ValueRange, stage: Stage
) -> Figure:
    """Dot and box plot: a row for each submission, in the final order.

    Parameters
    ----------
    spreads : sequence of Spread
        [A] in order of input.
    """
    scale = Scale(values.low, values.high, LABELS + 4, NARROW - 10, values.log)
    ticks = compute_log_ticks(values.high) if values.log else compute_ticks(values.low, values.high)
    marks = build_frame(stage.rows, stage.count, scale, ticks, values.title + (" (log scale)" if values.log else ""))
    rows = [(compute_row_y(row), spreads[submission]) for row, submission in enumerate(stage.order)]
    dots = [(scale.compute_x(value), at) for y, spread in rows for value, at in _spread_out(spread, y)]
    boxes = [(y, spread.box) for y, spread in rows if spread.box is not None]
    bodies, medians = _draw_boxes(boxes, scale)
    marks += [*bodies, Dots("c1", tuple(dots), 2.0), medians]
    return Figure(name, title, caption, NARROW, compute_rows_height(stage.count), tuple(marks))


def _spread_out(spread: Spread, y: float) -> list[tuple[float, float]]:
    """Finite values with y positions moved a little up and down in turn, so that equal values stay visible."""
    shifts = (0.0, 2.4, -2.4, 4.2, -4.2)
    return [(value, y + shifts[index % 5]) for index, value in enumerate(spread.points) if value is not None]


def _draw_boxes(boxes: Sequence[tuple[float, Box]], scale: Scale) -> tuple[list[Mark], Mark]:
    """What stands behind the dots, and the medians in front of them."""
    whiskers: list[tuple[Point, ...]] = []
    bodies: list[tuple[float, float, float]] = []
    medians: list[tuple[Point, ...]] = []
    extremes: list[Point] = []
    height = ROW - 5
    for y, box in boxes:
        q1, q3, median = box["q1"], box["q3"], box["median"]
        low, high = box["whisker_low"], box["whisker_high"]
        if low is not None and high is not None:
            whiskers.append(((scale.compute_x(low), y), (scale.compute_x(high), y)))
        if q1 is not None and q3 is not None:
            left = scale.compute_x(q1)
            bodies.append((left, y - height / 2, max(scale.compute_x(q3) - left, 0.8)))
        if median is not None:
            medians.append(((scale.compute_x(median), y - height / 2), (scale.compute_x(median), y + height / 2)))
        for end, whisker in ((box["low"], low), (box["high"], high)):
            if end is not None and end != whisker:
                extremes.append((scale.compute_x(end), y))
    behind: list[Mark] = [
        Lines("rule", tuple(whiskers)),
        Rects("s3", height, tuple(bodies)),
        Dots("rule", tuple(extremes), 2.6),
    ]
    return behind, Lines("ink", tuple(medians), 2.0)


def compute_spread(values: Sequence[float | None]) -> Spread:
    """Box over given values (quartiles of R type 7, whiskers as in :class:`ranking.document.Box`), for drawing only."""
    finite = np.sort(np.array([value for value in values if value is not None], dtype=float))
    if finite.size == 0:
        return Spread(None, values)
    low, q1, median, q3, high = (float(number) for number in np.quantile(finite, [0.0, 0.25, 0.5, 0.75, 1.0]))
    reach = 1.5 * (q3 - q1)
    inside = finite[(finite >= q1 - reach) & (finite <= q3 + reach)]
    box = Box(
        low=low, q1=q1, median=median, q3=q3, high=high, whisker_low=float(inside[0]), whisker_high=float(inside[-1]),
        mean=None, missing=len(values) - finite.size,
    )  # fmt: skip
    return Spread(box, values)


def plot_violins(name: str, title: str, caption: str, taus: Sequence[tuple[str, Tau | None]]) -> Figure:
    """Violins of Kendall's tau, a row each: outline = density, bar = middle half, stroke = median."""
    found = [tau["percentiles"] for _, tau in taus if tau is not None]
    lowest = min((percentiles[0] for percentiles in found if percentiles is not None), default=0.0)
    scale = Scale(min(0.8, math.floor(lowest * 10) / 10), 1.0, LABELS + 4, NARROW - 14)
    rows = build_row_labels([label for label, _ in taus], keyed=False)
    ticks = compute_ticks(scale.low, 1.0, 4)
    marks = build_frame(rows, len(taus), scale, ticks, "Kendall's tau with the full ranking")
    outlines: list[tuple[Point, ...]] = []
    halves: list[tuple[Point, ...]] = []
    medians: list[tuple[Point, ...]] = []
    for row, (_, tau) in enumerate(taus):
        y = compute_row_y(row)
        percentiles = None if tau is None else tau["percentiles"]
        if percentiles is None:
            marks.append(Label(LABELS + 8, y, "not defined", "x"))
            continue
        x25, x50, x75 = (scale.compute_x(percentiles[rank]) for rank in (25, 50, 75))
        outlines.append(_build_violin(percentiles, scale, y))
        halves.append(((x25, y), (x75, y)))
        medians.append(((x50, y - 4.5), (x50, y + 4.5)))
    marks += [
        Areas("s3", tuple(outlines)),
        Lines("s6", tuple(halves), 2.4),
        Lines("ink", tuple(medians), 1.8),
    ]
    return Figure(name, title, caption, NARROW, compute_rows_height(len(taus)), tuple(marks))


def _build_violin(percentiles: Sequence[float], scale: Scale, y: float) -> tuple[Point, ...]:
    """Outline of a Gaussian kernel density over the percentiles (Silverman's bandwidth), as high as the row."""
    values = np.asarray(percentiles, dtype=float)
    spread = min(float(values.std()), (float(values[75]) - float(values[25])) / 1.34) or float(values.std())
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 0.004)
    grid = np.linspace(values[0], values[-1], _VIOLIN_POINTS)
    density = np.exp(-0.5 * ((grid[:, None] - values[None, :]) / bandwidth) ** 2).sum(axis=1)
    half = density / density.max() * (ROW / 2 - 0.8)
    xs = [scale.compute_x(float(value)) for value in grid]
    upper = [(x, y - float(height)) for x, height in zip(xs, half, strict=True)]
    lower = [(x, y + float(height)) for x, height in zip(xs, half, strict=True)]
    if xs[-1] - xs[0] < 1.5:
        # All draws agree: a violin of no width would be invisible.
        left, right = xs[0] - 0.8, xs[-1] + 0.8
        return ((left, y - ROW / 2 + 1), (right, y - ROW / 2 + 1), (right, y + ROW / 2 - 1), (left, y + ROW / 2 - 1))
    return (*upper, *reversed(lower))
