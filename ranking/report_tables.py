"""Tables of the report."""

from collections.abc import Mapping, Sequence

from ranking.document import Document, Site
from ranking.report_axes import Stage
from ranking.report_model import Cell, Heading, Table
from ranking.report_plots_ranks import RESAMPLINGS
from ranking.report_text import (
    format_fixed,
    format_interval,
    format_list,
    format_name,
    format_number,
    format_shift,
    format_significant,
    quote_name,
    shorten_text,
)

_SUBMISSION = Heading("Submission", "with its number in the figures", is_text=True)
_SHORT_WORDS = {"cases": "cases", "sites": "sites", "sites+cases": "both"}
_LONGEST_NAME = 70.0
_TINTS = (0.1, 0.25, 0.5)


def build_submission_cell(stage: Stage, submission: int) -> Cell:
    """Name of a submission with its number in the figures."""
    return _build_name_cell(stage.names[submission], str(stage.get_key(submission)))


def _build_name_cell(name: str, key: str = "") -> Cell:
    """Name of any length; one of several hundred letters would push the numbers off the page."""
    shown = shorten_text(name, 1, _LONGEST_NAME)
    return Cell(shown, "name", key, name if shown != name else "")


def _list_sites(stage: Stage, sites: Sequence[int]) -> str:
    return format_list([quote_name(stage.sites[site]) for site in sites]) if sites else "–"


def build_final_table(document: Document, stage: Stage) -> Table:
    """Final table: rank, mean rank, intervals, groups; a line separates rows whose ranks differ."""
    federation = document["federation"]
    used = [name for name in RESAMPLINGS if any(row["intervals"].get(name) for row in federation["final_table"])]
    has_sets = any(row["rank_set"] is not None for row in federation["final_table"])
    has_groups = any(row["groups"] for row in federation["final_table"])
    headings = [
        Heading("Rank", "tied submissions share the average of their places"), _SUBMISSION,
        Heading("Mean rank", "over sites and metrics"),
    ]  # fmt: skip
    headings += [Heading(f"95 % ({_SHORT_WORDS[name]})", f"{RESAMPLINGS[name][1]}") for name in used]
    headings += [Heading("Rank set", "simultaneous 95 % confidence set over sites")] * has_sets
    headings += [Heading("Group", "submissions that share a letter cannot be separated")] * has_groups
    headings += [Heading("Wins", "tests won: Wilcoxon, Holm, over metrics and sites")]
    headings += [Heading(f"First ({_SHORT_WORDS[name]})", "share of draws with rank 1") for name in used[-1:]]
    rows: list[tuple[Cell, ...]] = []
    for row in federation["final_table"]:
        submission = row["submission"]
        cells = [
            Cell(format_number(row["final_rank"]), "rank"), build_submission_cell(stage, submission),
            Cell(format_fixed(row["mean_rank"], 3)),
        ]  # fmt: skip
        cells += [Cell(format_interval(row["intervals"].get(name))) for name in used]
        cells += [Cell(format_interval(row["rank_set"]))] * has_sets + [Cell(row["groups"], "letters")] * has_groups
        cells.append(Cell(str(row["wins"])))
        for name in used[-1:]:
            bootstrap = federation["bootstrap"][name]
            cells.append(Cell(f"{100 * bootstrap['winner_counts'][submission] / bootstrap['draws']:.0f} %"))
        rows.append(tuple(cells))
    ranks = [row["final_rank"] for row in federation["final_table"]]
    breaks = frozenset(index for index in range(1, len(ranks)) if ranks[index] != ranks[index - 1])
    return Table("Final ranking", tuple(headings), tuple(rows), breaks)


def build_left_out_table(document: Document, stage: Stage) -> Table:
    """Leave-one-site-out: one row per site."""
    headings = (
        Heading("Left out", is_text=True), Heading("Ranks changed"), Heading("Largest shift"),
        Heading("Tau-b", "Kendall's tau-b with the full ranking"), Heading("Most moved", is_text=True),
    )  # fmt: skip
    rows = []
    for entry in document["federation"]["leave_one_site_out"]:
        moved = format_list([quote_name(stage.names[one]) for one in entry["most_moved"]]) or "–"
        rows.append((
            _build_name_cell(stage.sites[entry["site"]]), Cell(str(entry["changed"])),
            Cell(format_number(entry["largest_shift"])), Cell(format_fixed(entry["tau"], 3)), Cell(moved, "name"),
        ))  # fmt: skip
    return Table("Leave one site out", headings, tuple(rows))


def build_worst_site_table(document: Document, stage: Stage) -> Table:
    """Best, median, 10th percentile and worst site rank of each submission."""
    headings = (
        _SUBMISSION, Heading("Best"), Heading("Median"), Heading("10th percentile"), Heading("Worst"),
        Heading("Spread", "interquartile range of the ranks over sites"), Heading("Worst at", is_text=True),
    )  # fmt: skip
    by_submission = {row["submission"]: row for row in document["federation"]["worst_site"]}
    rows = []
    for submission in stage.order:
        row = by_submission[submission]
        numbers = (row["best_rank"], row["median_rank"], row["tenth_percentile_rank"], row["worst_rank"], row["spread"])
        cells = [build_submission_cell(stage, submission), *(Cell(format_number(number)) for number in numbers)]
        rows.append((*cells, Cell(_list_sites(stage, row["worst_sites"]), "name")))
    return Table("Worst site", headings, tuple(rows))


