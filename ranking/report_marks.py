"""A figure as a list of marks, which the SVG and the PNG writer draw alike.

Units are CSS pixels, y grows downwards. A ``colour`` is a name of :data:`ranking.report_style.PALETTE`, a text
``style`` one of :data:`ranking.report_style.TEXTS`. Marks of one colour are kept together because that makes a small
file: a heat map of 1,600 cells is eight marks.
"""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Rects:
    """Filled rectangles (left, top, width, height), all of the same height."""

    colour: str
    height: float
    boxes: tuple[tuple[float, float, float], ...]
    """(left, top, width)."""


@dataclass(frozen=True)
class Cells:
    """Filled cells of a map whose cells are all alike, in units of cells: short numbers, and a map has thousands."""

    colour: str
    left: float
    top: float
    pitch: float
    """Width of a cell."""
    row: float
    """Height of a row; a cell leaves one pixel of it free."""
    runs: tuple[tuple[int, int, int], ...]
    """(column, row, number of cells in a row)."""
    gap: float = 0.0
    """Pixels left free at the right of every run."""

    def compute_boxes(self) -> tuple[tuple[float, float, float], ...]:
        """The same as boxes (left, top, width) of height ``row - 1``."""
        return tuple(
            (self.left + column * self.pitch, self.top + row * self.row + 0.5, length * self.pitch - self.gap)
            for column, row, length in self.runs
        )


@dataclass(frozen=True)
class Lines:
    """Stroked polylines."""

    colour: str
    paths: tuple[tuple[Point, ...], ...]
    width: float = 1.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dots:
    """Filled circles of one diameter."""

    colour: str
    points: tuple[Point, ...]
    diameter: float


@dataclass(frozen=True)
class Areas:
    """Filled polygons."""

    colour: str
    polygons: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class Label:
    """One line of text; ``y`` is its middle, not its baseline. ``full`` is what was shortened, shown as tooltip."""

    x: float
    y: float
    text: str
    style: str = "t"
    anchor: Anchor = "start"
    vertical: bool = False
    """Turned by a quarter, read from bottom to top; it starts at (x, y) and goes up."""
    full: str = ""


@dataclass(frozen=True)
class Block:
    """Marks that several figures have in common, such as names and grids: a page stores them once."""

    marks: tuple["Mark", ...]
    """Placed as if ``top`` were 0."""
    top: float = 0.0


Mark = Rects | Cells | Lines | Dots | Areas | Label | Block


@dataclass(frozen=True)
class Figure:
    """A drawing with what a reader who cannot see it needs."""

    name: str
    """File name without extension: letters, digits, ``-`` and ``_`` only."""
    title: str
    caption: str
    """How to read it, in about two sentences."""
    width: float
    height: float
    marks: tuple[Mark, ...]
