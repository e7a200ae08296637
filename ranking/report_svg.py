"""Figures as SVG: inside the page, or as files that stand alone."""

from collections import Counter
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape

from ranking.report_marks import Areas, Block, Cells, Dots, Figure, Label, Lines, Mark, Rects
from ranking.report_style import LIGHT, PALETTE, TEXTS, build_figure_css

# From the middle of a line of text to its baseline, as a share of the font size.
_BASELINE = 0.36

SharedBlocks = Mapping[tuple[Mark, ...], str]
"""Marks of a block that the page holds once -> id of the element that holds them."""


def format_coordinate(value: float) -> str:
    """Coordinate with one decimal, as short as SVG allows."""
    return _format_tenths(round(value * 10))


def _format_tenths(tenths: int) -> str:
    whole, rest = divmod(abs(tenths), 10)
    digits = f"{whole or ''}.{rest}" if rest else str(whole)
    return f"-{digits}" if tenths < 0 else digits


class _PathData:
    """Path commands relative to the point before, in tenths: a third shorter than absolute ones, without drift."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._x = self._y = 0

    def move(self, x: float, y: float) -> None:
        self._step("m" if self._parts else "M", x, y)

    def draw(self, x: float, y: float) -> None:
        """Line from the point before."""
        tenths_x, tenths_y = round(x * 10), round(y * 10)
        if tenths_y == self._y:
            self._parts.append(f"h{_format_tenths(tenths_x - self._x)}")
        elif tenths_x == self._x:
            self._parts.append(f"v{_format_tenths(tenths_y - self._y)}")
        else:
            self._step("l", x, y)
        self._x, self._y = tenths_x, tenths_y

    def close(self) -> None:
        self._parts.append("z")

    def _step(self, command: str, x: float, y: float) -> None:
        tenths_x, tenths_y = round(x * 10), round(y * 10)
        first, second = _format_tenths(tenths_x - self._x), _format_tenths(tenths_y - self._y)
        self._parts.append(f"{command}{first}{'' if second.startswith('-') else ' '}{second}")
        self._x, self._y = tenths_x, tenths_y

    def build(self) -> str:
        return "".join(self._parts)


def _write_rects(mark: Rects) -> str:
    # A thick line is half as long as a rectangle's outline, and a map has thousands of them.
    data = _PathData()
    for left, top, width in mark.boxes:
        data.move(left, top + mark.height / 2)
        data.draw(left + width, top + mark.height / 2)
    return f'<path class="{mark.colour}" stroke-width="{format_coordinate(mark.height)}" d="{data.build()}"/>'


def _write_cells(mark: Cells) -> str:
    gap = mark.gap / mark.pitch
    data = _PathData()
    for column, row, length in mark.runs:
        data.move(column, row)
        data.draw(column + length - gap, row)
    left, middle = format_coordinate(mark.left), format_coordinate(mark.top + mark.row / 2)
    place = f"translate({left} {middle})scale({mark.pitch:.4g} {mark.row:.4g})"
    height = (mark.row - 1) / mark.row
    return f'<path class="{mark.colour}" transform="{place}" stroke-width="{height:.3g}" d="{data.build()}"/>'


def _write_lines(mark: Lines) -> str:
    data = _PathData()
    for start, *others in mark.paths:
        data.move(*start)
        for point in others:
            data.draw(*point)
    dash = f' stroke-dasharray="{" ".join(map(format_coordinate, mark.dash))}"' if mark.dash else ""
    width = "" if mark.width == 1 else f' stroke-width="{format_coordinate(mark.width)}"'
    return f'<path class="{mark.colour}"{width}{dash} d="{data.build()}"/>'


def _write_dots(mark: Dots) -> str:
    # A line of no length with round ends is a circle in few characters.
    data = _PathData()
    for x, y in mark.points:
        data.move(x, y)
        data.draw(x, y)
    width = format_coordinate(mark.diameter)
    return f'<path class="{mark.colour}" stroke-width="{width}" stroke-linecap="round" d="{data.build()}"/>'


def _write_areas(mark: Areas) -> str:
    parts: list[str] = []
    for start, *others in mark.polygons:
        data = _PathData()
        data.move(*start)
        for point in others:
            data.draw(*point)
        data.close()
        parts.append(data.build())
    return f'<path class="f-{mark.colour}" d="{"".join(parts)}"/>'


def _write_label(mark: Label) -> str:
    baseline = _BASELINE * TEXTS[mark.style][1]
    anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
    tooltip = f"<title>{escape(mark.full)}</title>" if mark.full and mark.full != mark.text else ""
    if mark.vertical:
        x, y = format_coordinate(mark.x + baseline), format_coordinate(mark.y)
        place = f'transform="translate({x} {y})rotate(-90)"'
    else:
        place = f'x="{format_coordinate(mark.x)}" y="{format_coordinate(mark.y + baseline)}"'
    return f'<text class="{mark.style}" {place}{anchor}>{escape(mark.text)}{tooltip}</text>'


def _write_block(mark: Block, shared: SharedBlocks) -> str:
    identifier = shared.get(mark.marks)
    top = format_coordinate(mark.top)
    if identifier is not None:
        return f'<use href="#{identifier}" y="{top}"/>' if mark.top else f'<use href="#{identifier}"/>'
    return f'<g transform="translate(0 {top})">{write_marks(mark.marks, shared)}</g>'


def _write_mark(mark: Mark, shared: SharedBlocks) -> str:
    match mark:
        case Rects():
            return _write_rects(mark) if mark.boxes else ""
        case Cells():
            return _write_cells(mark) if mark.runs else ""
        case Lines():
            return _write_lines(mark) if mark.paths else ""
        case Dots():
            return _write_dots(mark) if mark.points else ""
        case Areas():
            return _write_areas(mark) if mark.polygons else ""
        case Label():
            return _write_label(mark)
        case Block():
            return _write_block(mark, shared)


def write_marks(marks: Iterable[Mark], shared: SharedBlocks) -> str:
    """SVG elements of marks."""
    return "".join(_write_mark(mark, shared) for mark in marks)


def find_shared_blocks(figures: Iterable[Figure]) -> dict[tuple[Mark, ...], str]:
    """Blocks that occur more than once, inner ones before those that hold them, with an id for each."""
    counts: Counter[tuple[Mark, ...]] = Counter()

    def count(marks: tuple[Mark, ...]) -> None:
        for mark in marks:
            if isinstance(mark, Block):
                count(mark.marks)
                counts[mark.marks] += 1

    for figure in figures:
        count(figure.marks)
    repeated = [marks for marks, times in counts.items() if times > 1]
    return {marks: f"b{number}" for number, marks in enumerate(repeated)}


def build_shared_blocks(shared: SharedBlocks) -> Markup:
    """Element that holds the shared blocks of a page."""
    groups = "".join(f'<g id="{identifier}">{write_marks(marks, shared)}</g>' for marks, identifier in shared.items())
    return Markup(f'<svg class="shared" width="0" height="0" aria-hidden="true"><defs>{groups}</defs></svg>')


def build_page_svg(figure: Figure, shared: SharedBlocks, with_size: bool = False) -> Markup:
    """SVG element for the page: as wide as its column allows, coloured by the page's theme.

    Those ``with_size`` keep their own size instead.
    """
    width, height = format_coordinate(figure.width), format_coordinate(figure.height)
    size = f' width="{width}" height="{height}"' if with_size else ""
    body = write_marks(figure.marks, shared)
    frame = f'viewBox="0 0 {width} {height}"{size} role="img" aria-label="{escape(figure.title)}"'
    return Markup(f"<svg {frame}>{body}</svg>")


def build_svg_file(figure: Figure) -> str:
    """Text of an SVG file that stands alone: light colours on white, no script, no reference to anything."""
    width, height = format_coordinate(figure.width), format_coordinate(figure.height)
    body = write_marks(figure.marks, {})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(figure.title)}</title><desc>{escape(figure.caption)}</desc>'
        f"<style>{build_figure_css(LIGHT)}</style>"
        f'<path d="M0 0H{width}V{height}H0z" style="fill:{PALETTE["bg"][LIGHT]}"/>{body}</svg>\n'
    )
