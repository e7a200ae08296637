"""Sections of the page about the federation."""

from collections.abc import Sequence

from ranking.document import Document, FederationBootstrap
from ranking.report_axes import Stage
from ranking.report_marks import Figure
from ranking.report_model import Cell, Group, Heading, Section, Table
from ranking.report_more import build_more_section
from ranking.report_plots_maps import plot_lines, plot_pairs
from ranking.report_plots_podium import PodiumData, plot_podium
from ranking.report_plots_ranks import RESAMPLINGS, plot_blobs, plot_intervals, plot_rank_heatmap
from ranking.report_plots_sites import plot_agreement, plot_dendrogram, plot_left_out, plot_worst_site
from ranking.report_plots_values import (
    compute_range,
    compute_spread,
    plot_spreads,
    plot_violins,
)
from ranking.report_sentences import build_sentences
from ranking.report_tables import (
    build_final_table,
    build_left_out_table,
    build_matrix_table,
    build_ranks_table,
    build_shift_table,
    build_submission_cell,
    build_weights_table,
    build_worst_site_table,
)
from ranking.report_text import format_count, format_name

BLOB_CAPTION = (
    "The area of a dot is the share of draws in which the submission had that rank; the line holds 95 % of the draws "
    "and the stroke is their median. One large dot means a certain rank, a chain of small ones an uncertain one; ranks "
    "of less than 1 % of the draws are not drawn."
)
VIOLIN_CAPTION = (
    "Kendall's tau compares the ranking of every draw with the full one: 1 is the same order, 0 is no relation. The "
    "outline is the density of the draws, the bar their middle half, the stroke their median."
)
HEATMAP_CAPTION = (
    "The stronger the colour of a cell, the more often the submission had that rank. A strong spot near the left is a "
    "submission that is reliably good; a long weak row is one whose rank depends on where one looks."
)
SIGNIFICANCE_CAPTION = (
    "Row beats column: the stronger the colour, the more often a one-sided Wilcoxon test with Holm's correction says "
    "so (p ≤ 0.05). A ranking that the tests support is full above the diagonal and empty below it."
)
LINES_CAPTION = (
    "Each line is a submission, 1 is at the top; the best seven are coloured and the numbers at the right are those of "
    "the names. Lines that stay level do not depend on the choice, lines that cross do."
)


def build_sections(document: Document, stage: Stage, prefix: str, is_first: bool) -> tuple[Section, ...]:
    """Sections of one method; figures that do not depend on the method only for the first."""
    sections = (
        _build_ranking_section(document, stage, prefix),
        _build_uncertainty_section(document, stage, prefix),
        _build_reasons_section(document, stage, prefix, is_first),
        _build_choices_section(document, stage, prefix, is_first),
        _build_sites_section(document, stage, prefix),
        build_more_section(document, stage, prefix),
    )
    return tuple(section for section in sections if section.groups)


def _build_ranking_section(document: Document, stage: Stage, prefix: str) -> Section:
    figure, podium = plot_intervals(document, stage), plot_federation_podium(document, stage)
    groups = (
        Group(
            "Final table",
            "Tied submissions share the average of their places, and a line separates different ranks. Small grey "
            "numbers identify the submissions in all figures.",
            tables=(build_final_table(document, stage),),
        ),
        Group(figure.title, figure.caption, (figure,)),
        Group(podium.title, podium.caption, (podium,)),
    )
    return Section(f"{prefix}-ranking", "Final ranking", groups, build_sentences(document, stage))


def _build_reasons_section(document: Document, stage: Stage, prefix: str, is_first: bool) -> Section:
    federation = document["federation"]
    counts = federation["sub_rank_counts"]
    heatmap = plot_rank_heatmap("rank_heatmap", "Ranks in all sub-rankings", HEATMAP_CAPTION, counts, stage)
    table = _build_rank_count_table("Sub-rankings with each rank", counts, stage)
    groups = [Group(heatmap.title, heatmap.caption, (heatmap,), (table,))]
    if is_first and stage.count > 1:
        most = max(federation["significance_max"], 1)
        shares = [[count / most for count in row] for row in federation["significance"]]
        counted = (most, f"tests of {most}")
        figure = plot_pairs("significance", "Significance map", SIGNIFICANCE_CAPTION, shares, stage, counted)
        table = build_matrix_table(f"Tests won by row against column, of {most}", federation["significance"], stage)
        groups.append(Group(figure.title, figure.caption, (figure,), (table,)))
    groups.append(_build_spread_group(document, stage, is_first))
    return Section(f"{prefix}-reasons", "Where the ranks come from", tuple(groups))


