"""Figures of sites: who moves when a site is left out, the worst site, how sites agree."""

from collections import defaultdict
from collections.abc import Sequence

from ranking.document import Dendrogram, WorstSite
from ranking.report_axes import (
    LABELS,
    NARROW,
    ROW,
    LegendItem,
    Scale,
    Stage,
    build_frame,
    build_legend,
    build_rank_scale,
    build_row_labels,
    compute_rank_ticks,
    compute_row_y,
    compute_rows_height,
    compute_ticks,
    compute_width,
)
from ranking.report_marks import Block, Dots, Figure, Label, Lines, Mark, Point, Rects
from ranking.report_plots_maps import build_direction_legend
from ranking.report_plots_ranks import build_cells
from ranking.report_text import compute_text_width, format_shift, shorten_text

_COLUMN = 15.0
_HEADING_ROOM = 78.0
_HEADING_SIZE = 9.5


def _draw_headings(names: Sequence[str], left: float, pitch: float) -> tuple[list[Mark], float]:
    """Column headings that read upwards, and their height."""
    shown = [shorten_text(name, _HEADING_SIZE, _HEADING_ROOM) for name in names]
    height = max(compute_text_width(text, _HEADING_SIZE) for text in shown) + 8
    marks: list[Mark] = [
        Label(left + pitch * (column + 0.5), height - 4, text, "x", vertical=True, full=name)
        for column, (text, name) in enumerate(zip(shown, names, strict=True))
    ]
    return marks, height


def _draw_bands(rows: int, top: float, right: float) -> Rects:
    return Rects("band", ROW, tuple((0.0, top + ROW * row, right) for row in range(1, rows, 2)))


def plot_left_out(title: str, caption: str, moved_by: Sequence[Sequence[float]], stage: Stage) -> Figure:
    """Map of submissions and sites: by how many ranks a submission moves when the site is left out."""
    pitch = max(_COLUMN, min(40.0, (NARROW - LABELS - 10) / len(stage.sites)))
    right = LABELS + pitch * len(stage.sites)
    marks, top = _draw_headings(stage.sites, LABELS, pitch)
    marks.insert(0, _draw_bands(stage.count, top, right))
    largest = max((abs(shift) for row in moved_by for shift in row), default=0.0) or 1.0
    colours: list[list[str]] = []
    numbers: list[Mark] = []
    for row, submission in enumerate(stage.order):
        colours.append([_compute_shift_colour(shift, largest) for shift in moved_by[submission]])
        for column, shift in enumerate(moved_by[submission]):
            if shift:
                style = "i" if colours[-1][column].endswith("3") else "d"
                x, y = LABELS + pitch * (column + 0.5), top + ROW * (row + 0.5)
                numbers.append(Label(x, y, format_shift(shift), style, "middle"))
    marks += [*build_cells(colours, LABELS, top, pitch), Block(stage.rows, top), *numbers]
    bottom = top + ROW * stage.count + 4
    width = max(NARROW, right + 10)
    legend, height = build_direction_legend(bottom, width)
    return Figure("leave_one_site_out", title, caption, width, bottom + height, (*marks, *legend))


def _compute_shift_colour(shift: float, largest: float) -> str:
    if shift == 0:
        return ""
    return f"{'w' if shift > 0 else 'b'}{min(3, 1 + int(3 * abs(shift) / largest - 1e-9))}"


