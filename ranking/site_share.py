"""Everything that is computed at one site alone.

:class:`SiteShare` is what the federation needs, and all that may leave a site: ranks, significance decisions, counts
of ranks under bootstrap. :class:`SiteDetails` is what stays: numbers of single cases. The program computes shares and
combines them also when all files lie in one folder, so a coordinator who only has shares reaches the same final
ranking, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ranking.bootstrap import Weighting, compute_bootstrap_ranks
from ranking.document import RankBootstrap, Tau
from ranking.draws import Counts, draw_counts, make_stream
from ranking.methods import compute_case_ranks, compute_sub_ranking
from ranking.ranks import compute_min_ranks, compute_rank_counts, compute_tau
from ranking.rules import METHODS, Rule
from ranking.signed_rank_draws import find_add_sums
from ranking.tables import SiteTable
from ranking.wilcoxon import PairTests, compute_pair_tests

Floats = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SiteSettings:
    """What is asked of a site.

    ``bootstrap_methods`` are the methods that are bootstrapped, with ``draws`` samples each; none for no bootstrap.
    ``na_bottom`` ranks missing values below every real one (rankThen* only). ``compiled`` chooses the implementation
    of testBased draws.
    """

    bootstrap_methods: tuple[str, ...] = ()
    weighting: Weighting = "case"
    draws: int = 1000
    seed: int = 1
    na_bottom: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class SiteBootstrap:
    """One method under bootstrap: each metric, the site's own ranking, and the sum of the M ranks in every draw.

    ``metrics`` is empty and ``site`` None where they are not known (a share that lacks a submission of the study).
    ``sums`` is int32 [A, B]; None in a share that was made without draws.
    """

    metrics: list[RankBootstrap]
    site: RankBootstrap | None
    sums: Ranks | None


@dataclass(frozen=True)
class SiteShare:
    """What leaves a site.

    Attributes
    ----------
    values, ranks : dict
        Method -> array [M, A]: the ranked number (NaN where absent) and the sub rank. All five methods.
    significant : ndarray of bool, shape (M, A, A)
        Row beats column after Holm's correction.
    bootstrap : dict
        Method -> :class:`SiteBootstrap`.
    """

    name: str
    cases: int
    values: dict[str, Floats]
    ranks: dict[str, Ranks]
    significant: npt.NDArray[np.bool_]
    bootstrap: dict[str, SiteBootstrap] = field(default_factory=dict)

    def compute_rank_sums(self, method: str) -> npt.NDArray[np.int64]:
        """Sum of the M sub ranks of each submission, shape (A,)."""
        sums: npt.NDArray[np.int64] = self.ranks[method].sum(axis=0, dtype=np.int64)
        return sums


@dataclass(frozen=True)
class SiteDetails:
    """What stays at a site.

    ``tests`` has one entry per metric, over the present submissions; ``case_ranks`` is int32 [M, A, n], 0 where absent.
    """

    table: SiteTable
    tests: list[PairTests]
    case_ranks: Ranks


def analyse_site(
    table: SiteTable, rule: Rule, submissions: int, settings: SiteSettings
) -> tuple[SiteShare, SiteDetails]:
    """Rank one site by all five methods, test all pairs, and bootstrap what was asked for.

    Parameters
    ----------
    table : SiteTable
    rule : Rule
    submissions : int
        A, the number of submissions of the study; absent ones get rank P + 1.
    settings : SiteSettings
    """
    tests = [
        compute_pair_tests(values, metric.higher_is_better)
        for values, metric in zip(table.values, rule.metrics, strict=True)
    ]
    masks = _select_masks(table, settings)
    values, ranks = {}, {}
    for method in METHODS:
        subs = [
            compute_sub_ranking(method, table.values[number], metric.higher_is_better, masks[number], tests[number])
            for number, metric in enumerate(rule.metrics)
        ]
        values[method] = _spread(np.array([sub.value for sub in subs]), table.present, submissions, np.nan)
        ranks[method] = _spread(np.array([sub.rank for sub in subs]), table.present, submissions, _last(table))
    significant = np.zeros((len(rule.metrics), submissions, submissions), dtype=bool)
    grid = np.ix_(table.present, table.present)
    for number, test in enumerate(tests):
        significant[number][grid] = test.significant
    bootstrap = _bootstrap_site(table, rule, ranks, settings, masks)
    share = SiteShare(table.name, len(table.cases), values, ranks, significant, bootstrap)
    return share, SiteDetails(table, tests, _rank_cases(table, rule, submissions, masks))


def draw_case_counts(table: SiteTable, settings: SiteSettings) -> Counts:
    """The samples of a site's cases: the same for all methods and metrics, all submissions together."""
    return draw_counts(make_stream(settings.seed, "cases", table.name), settings.draws, len(table.cases))


