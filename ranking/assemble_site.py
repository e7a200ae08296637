"""The part of the ranking document that is about one site."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ranking.document import Box, Dots, Site, SiteMetric
from ranking.ranks import compute_average_ranks, compute_rank_counts
from ranking.rules import METHODS, Rule
from ranking.site_share import SiteDetails, SiteShare

Floats = npt.NDArray[np.float64]

# About so many values of single cases are kept per metric and site; a plot cannot show more.
_DOT_BUDGET = 300
_LEAST_DOTS = 5


class Picture(NamedTuple):
    """What is drawn of the cases of one metric at one site; the same for every method."""

    boxes: list[Box | None]
    dots: Dots
    case_rank_counts: list[list[int]]


def build_pictures(details: SiteDetails, submissions: int) -> list[Picture]:
    """Pictures of every metric of a site."""
    return [
        Picture(
            _build_boxes(details, number, submissions),
            _build_dots(details, number, submissions),
            _count_case_ranks(details, number, submissions),
        )
        for number in range(len(details.case_ranks))
    ]


def build_site(share: SiteShare, pictures: list[Picture] | None, method: str, rule: Rule, submissions: int) -> Site:
    """One site by one method; without pictures (a share from elsewhere) there are no values of cases."""
    sums = share.compute_rank_sums(method)
    bootstrap = share.bootstrap.get(method)
    return {
        "name": share.name,
        "cases": share.cases,
        "mean_rank": [int(value) / len(rule.metrics) for value in sums],
        "rank": compute_average_ranks(sums).tolist(),
        "metrics": [
            _build_metric(share, pictures[number] if pictures else None, method, number, metric.name, submissions)
            for number, metric in enumerate(rule.metrics)
        ],
        "significance": share.significant.sum(axis=0).tolist(),
        "bootstrap": bootstrap.site if bootstrap else None,
        "methods_rank": {name: compute_average_ranks(share.compute_rank_sums(name)).tolist() for name in METHODS},
    }


def _build_metric(
    share: SiteShare, picture: Picture | None, method: str, number: int, name: str, submissions: int
) -> SiteMetric:
    values = share.values[method][number].tolist() if method in share.values else [math.nan] * submissions
    bootstrap = share.bootstrap.get(method)
    return {
        "metric": name,
        "value": replace_infinite(values),
        "rank": share.ranks[method][number].tolist(),
        "box": picture.boxes if picture else [None] * submissions,
        "dots": picture.dots if picture else None,
        "case_rank_counts": picture.case_rank_counts if picture else None,
        "significant": ["".join("1" if cell else "0" for cell in row) for row in share.significant[number].tolist()],
        "bootstrap": bootstrap.metrics[number] if bootstrap and bootstrap.metrics else None,
    }


def replace_infinite(values: list[Any]) -> list[float | None]:
    """Numbers with None for NaN and infinities, which JSON does not have."""
    return [value if math.isfinite(value) else None for value in values]


def _build_boxes(details: SiteDetails, number: int, submissions: int) -> list[Box | None]:
    values = details.table.values[number]
    missing = details.table.missing[number].sum(axis=0).tolist()
    with np.errstate(invalid="ignore", over="ignore"):
        low, q1, median, q3, high = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
        reach = 1.5 * (q3 - q1)
        whisker_low = np.min(values, axis=0, where=values >= q1 - reach, initial=np.inf)
        whisker_high = np.max(values, axis=0, where=values <= q3 + reach, initial=-np.inf)
        mean = values.mean(axis=0)
    rows = np.stack([low, q1, median, q3, high, whisker_low, whisker_high, mean], axis=1).tolist()
    boxes: list[Box | None] = [None] * submissions
    for column, present in enumerate(details.table.present.tolist()):
        cells = replace_infinite(rows[column])
        boxes[present] = {
            "low": cells[0],
            "q1": cells[1],
            "median": cells[2],
            "q3": cells[3],
            "high": cells[4],
            "whisker_low": cells[5],
            "whisker_high": cells[6],
            "mean": cells[7],
            "missing": missing[column],
        }
    return boxes


def _build_dots(details: SiteDetails, number: int, submissions: int) -> Dots:
    cases = len(details.table.cases)
    shown = min(cases, max(_LEAST_DOTS, _DOT_BUDGET // submissions))
    chosen = np.unique(np.linspace(0, cases - 1, shown).round().astype(np.intp))
    values = np.full((len(chosen), submissions), np.nan)
    values[:, details.table.present] = details.table.values[number][chosen]
    return {
        "cases": chosen.tolist(),
        "values": [replace_infinite(row) for row in values.tolist()],
        "ranks": details.case_ranks[number][:, chosen].T.tolist(),
    }


def _count_case_ranks(details: SiteDetails, number: int, submissions: int) -> list[list[int]]:
    counts = np.zeros((submissions, submissions), dtype=np.int64)
    present = details.table.present
    ranks = details.case_ranks[number][present]
    counts[present, : len(present)] = compute_rank_counts(ranks, len(present))
    return counts.tolist()
