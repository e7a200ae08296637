"""Figures as PNG files, drawn by matplotlib's Agg renderer from the same marks as the SVG."""

import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection, PolyCollection
from matplotlib.figure import Figure as Canvas

from ranking.report_marks import Areas, Block, Cells, Dots, Figure, Label, Lines, Mark, Rects
from ranking.report_style import LIGHT, PALETTE, TEXTS

_POINTS_PER_INCH = 72
_DOTS_PER_INCH = 144


def build_png_file(figure: Figure) -> bytes:
    """Bytes of a PNG file: light colours on white, two dots per unit; same figure and matplotlib, same bytes."""
    canvas = Canvas(figsize=(figure.width / _POINTS_PER_INCH, figure.height / _POINTS_PER_INCH), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, figure.width)
    axes.set_ylim(figure.height, 0)
    for order, mark in enumerate(_flatten_marks(figure.marks, 0.0)):
        _draw_mark(axes, mark, order)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A name may hold characters that the font lacks; a box in the picture says so well enough.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        canvas.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _flatten_marks(marks: Iterable[Mark], top: float) -> Iterator[Mark]:
    """Marks one after the other, those of blocks where the block stands."""
    for mark in marks:
        if isinstance(mark, Block):
            yield from _flatten_marks(mark.marks, top + mark.top)
        else:
            yield _shift_mark(mark, top) if top else mark


def _shift_mark(mark: Mark, top: float) -> Mark:
    match mark:
        case Rects():
            return replace(mark, boxes=tuple((x, y + top, width) for x, y, width in mark.boxes))
        case Cells():
            return replace(mark, top=mark.top + top)
        case Lines():
            return replace(mark, paths=tuple(tuple((x, y + top) for x, y in path) for path in mark.paths))
        case Dots():
            return replace(mark, points=tuple((x, y + top) for x, y in mark.points))
        case Areas():
            return replace(mark, polygons=tuple(tuple((x, y + top) for x, y in one) for one in mark.polygons))
        case Label():
            return replace(mark, y=mark.y + top)
        case Block():
            return replace(mark, top=mark.top + top)


def _draw_mark(axes: Axes, mark: Mark, order: int) -> None:
    match mark:
        case Rects(colour, height, boxes):
            corners = [[(x, y), (x + w, y), (x + w, y + height), (x, y + height)] for x, y, w in boxes]
            axes.add_collection(PolyCollection(corners, facecolors=_get_colour(colour), linewidths=0, zorder=order))
        case Cells():
            _draw_mark(axes, Rects(mark.colour, mark.row - 1, mark.compute_boxes()), order)
        case Areas(colour, polygons):
            shapes = [list(polygon) for polygon in polygons]
            axes.add_collection(PolyCollection(shapes, facecolors=_get_colour(colour), linewidths=0, zorder=order))
        case Lines():
            axes.add_collection(_build_lines(mark, order))
        case Dots(colour, points, diameter):
            axes.add_collection(
                EllipseCollection(
                    [diameter] * len(points), [diameter] * len(points), [0] * len(points), units="xy",
                    offsets=list(points), offset_transform=axes.transData, facecolors=_get_colour(colour),
                    linewidths=0, zorder=order,
                )
            )  # fmt: skip
        case Label():
            _draw_label(axes, mark, order)
        case Block():
            raise TypeError("blocks are taken apart before they are drawn")


def _get_colour(name: str) -> str:
    return PALETTE[name][LIGHT]


def _build_lines(mark: Lines, order: int) -> LineCollection:
    dash = (0.0, [length / mark.width for length in mark.dash]) if mark.dash else "solid"
    return LineCollection(
        [list(path) for path in mark.paths], colors=_get_colour(mark.colour), linewidths=mark.width, linestyles=dash,
        capstyle="butt", zorder=order,
    )  # fmt: skip


def _draw_label(axes: Axes, label: Label, order: int) -> None:
    colour, size, weight = TEXTS[label.style]
    aligned = {"start": "left", "middle": "center", "end": "right"}[label.anchor]
    # parse_math: a name with two dollar signs is a name, not a formula.
    if label.vertical:
        axes.text(
            label.x, label.y, label.text, color=_get_colour(colour), fontsize=size, fontweight=weight,
            rotation=90, ha="center", va="bottom", parse_math=False, zorder=order,
        )  # fmt: skip
        return
    axes.text(
        label.x, label.y, label.text, color=_get_colour(colour), fontsize=size, fontweight=weight,
        ha=aligned, va="center_baseline", parse_math=False, zorder=order,
    )  # fmt: skip
