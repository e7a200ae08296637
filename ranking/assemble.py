"""Puts shares of sites together into the ranking document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranking import __version__
from ranking.agreement import compute_dendrogram, compute_heterogeneity
from ranking.answers import (
    compute_bayesian_signed_rank,
    compute_critical_difference,
    compute_decathlon,
    compute_permutation_ranking,
)
from ranking.assemble_site import Picture, build_site
from ranking.bootstrap import Weighting
from ranking.document import (
    FORMAT,
    BootstrapInfo,
    Document,
    Federation,
    FederationBootstrap,
    FinalRow,
    MetricInfo,
    MoreAnswers,
)
from ranking.final import (
    FinalTies,
    compute_final_ranks,
    compute_left_out,
    compute_mean_ranks,
    compute_upstream_mean_ranks,
    compute_weighted,
    compute_worst_sites,
    find_order,
)
from ranking.ranks import compute_min_ranks, compute_rank_counts
from ranking.resample import draw_both_totals, draw_case_totals, draw_site_totals, summarise_totals
from ranking.rules import METHODS, Rule
from ranking.separate import compute_separation, find_groups, format_groups
from ranking.site_share import SiteDetails, SiteShare

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Combination:
    """What a document is made of: shares in the order of sites, details and pictures of cases where they are at hand,
    and what was asked for."""

    method: str
    rule: Rule
    submissions: tuple[str, ...]
    shares: list[SiteShare]
    details: list[SiteDetails] | None
    pictures: list[list[Picture]] | None
    bootstrap: Weighting | None
    draws: int
    seed: int
    final_ties: FinalTies
    ties: str
    na: str
    absent: str
    strict: bool
    more: bool
    missing_values: int
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def rank_sums(self) -> Ints:
        """Sum of the sub ranks of each submission at each site, shape (S, A)."""
        return np.array([share.compute_rank_sums(self.method) for share in self.shares])

    @property
    def metrics(self) -> int:
        """M."""
        return len(self.rule.metrics)


def compute_document(given: Combination) -> Document:
    """Everything about one ranking by one method."""
    info: BootstrapInfo | None = None
    if given.bootstrap is not None:
        info = {"weighting": given.bootstrap, "draws": given.draws, "seed": given.seed}
    pictures: Sequence[list[Picture] | None] = given.pictures or [None] * len(given.shares)
    metrics: list[MetricInfo] = [
        {
            "name": metric.name,
            "better": metric.better,
            "missing_value": metric.missing,
            "low": metric.low,
            "high": metric.high,
        }
        for metric in given.rule.metrics
    ]
    return {
        "format": FORMAT,
        "version": __version__,
        "rule": given.rule.name,
        "method": given.method,
        "options": {
            "absent": given.absent,
            "na": given.na,
            "final_ties": given.final_ties,
            "ties": given.ties,
            "strict": given.strict,
            "bootstrap": info,
        },
        "submissions": list(given.submissions),
        "sites": [share.name for share in given.shares],
        "metrics": metrics,
        "federation": _compute_federation(given),
        "per_site": [
            build_site(share, picture, given.method, given.rule, len(given.submissions))
            for share, picture in zip(given.shares, pictures, strict=True)
        ],
        "missing_values": given.missing_values,
        "left_out": list(given.left_out),
        "warnings": list(given.warnings),
    }


def compute_final(given: Combination) -> tuple[Floats, Floats]:
    """Mean ranks and final ranks, each [A]."""
    if given.ties == "upstream":
        means = compute_upstream_mean_ranks(np.array([share.ranks[given.method] for share in given.shares]))
        return means, compute_final_ranks(means, given.final_ties)
    sums = given.rank_sums
    return compute_mean_ranks(sums, given.metrics), compute_final_ranks(sums.sum(axis=0), given.final_ties)


def _compute_federation(given: Combination) -> Federation:
    sums = given.rank_sums
    count = len(given.submissions)
    mean_ranks, final_ranks = compute_final(given)
    order = find_order(final_ranks)
    wins = np.sum([share.significant.sum(axis=0) for share in given.shares], axis=0)
    bootstrap = _compute_bootstrap(given)
    separation = compute_separation(sums)
    groups = find_groups(order, separation.better | separation.better.T) if separation else []
    table = _build_table(order, mean_ranks, final_ranks, bootstrap, wins.sum(axis=1))
    if separation:
        letters = format_groups(groups, count)
        for row in table:
            row["rank_set"] = [float(place) for place in separation.rank_sets[row["submission"]]]
            row["groups"] = letters[row["submission"]]
    left_out, shifts = compute_left_out(sums, compute_final_ranks(sums.sum(axis=0), given.final_ties), given.final_ties)
    sub_ranks = np.concatenate([share.ranks[given.method] for share in given.shares])
    return {
        "order": order,
        "final_table": table,
        "mean_rank": mean_ranks.tolist(),
        "final_rank": final_ranks.tolist(),
        "significance": wins.tolist(),
        "significance_max": given.metrics * len(given.shares),
        "sub_rank_counts": compute_rank_counts(np.ascontiguousarray(sub_ranks.T), count).tolist(),
        "site_rank_counts": compute_rank_counts(compute_min_ranks(np.ascontiguousarray(sums.T)), count).tolist(),
        "bootstrap": bootstrap,
        "methods_rank": {method: _compute_method_ranks(given, method) for method in METHODS},
        "leave_one_site_out": left_out,
        "moved_by": shifts.tolist(),
        "worst_site": compute_worst_sites(sums),
        "weights": compute_weighted(sums, given.metrics, [share.cases for share in given.shares], given.final_ties),
        "heterogeneity": compute_heterogeneity(sums),
        "dendrogram": compute_dendrogram(sums),
        "groups": groups,
        "more": _compute_more(given, sums) if given.more else None,
    }


def _compute_method_ranks(given: Combination, method: str) -> list[float]:
    totals = np.sum([share.compute_rank_sums(method) for share in given.shares], axis=0)
    ranks: list[float] = compute_final_ranks(totals, given.final_ties).tolist()
    return ranks


def _build_table(
    order: list[int],
    mean_ranks: Floats,
    final_ranks: Floats,
    bootstrap: dict[str, FederationBootstrap],
    wins: Ints,
) -> list[FinalRow]:
    return [
        {
            "submission": index,
            "mean_rank": float(mean_ranks[index]),
            "final_rank": float(final_ranks[index]),
            "intervals": {
                kind: bootstrap[kind]["interval"][index] if kind in bootstrap else None
                for kind in ("cases", "sites", "sites+cases")
            },
            "rank_set": None,
            "groups": "",
            "wins": int(wins[index]),
        }
        for index in order
    ]


def _compute_bootstrap(given: Combination) -> dict[str, FederationBootstrap]:
    """The final ranking under each kind of resampling that the shares allow."""
    if given.bootstrap is None:
        return {}
    sums = given.rank_sums
    full = sums.sum(axis=0)
    totals: dict[str, Ints] = {}
    drawn = [_find_draws(share, given) for share in given.shares]
    known = [draws for draws in drawn if draws is not None]
    if len(known) == len(drawn):
        totals["cases"] = draw_case_totals(known)
    if len(given.shares) > 1:
        totals["sites"] = draw_site_totals(sums, given.draws, given.seed)
        if len(known) == len(drawn):
            totals["sites+cases"] = draw_both_totals(known, given.seed)
    return {kind: summarise_totals(full, drawn_totals, given.final_ties) for kind, drawn_totals in totals.items()}


def _find_draws(share: SiteShare, given: Combination) -> npt.NDArray[np.int32] | None:
    """Sums of ranks [A, B] in every case draw of a site; a site with one case gives the same ones every time."""
    if share.cases < 2:
        return np.repeat(share.compute_rank_sums(given.method)[:, None], given.draws, axis=1).astype(np.int32)
    return share.bootstrap[given.method].sums if given.method in share.bootstrap else None


def _compute_more(given: Combination, sums: Ints) -> MoreAnswers:
    permutation = decathlon = None
    count = len(given.submissions)
    if given.details is not None:
        if all(len(detail.table.present) == count for detail in given.details):
            cases = np.concatenate([detail.case_ranks.sum(axis=0) for detail in given.details], axis=1)
            permutation = compute_permutation_ranking(cases.astype(np.int64), given.metrics, given.seed)
        decathlon = compute_decathlon(np.array([share.values["testBased"] for share in given.shares]))
    return {
        "permutation": permutation,
        "decathlon": decathlon,
        "critical_difference": compute_critical_difference(sums),
        "bayes": compute_bayesian_signed_rank(sums, given.metrics, given.seed),
    }