def build_ranks_table(title: str, ranks: Mapping[str, Sequence[float]], stage: Stage) -> Table:
    """Ranks of every submission under several methods or weights."""
    headings = (_SUBMISSION, *(Heading(shorten_text(name, 1, 14), name) for name in ranks))
    rows = tuple(
        (build_submission_cell(stage, one), *(Cell(format_number(column[one])) for column in ranks.values()))
        for one in stage.order
    )
    return Table(title, headings, rows)


def build_matrix_table(title: str, matrix: Sequence[Sequence[float]], stage: Stage, digits: int = 0) -> Table:
    """Numbers of a map, row against column; columns carry the numbers of the submissions."""
    headings = (_SUBMISSION, *(Heading(str(key + 1), stage.names[stage.order[key]]) for key in range(stage.count)))
    rows = tuple(
        (
            build_submission_cell(stage, one),
            *(Cell("·" if one == other else format_fixed(matrix[one][other], digits)) for other in stage.order),
        )
        for one in stage.order
    )
    return Table(title, headings, rows)


def build_site_table(site: Site, document: Document, stage: Stage) -> Table:
    """One site: its rank, mean rank and sub ranks of every submission, in the site's own order."""
    bootstrap = site["bootstrap"]
    names = [format_name(metric["name"]) for metric in document["metrics"]]
    has_values = any(box is not None for metric in site["metrics"] for box in metric["box"])
    headings = [
        Heading("Rank", "at this site"), _SUBMISSION, Heading("Mean rank", "over the metrics"),
        *([Heading("95 %", "rank at this site, cases drawn again")] if bootstrap else []),
        *(Heading(shorten_text(name, 1, 14), f"rank in {name}") for name in names),
        *([Heading("Missing", "missing values over the metrics")] if has_values else []),
    ]  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for submission in sorted(stage.order, key=lambda one: site["rank"][one]):
        boxes = [metric["box"][submission] for metric in site["metrics"]]
        missing = sum(box["missing"] for box in boxes if box is not None)
        cells = [
            Cell(format_number(site["rank"][submission]), "rank"), build_submission_cell(stage, submission),
            Cell(format_fixed(site["mean_rank"][submission])),
        ]  # fmt: skip
        if bootstrap:
            cells.append(Cell(format_interval(bootstrap["interval"][submission])))
        cells += [_build_rank_cell(metric["rank"][submission], stage.count) for metric in site["metrics"]]
        if has_values:
            cells.append(Cell(str(missing) if any(boxes) else "absent"))
        rows.append(tuple(cells))
    ranks = sorted(site["rank"])
    breaks = frozenset(index for index in range(1, len(ranks)) if ranks[index] != ranks[index - 1])
    return Table(f"Ranks at {format_name(site['name'])}", tuple(headings), tuple(rows), breaks)


def _build_rank_cell(rank: int, count: int) -> Cell:
    """Sub rank, shaded when it is among the best tenth, quarter or half."""
    share = (rank - 1) / count
    level = sum(share < limit for limit in _TINTS) if count > 1 else 0
    return Cell(str(rank), f"tint{level}" if level else "")


def build_metric_table(document: Document) -> Table:
    """The metrics of the rule: direction, replacement of missing values."""
    headings = (Heading("Metric", is_text=True), Heading("Better", is_text=True), Heading("Missing counts as"))
    rows = tuple(
        (_build_name_cell(format_name(info["name"])), Cell(info["better"], "word"),
         Cell(format_significant(info["missing_value"])))
        for info in document["metrics"]
    )  # fmt: skip
    return Table("Metrics", headings, rows)


def build_weights_table(document: Document) -> Table:
    """How the order moves under other weights of the sites."""
    headings = (
        Heading("Weights", is_text=True), Heading("Ranks changed"), Heading("Tau-b", "with equal weights"),
    )  # fmt: skip
    rows = tuple(
        (Cell(name, "word"), Cell(str(entry["changed"])), Cell(format_fixed(entry["tau"], 3)))
        for name, entry in document["federation"]["weights"].items()
    )
    return Table("Weights of the sites", headings, rows)


def build_shift_table(document: Document, stage: Stage) -> Table:
    """Which site moves whom: change of final rank without the site."""
    headings = (_SUBMISSION, *(Heading(shorten_text(site, 1, 9), site) for site in stage.sites))
    moved = document["federation"]["moved_by"]
    rows = tuple(
        (build_submission_cell(stage, submission), *(Cell(format_shift(shift) or "·") for shift in moved[submission]))
        for submission in stage.order
    )
    return Table("Change of final rank without the site", headings, rows)