def _bootstrap_site(
    table: SiteTable,
    rule: Rule,
    ranks: dict[str, Ranks],
    settings: SiteSettings,
    masks: list[npt.NDArray[np.bool_] | None],
) -> dict[str, SiteBootstrap]:
    if len(table.cases) < 2 or not settings.bootstrap_methods:
        return {}
    counts = draw_case_counts(table, settings)
    return {
        method: _bootstrap_method(method, table, rule, ranks[method], counts, settings, masks)
        for method in settings.bootstrap_methods
    }


def _bootstrap_method(
    method: str,
    table: SiteTable,
    rule: Rule,
    ranks: Ranks,
    counts: Counts,
    settings: SiteSettings,
    masks: list[npt.NDArray[np.bool_] | None],
) -> SiteBootstrap:
    submissions = ranks.shape[1]
    add_sums = find_add_sums(settings.compiled) if method == "testBased" else None
    sums = np.zeros((submissions, len(counts)), dtype=np.int32)
    metrics = []
    for number, metric in enumerate(rule.metrics):
        drawn = compute_bootstrap_ranks(
            method,
            table.values[number],
            metric.higher_is_better,
            counts,
            settings.weighting,
            masks[number],
            add_sums,
        )
        drawn = _spread(drawn.T, table.present, submissions, _last(table)).T
        metrics.append(summarise_draws(ranks[number], drawn))
        sums += drawn
    whole = summarise_draws(ranks.sum(axis=0), compute_min_ranks(sums))
    return SiteBootstrap(metrics, whole, sums)


def summarise_draws(reference: npt.NDArray[np.generic], drawn: npt.NDArray[np.int32]) -> RankBootstrap:
    """Counts, quantiles (R type 7), winners and Kendall's tau-b of ranks [A, B] against the full ranking [A]."""
    low, median, high = np.quantile(drawn, [0.025, 0.5, 0.975], axis=1)
    return {
        "draws": drawn.shape[1],
        "rank_counts": compute_rank_counts(drawn, len(drawn)).tolist(),
        "median": median.tolist(),
        "interval": np.stack([low, high], axis=1).tolist(),
        "winner_counts": (drawn == 1).sum(axis=1).tolist(),
        "tau": summarise_tau(compute_tau(reference, drawn)),
    }


def summarise_tau(tau: Floats) -> Tau:
    """101 percentiles and the mean of the defined values."""
    defined = tau[~np.isnan(tau)]
    if not defined.size:
        return {"percentiles": None, "mean": None, "undefined": len(tau)}
    percentiles = np.quantile(defined, np.linspace(0.0, 1.0, 101))
    return {
        "percentiles": percentiles.tolist(),
        "mean": float(defined.mean()),
        "undefined": len(tau) - len(defined),
    }


def _select_masks(table: SiteTable, settings: SiteSettings) -> list[npt.NDArray[np.bool_] | None]:
    return [missing if settings.na_bottom else None for missing in table.missing]


def _last(table: SiteTable) -> int:
    """Rank of absent submissions: after all that are present, tied among themselves (ties = min)."""
    return len(table.present) + 1


def _spread(rows: npt.NDArray[Any], present: npt.NDArray[np.intp], columns: int, absent: float) -> npt.NDArray[Any]:
    """Put columns of the present submissions among all of them."""
    if len(present) == columns:
        return rows
    spread = np.full((len(rows), columns), absent, dtype=rows.dtype)
    spread[:, present] = rows
    return spread


def _rank_cases(table: SiteTable, rule: Rule, submissions: int, masks: list[npt.NDArray[np.bool_] | None]) -> Ranks:
    ranks = np.zeros((len(rule.metrics), submissions, len(table.cases)), dtype=np.int32)
    for number, metric in enumerate(rule.metrics):
        ranks[number, table.present] = compute_case_ranks(table.values[number], metric.higher_is_better, masks[number])
    return ranks
