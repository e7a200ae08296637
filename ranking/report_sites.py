"""Parts of the page about single sites."""

from collections.abc import Sequence

from ranking.document import Document, Dots, Site, SiteMetric
from ranking.report_axes import Stage
from ranking.report_federation import (
    BLOB_CAPTION,
    HEATMAP_CAPTION,
    LINES_CAPTION,
    SIGNIFICANCE_CAPTION,
    VIOLIN_CAPTION,
)
from ranking.report_marks import Figure
from ranking.report_model import Group, SitePart
from ranking.report_plots_maps import plot_lines, plot_pairs
from ranking.report_plots_podium import PodiumData, plot_podium
from ranking.report_plots_ranks import plot_blobs, plot_rank_heatmap
from ranking.report_plots_values import Spread, ValueRange, compute_value_range, plot_spreads, plot_violins
from ranking.report_tables import build_site_table
from ranking.report_text import format_count, format_list, format_name, quote_name

_MOST_DOTS = 40_000
"""Dots of single cases in all box plots of a page; with more, only the boxes are drawn."""
_PODIUM_LINES = 3_000
"""Lines in all podiums of a page; each shows at least 10 cases and at most 40, evenly spaced."""
_SPREAD_CAPTION = (
    "The box holds the middle half of the cases, the thick stroke is their median; all sites share one scale for each "
    "metric. Missing values stand where the rule puts them."
)
_PODIUM_CAPTION = (
    "Each line is a case: it joins the submissions that came first, second, third in it, at the height of their value. "
    "The bars count all cases of the site; tied submissions share a place, so those of one place can exceed 100 %."
)


def build_site_parts(document: Document, stage: Stage, prefix: str, is_first: bool) -> tuple[SitePart, ...]:
    """One part per site; figures that do not depend on the method only for the first method of the page."""
    ranges = [compute_value_range(document, index) for index in range(len(document["metrics"]))]
    with_dots = _count_dots(document) <= _MOST_DOTS
    parts: list[SitePart] = []
    for index, site in enumerate(document["per_site"]):
        groups = [
            Group("Ranks", "Shaded: among the best tenth, quarter and half of the submissions in that metric.",
                  tables=(build_site_table(site, document, stage),)),
            *_build_rank_groups(site, stage, is_first),
        ]  # fmt: skip
        if is_first:
            groups += _build_metric_groups(site, document, stage, ranges, with_dots)
        name = stage.sites[index]
        parts.append(SitePart(f"{prefix}-site-{index + 1}", name, _say_site(site, stage), tuple(groups)))
    return tuple(parts)


def _count_dots(document: Document) -> int:
    dots = [metric["dots"] for site in document["per_site"] for metric in site["metrics"]]
    return sum(len(one["cases"]) for one in dots if one is not None) * len(document["submissions"])


def _say_site(site: Site, stage: Stage) -> str:
    best = min(site["rank"])
    winners = [quote_name(stage.names[submission]) for submission in stage.order if site["rank"][submission] == best]
    cases = format_count(site["cases"], "case")
    note = "" if site["cases"] > 1 else " (no bootstrap possible)"
    return f"{cases}{note} · first: {format_list(winners, 2)}"


def _build_rank_groups(site: Site, stage: Stage, is_first: bool) -> list[Group]:
    figures: list[Figure] = []
    captions: list[str] = []
    if site["bootstrap"] is not None and is_first:
        title = f"Bootstrap of the cases, {format_count(site['bootstrap']['draws'], 'draw')}"
        figures.append(plot_blobs("blobs", title, BLOB_CAPTION, site["bootstrap"], stage, narrow=True))
        captions.append(BLOB_CAPTION)
    if is_first and stage.count > 1:
        most = max(len(site["metrics"]), 1)
        shares = [[count / most for count in row] for row in site["significance"]]
        counted = (most, f"of {format_count(most, 'metric')}")
        figures.append(
            plot_pairs("significance", "Significance map", SIGNIFICANCE_CAPTION, shares, stage, counted, narrow=True)
        )
        captions.append("In the significance map, the row beats the column.")
    if is_first:
        ranks = site["methods_rank"]
        figures.append(plot_lines("methods", "The five ranking methods", LINES_CAPTION, ranks, stage, narrow=True))
        captions.append(LINES_CAPTION)
    return [Group("This site's ranking", " ".join(captions), tuple(figures))] if figures else []