def plot_worst_site(title: str, caption: str, worst: Sequence[WorstSite], stage: Stage) -> Figure:
    """Range of each submission's rank over sites: best, median, 10th percentile of performance, worst."""
    rows = {row["submission"]: row for row in worst}
    width = compute_width(stage.count)
    scale = build_rank_scale(stage.count, width)
    ticks = compute_rank_ticks(stage.count, scale.right - scale.left)
    marks = build_frame(stage.rows, stage.count, scale, ticks, "rank at a site (1 is best)")
    places: dict[str, list[Point]] = defaultdict(list)
    ranges: list[tuple[Point, ...]] = []
    medians: list[tuple[Point, ...]] = []
    for index, submission in enumerate(stage.order):
        row, y = rows[submission], compute_row_y(index)
        best, worst_x = scale.compute_x(row["best_rank"]), scale.compute_x(row["worst_rank"])
        ranges.append(((best, y), (worst_x, y)))
        places["c3"].append((best, y))
        places["c2"].append((worst_x, y))
        tenth = scale.compute_x(row["tenth_percentile_rank"])
        places["c5"].append((tenth, y))
        median = scale.compute_x(row["median_rank"])
        medians.append(((median, y - 5), (median, y + 5)))
    marks += [
        Lines("other", tuple(ranges), 2),
        Dots("c3", tuple(places["c3"]), 5),
        Dots("c2", tuple(places["c2"]), 8),
        Dots("c5", tuple(places["c5"]), 5),
        Lines("ink", tuple(medians), 1.8),
    ]
    items: list[LegendItem] = [
        ("dot", "c3", "best site"), ("line", "ink", "median (stroke)"),
        ("dot", "c5", "10th percentile"), ("dot", "c2", "worst site"),
    ]  # fmt: skip
    bottom = compute_rows_height(stage.count)
    legend, height = build_legend(items, bottom, width)
    return Figure("worst_site", title, caption, width, bottom + height, (*marks, *legend))


def plot_dendrogram(title: str, caption: str, tree: Dendrogram, stage: Stage) -> Figure:
    """Tree of the sites; branches join at the distance of what they join."""
    leaves = tree["leaves"]
    heights = [row[2] for row in tree["linkage"]]
    scale = Scale(0.0, max([*heights, 1e-9]), LABELS + 6, NARROW - 16)
    rows = build_row_labels([stage.sites[site] for site in leaves], keyed=False)
    ticks = compute_ticks(0.0, scale.high, 4)
    marks = build_frame(rows, len(leaves), scale, ticks, "distance between the sites' rankings")
    places: dict[int, Point] = {site: (scale.left, compute_row_y(row)) for row, site in enumerate(leaves)}
    branches: list[tuple[Point, ...]] = []
    for index, (first, second, height, _) in enumerate(tree["linkage"]):
        (x0, y0), (x1, y1) = places[int(first)], places[int(second)]
        x = scale.compute_x(height)
        branches.append(((x0, y0), (x, y0), (x, y1), (x1, y1)))
        places[len(leaves) + index] = (x, (y0 + y1) / 2)
    marks.append(Lines("c1", tuple(branches), 1.5))
    return Figure("site_dendrogram", title, caption, NARROW, compute_rows_height(len(leaves)), tuple(marks))


def plot_agreement(
    title: str, caption: str, taus: Sequence[Sequence[float | None]], leaves: Sequence[int], stage: Stage
) -> Figure:
    """Map of Kendall's tau-b between sites, in the order of the tree."""
    pitch = max(_COLUMN, min(40.0, (NARROW - LABELS - 10) / len(leaves)))
    right = LABELS + pitch * len(leaves)
    names = [stage.sites[site] for site in leaves]
    marks, top = _draw_headings(names, LABELS, pitch)
    marks.insert(0, _draw_bands(len(leaves), top, right))
    colours = [
        ["faint" if one == other else _compute_tau_colour(taus[one][other]) for other in leaves] for one in leaves
    ]
    marks += build_cells(colours, LABELS, top, pitch)
    marks.append(Block(build_row_labels(names, keyed=False), top))
    bottom = top + ROW * len(leaves) + 4
    width = max(NARROW, right + 10)
    items: list[LegendItem] = [
        ("rect", "w2", "against each other (below 0)"),
        *(("rect", f"s{2 * step}", f"{(step - 1) / 4:g}–{step / 4:g}") for step in (1, 2, 3, 4)),
    ]
    legend, height = build_legend(items, bottom, width)
    return Figure("site_agreement", title, caption, width, bottom + height, (*marks, *legend))


def _compute_tau_colour(tau: float | None) -> str:
    if tau is None:
        return ""
    if tau < 0:
        return "w3" if tau < -0.5 else "w2"
    return f"s{2 * min(4, 1 + int(tau * 4 - 1e-9))}"