def _build_rank_count_table(title: str, counts: Sequence[Sequence[int]], stage: Stage) -> Table:
    headings = (Heading("Submission", is_text=True), *(Heading(f"{rank + 1}", "rank") for rank in range(stage.count)))
    rows = tuple(
        (build_submission_cell(stage, submission), *(Cell(str(count or "·")) for count in counts[submission]))
        for submission in stage.order
    )
    return Table(title, headings, rows)


def plot_federation_podium(document: Document, stage: Stage) -> Figure:
    """Podium over sites: a line is a site, a dot its mean rank of a submission."""
    sites = document["per_site"]
    means = [site["mean_rank"] for site in sites]
    ranks = [[1 + sum(other < one for other in row) for one in row] for row in means]
    counts = document["federation"]["site_rank_counts"]
    data = PodiumData(means, ranks, counts, "mean rank at a site", higher_is_better=False)
    return plot_podium(
        "podium", "Podium over sites",
        "Each line is a site: it joins the submissions that came first, second, third there, at the height of their "
        "mean rank. The bars below count how often a submission took the place; one tall bar is a clear winner.",
        data, stage,
    )  # fmt: skip


def _build_uncertainty_section(document: Document, stage: Stage, prefix: str) -> Section:
    bootstrap = document["federation"]["bootstrap"]
    used = [name for name in RESAMPLINGS if name in bootstrap]
    groups: list[Group] = []
    if used:
        blobs = tuple(_plot_federation_blobs(name, bootstrap[name], stage) for name in used)
        groups.append(Group("Ranks under bootstrap", BLOB_CAPTION, blobs))
    taus = [(name.replace("+", " and ") + " drawn", bootstrap[name]["tau"]) for name in used]
    site_taus = [
        (stage.sites[index], site["bootstrap"]["tau"])
        for index, site in enumerate(document["per_site"])
        if site["bootstrap"] is not None
    ]
    if taus or site_taus:
        title = "How stable the order is"
        figures = [plot_violins("tau_federation", "Final ranking", VIOLIN_CAPTION, taus)] if taus else []
        if site_taus:
            words = "Ranking of each site, cases drawn again"
            figures.append(plot_violins("tau_sites", words, VIOLIN_CAPTION, site_taus))
        groups.append(Group(title, VIOLIN_CAPTION, tuple(figures)))
    if used and stage.count > 1:
        groups.append(_build_better_group(used[-1], bootstrap[used[-1]], stage))
    return Section(f"{prefix}-uncertainty", "Uncertainty", tuple(groups))


def _plot_federation_blobs(name: str, bootstrap: FederationBootstrap, stage: Stage) -> Figure:
    words = RESAMPLINGS[name][1]
    title = f"{words[0].upper()}{words[1:]}, {format_count(bootstrap['draws'], 'draw')}"
    return plot_blobs(f"blobs_{name.replace('+', '_')}", title, BLOB_CAPTION, bootstrap, stage, narrow=True)


def _build_better_group(name: str, bootstrap: FederationBootstrap, stage: Stage) -> Group:
    caption = (
        f"Share of draws ({RESAMPLINGS[name][1]}) in which the row has the better mean rank than the column, ties "
        "counting one half. Strong colour means certain; pairs near 50 % cannot be told apart."
    )
    figure = plot_pairs("better_than", "Probability of being better", caption, bootstrap["better_than"], stage)
    table = build_matrix_table("Share of draws in which row is better than column", bootstrap["better_than"], stage, 2)
    return Group(figure.title, caption, (figure,), (table,))