def _build_metric_groups(
    site: Site, document: Document, stage: Stage, ranges: Sequence[ValueRange], with_dots: bool
) -> list[Group]:
    """Figures of the cases; none of those whose numbers a document from site shares lacks."""
    numbered = [
        (index + 1, format_name(document["metrics"][index]["name"]), metric)
        for index, metric in enumerate(site["metrics"])
    ]
    spreads: list[Figure] = []
    heatmaps: list[Figure] = []
    podiums: list[Figure] = []
    most = min(40, max(10, _PODIUM_LINES // max(1, len(document["sites"]) * len(document["metrics"]))))
    for number, name, metric in numbered:
        span, counts = ranges[number - 1], metric["case_rank_counts"]
        if any(box is not None for box in metric["box"]):
            rows = _list_spreads(metric, with_dots)
            spreads.append(plot_spreads(f"boxes_{number}", name, _SPREAD_CAPTION, rows, span, stage))
        if counts is not None:
            heatmap = plot_rank_heatmap(f"heatmap_{number}", name, HEATMAP_CAPTION, counts, stage, narrow=True)
            heatmaps.append(heatmap)
        if metric["dots"] is not None and counts is not None:
            up = document["metrics"][number - 1]["better"] == "higher"
            data = _select_podium_data(metric["dots"], counts, up, name, most)
            podiums.append(plot_podium(f"podium_{number}", name, _PODIUM_CAPTION, data, stage))
    groups = [
        Group("Values: dot and box plots", _SPREAD_CAPTION, tuple(spreads)),
        Group("Podium of the cases", _PODIUM_CAPTION, tuple(podiums)),
        Group("Ranks in the cases", HEATMAP_CAPTION, tuple(heatmaps)),
    ]
    return [group for group in groups if group.figures] + _build_bootstrap_groups(site, numbered, stage)


def _list_spreads(metric: SiteMetric, with_dots: bool) -> list[Spread]:
    values = metric["dots"]["values"] if with_dots and metric["dots"] is not None else []
    return [Spread(box, [row[submission] for row in values]) for submission, box in enumerate(metric["box"])]


def _select_podium_data(dots: Dots, counts: Sequence[Sequence[int]], up: bool, title: str, most: int) -> PodiumData:
    """Evenly spaced cases, so that lines can still be followed."""
    step = max(1, -(-len(dots["cases"]) // most))
    values, ranks = dots["values"][::step], dots["ranks"][::step]
    return PodiumData(values, ranks, counts, title, up)


def _build_bootstrap_groups(site: Site, numbered: Sequence[tuple[int, str, SiteMetric]], stage: Stage) -> list[Group]:
    blobs = tuple(
        plot_blobs(f"blobs_{number}", name, BLOB_CAPTION, metric["bootstrap"], stage, narrow=True)
        for number, name, metric in numbered
        if metric["bootstrap"] is not None
    )
    taus = [(name, metric["bootstrap"]["tau"]) for _, name, metric in numbered if metric["bootstrap"] is not None]
    if site["bootstrap"] is not None:
        taus.insert(0, ("all metrics", site["bootstrap"]["tau"]))
    groups = [Group("Sub-rankings under bootstrap", BLOB_CAPTION, blobs)] if blobs else []
    if taus:
        figure = plot_violins("tau", "Stability of the order", VIOLIN_CAPTION, taus)
        groups.append(Group("How stable the order is", VIOLIN_CAPTION, (figure,)))
    return groups
