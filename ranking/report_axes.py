"""What the figures share: rows with names at the left, scales, ticks, legends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ranking.document import Document
from ranking.report_marks import Block, Dots, Label, Lines, Mark, Rects
from ranking.report_text import compute_text_width, format_name, format_number, shorten_text

NARROW = 360.0
"""Width of a figure that a phone shows without scrolling."""
WIDE = 590.0
"""Width of a figure of which two fit side by side on a desk; a phone scrolls it."""
HUGE = 640.0
"""Figures wider than this keep their size and scroll everywhere."""
ROW = 15.0
LABELS = 134.0
TOP = 36.0
_RIGHT_MARGIN = 10.0
_KEY_RIGHT = 17.0
_NAME_LEFT = 22.0
_MANY_ROWS = 14
_WIDE_FROM = 18


@dataclass(frozen=True)
class Scale:
    """Maps values to x. ``log`` is log(1 + value), for distances with a few very large values."""

    low: float
    high: float
    left: float
    right: float
    log: bool = False

    def compute_x(self, value: float) -> float:
        """Position of a value, held inside the scale."""
        value = min(max(value, self.low), self.high)
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log1p(low), math.log1p(high), math.log1p(value)
        if high == low:
            return (self.left + self.right) / 2
        return self.left + (value - low) / (high - low) * (self.right - self.left)


@dataclass(frozen=True)
class Stage:
    """Names and orders that all figures of one document use."""

    order: tuple[int, ...]
    """Submissions from the first row to the last: the final order."""
    names: tuple[str, ...]
    """[A] as shown."""
    rows: tuple[Label, ...]
    """Row labels of the submissions in ``order``: key number and shortened name."""
    sites: tuple[str, ...]
    """[S] as shown."""
    site_rows: tuple[Label, ...]
    """Row labels of the sites in order of input."""

    @property
    def count(self) -> int:
        """Number of submissions."""
        return len(self.order)

    def get_key(self, submission: int) -> int:
        """Number of a submission in the figures: its place, from 1, in the final order."""
        return self.order.index(submission) + 1


def build_stage(document: Document) -> Stage:
    """Names, keys and row labels of one document."""
    names = tuple(format_name(name) for name in document["submissions"])
    sites = tuple(format_name(name) for name in document["sites"])
    order = tuple(document["federation"]["order"])
    rows = build_row_labels([names[submission] for submission in order], keyed=True)
    return Stage(order, names, rows, sites, build_row_labels(sites, keyed=False))


def build_row_labels(names: Sequence[str], keyed: bool) -> tuple[Label, ...]:
    """Labels of rows that start at y = 0, with key numbers 1, 2, ... when ``keyed``."""
    labels: list[Label] = []
    left = _NAME_LEFT if keyed else 2.0
    for row, name in enumerate(names):
        y = ROW * (row + 0.5)
        if keyed:
            labels.append(Label(_KEY_RIGHT, y, str(row + 1), "k", "end"))
        labels.append(Label(left, y, shorten_text(name, 10.5, LABELS - left - 6), "t", full=name))
    return tuple(labels)


def compute_width(columns: int, narrow: bool = False) -> float:
    """Width of a figure with a column for each submission or site."""
    return NARROW if narrow or columns < _WIDE_FROM else WIDE


def compute_row_y(row: int) -> float:
    """Middle of a row."""
    return TOP + ROW * (row + 0.5)


def compute_rows_height(rows: int) -> float:
    """Height of a figure of rows with ticks above and, when it is long, below."""
    return TOP + ROW * rows + (18.0 if rows > _MANY_ROWS else 5.0)


def build_frame(
    rows: tuple[Label, ...], count: int, scale: Scale, ticks: Sequence[tuple[float, str]], axis_title: str,
) -> list[Mark]:  # fmt: skip
    """Bands behind every second row, grid, ticks, title of the x axis, names."""
    bottom = ROW * count
    bands = tuple((0.0, ROW * row, scale.right) for row in range(1, count, 2))
    places = [(scale.compute_x(value), text) for value, text in ticks]
    marks: list[Mark] = [
        Rects("band", ROW, bands),
        Lines("grid", tuple(((x, 0.0), (x, bottom)) for x, _ in places)),
        Block(rows),
    ]
    # A long number at the right end moves left as far as it has to.
    last = scale.right + _RIGHT_MARGIN
    middles = [(min(x, last - compute_text_width(text, 9.5) / 2), text) for x, text in places]
    marks += [Label(x, -9, text, "x", "middle") for x, text in middles]
    if count > _MANY_ROWS:
        marks += [Label(x, bottom + 9, text, "x", "middle") for x, text in middles]
    return [Block(tuple(marks), TOP), Label((scale.left + scale.right) / 2, 10, axis_title, "x", "middle")]


def build_rank_scale(count: int, width: float) -> Scale:
    """Scale of ranks 1 .. count, half a rank of space at each end."""
    return Scale(0.5, count + 0.5, LABELS, width - _RIGHT_MARGIN)


def compute_rank_ticks(count: int, room: float) -> list[tuple[float, str]]:
    """Ranks to write under a scale of ``room`` pixels: 1 and round numbers, never one too close to another."""
    needed = 17 if count > 9 else 9
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if room / max(count, 1) * step >= needed), 200)
    ranks = range(1, count + 1, step) if step < 5 else [1, *range(step, count + 1, step)]
    return [(float(rank), str(rank)) for rank in ranks]


def compute_ticks(low: float, high: float, wanted: int = 5) -> list[tuple[float, str]]:
    """Round numbers inside [low, high], about ``wanted`` of them."""
    span = high - low
    if not span > 0:
        return [(low, format_number(low, 3))]
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(index * step, _format_tick(index * step)) for index in range(first, last + 1)]


def compute_log_ticks(high: float) -> list[tuple[float, str]]:
    """0 and powers of ten up to ``high``."""
    ticks = [0.0] + [10.0**power for power in range(0, 16) if 10.0**power <= high]
    return [(tick, _format_tick(tick)) for tick in ticks]


def _format_tick(value: float) -> str:
    return f"{value:.2g}".replace("-", "−") if abs(value) >= 1e5 else format_number(value, 6)


LegendItem = tuple[Literal["dot", "line", "rect"], str, str]
"""Kind of swatch, colour, text."""


def build_legend(items: Sequence[LegendItem], top: float, width: float) -> tuple[list[Mark], float]:
    """Swatches with their texts, as many lines as needed; the marks and the height that they take."""
    marks: list[Mark] = []
    x, y = 4.0, top + 10
    for kind, colour, text in items:
        needed = 20 + compute_text_width(text, 9.5) + 12
        if x > 4 and x + needed > width:
            x, y = 4.0, y + 15
        if kind == "dot":
            marks.append(Dots(colour, ((x + 7, y),), 7))
        elif kind == "line":
            marks.append(Lines(colour, (((x, y), (x + 14, y)),), 2.5))
        else:
            marks.append(Rects(colour, 8, ((x, y - 4, 14),)))
        marks.append(Label(x + 20, y, shorten_text(text, 9.5, width - 28), "x"))
        x += needed
    return marks, y + 8 - top