def _build_choices_section(document: Document, stage: Stage, prefix: str, is_first: bool) -> Section:
    federation = document["federation"]
    groups: list[Group] = []
    if is_first:
        methods = federation["methods_rank"]
        figure = plot_lines("methods", "The five ranking methods", LINES_CAPTION, methods, stage)
        groups.append(Group(figure.title, LINES_CAPTION, (figure,), (build_ranks_table("Final rank", methods, stage),)))
    if len(federation["weights"]) > 1 and len(stage.sites) > 1:
        weights = {name: entry["final_rank"] for name, entry in federation["weights"].items()}
        figure = plot_lines("site_weights", "Weights of the sites", LINES_CAPTION, weights, stage)
        tables = (build_weights_table(document), build_ranks_table("Final rank under each weighting", weights, stage))
        groups.append(Group(figure.title, LINES_CAPTION, (figure,), tables))
    title = "Choice of method and weights" if is_first else "Choice of weights"
    return Section(f"{prefix}-choices", title, tuple(groups))


def _build_spread_group(document: Document, stage: Stage, is_first: bool) -> Group:
    sites = document["per_site"]
    ranks = [[site["mean_rank"][submission] for site in sites] for submission in range(stage.count)]
    caption = (
        "A dot is a site, the box holds the middle half of the sites, the thick stroke is their median. Grey dots "
        "beyond the whiskers are sites far from the others."
    )
    span = compute_range("mean rank at a site", [number for row in ranks for number in row])
    figures = [
        plot_spreads("site_mean_ranks", "Mean rank", caption, [compute_spread(row) for row in ranks], span, stage)
    ]
    for index, metric in enumerate(document["metrics"] if is_first else []):
        medians = _collect_medians(document, index)
        numbers = [number for row in medians for number in row if number is not None]
        if not numbers:
            continue
        title = f"{format_name(metric['name'])}, median of each site"
        spreads = [compute_spread(row) for row in medians]
        span = compute_range(format_name(metric["name"]), numbers)
        figures.append(plot_spreads(f"site_medians_{index + 1}", title, caption, spreads, span, stage))
    return Group("Dot and box plots over sites", caption, tuple(figures))


def _collect_medians(document: Document, metric: int) -> list[list[float | None]]:
    """[A][S] median of the cases, None where absent or not in the document."""
    boxes = [site["metrics"][metric]["box"] for site in document["per_site"]]
    rows: list[list[float | None]] = []
    for submission in range(len(document["submissions"])):
        found = [site[submission] for site in boxes]
        rows.append([box["median"] if box is not None else None for box in found])
    return rows


def _build_sites_section(document: Document, stage: Stage, prefix: str) -> Section:
    federation = document["federation"]
    groups: list[Group] = []
    if federation["leave_one_site_out"]:
        caption = (
            "How many ranks a submission moves when the site of the column is left out: blue and minus is better, "
            "orange and plus is worse. An empty map means that no single site decides the ranking."
        )
        figure = plot_left_out("Leave one site out", caption, federation["moved_by"], stage)
        tables = (build_left_out_table(document, stage), build_shift_table(document, stage))
        groups.append(Group(figure.title, caption, (figure,), tables))
    caption = (
        "The line spans a submission's ranks over all sites, from its best to its worst; in between are the median and "
        "the rank that nine of ten sites reach or beat. A short line is a submission that serves all sites alike."
    )
    figure = plot_worst_site("Best, median and worst site", caption, federation["worst_site"], stage)
    groups.append(Group(figure.title, caption, (figure,), (build_worst_site_table(document, stage),)))
    groups += _build_agreement_groups(document, stage)
    return Section(f"{prefix}-sites", "Sites", tuple(groups))


def _build_agreement_groups(document: Document, stage: Stage) -> list[Group]:
    heterogeneity, tree = document["federation"]["heterogeneity"], document["federation"]["dendrogram"]
    figures: list[Figure] = []
    captions: list[str] = []
    if tree is not None:
        caption = (
            f"Sites that rank the submissions alike join early, at a small distance (here {tree['distance']}, "
            f"{tree['linkage_method']} linkage). A site that joins last sees the submissions differently."
        )
        figures.append(plot_dendrogram("Tree of the sites", caption, tree, stage))
        captions.append(caption)
    if heterogeneity is not None:
        leaves = tree["leaves"] if tree is not None else list(range(len(stage.sites)))
        caption = (
            "In the map, strong blue is the same order at both sites (Kendall's tau-b) and orange an opposite one."
        )
        figures.append(plot_agreement("Agreement of the sites", caption, heterogeneity["tau"], leaves, stage))
        captions.append(caption)
    return [Group("How sites agree", " ".join(captions), tuple(figures))] if figures else []
