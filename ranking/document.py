"""The ranking document: one JSON per method, ``ranking_<method>.json``, with every number behind every plot.

FOR WHO DRAWS FROM IT (the HTML report)
---------------------------------------
* STABLE: every field below, its name, shape, unit and order. A field is only ever added, never renamed or removed,
  while ``format`` stays ``"fedeval-ranking/1"``. Do not import anything else of the package but
  :mod:`ranking.document`.
* Call: ``ranking.report.write_report(documents, output_dir, figures=())`` with ``documents: Sequence[Document]``
  (one per method that was asked for, at least one), ``output_dir: Path`` (exists; a staging folder that the caller
  publishes by renaming, so write plain files and no partial ones), ``figures: Sequence[str]`` out of ``"svg"``,
  ``"png"``. It returns the list of paths that it wrote. Imports of matplotlib and jinja2 stay inside
  :mod:`ranking.report`.
* To get real documents: ``python -m ranking DATA_DIR --method rankThenMean --output OUT`` writes
  ``OUT/ranking_rankThenMean.json`` (``--method all`` writes five, ``--bootstrap none`` is quickest);
  :func:`load_document` reads one back.
* ``None`` (JSON null) means "not computed, or not defined here": no bootstrap asked for, one site only, one case
  only, an infinite value. Every ``X | None`` below can be None in a real document: draw the rest.
* Conventions. A = number of submissions, S = sites, M = metrics, n = cases of a site, B = bootstrap draws. An index
  is an integer from 0 into ``submissions``, ``sites`` or ``metrics``; every list "[A]" is in the order of
  ``submissions`` (order of input), never sorted by rank: use ``federation.order`` to sort. Matrices are lists of
  rows. Ranks start at 1, 1 is best. "Rank, ties = min" is 1, 2, 2, 4; "ties = average" is 1, 2.5, 2.5, 4. Names are
  as given in the input: any length, any character but control characters, so escape them.
* Absent at a site: with ``absent = "rank-last"`` a submission may be absent at a site; then its ``value`` and ``box``
  there are None, its rank and every bootstrap rank is (number present) + 1, its row of per-case counts is 0.
* From shares: a document that a coordinator made from site shares has no values of cases: every ``value`` and ``box``
  is None, and ``dots``, ``case_rank_counts``, ``permutation``, ``decathlon`` too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

FORMAT = "fedeval-ranking/1"

# How cases or sites were drawn again: the keys of ``Federation.bootstrap`` and of ``FinalRow.intervals``.
Resampling = Literal["cases", "sites", "sites+cases"]
Weighting = Literal["equal", "cases", "sqrt-cases"]

Interval = list[float]
"""Two ranks [low, high], both included."""


class MetricInfo(TypedDict):
    """One metric of the rule."""

    name: str
    better: Literal["higher", "lower"]
    missing_value: float
    """What a missing value or a gap was replaced by."""
    low: float | None
    high: float | None
    """Plausible range; None is unbounded."""


class BootstrapInfo(TypedDict):
    """How the bootstrap was done."""

    weighting: Literal["case", "challengeR"]
    """``case``: a case drawn k times counts k times. ``challengeR``: the published tool's weighting, reproduced."""
    draws: int
    seed: int


class Tau(TypedDict):
    """Kendall's tau-b between the full ranking and every bootstrap draw (violin plot)."""

    percentiles: list[float] | None
    """101 numbers, percentile 0, 1, ..., 100 of the tau values (R type 7); None when no draw is defined."""
    mean: float | None
    undefined: int
    """Draws without a tau (all submissions tied); they are left out."""


class RankBootstrap(TypedDict):
    """Ranks of one ranking under bootstrap (blob plot, violin)."""

    draws: int
    rank_counts: list[list[int]]
    """[A][A]: how many draws gave submission a the rank r + 1 (ties = min). A row sums to ``draws``."""
    median: list[float]
    """[A] median rank."""
    interval: list[Interval]
    """[A] 2.5 % and 97.5 % quantile (R type 7)."""
    winner_counts: list[int]
    """[A] draws in which the submission had rank 1."""
    tau: Tau


class FederationBootstrap(RankBootstrap):
    """The final ranking under one kind of resampling; ``median`` and ``interval`` are of final ranks (may be
    halves)."""

    better_than: list[list[float]]
    """[A][A]: share of draws in which row has a smaller mean rank than column, ties counting one half; diagonal 0.5."""


class Box(TypedDict):
    """Five-number summary of one submission's values at one site in one metric, after missing values were replaced."""

    low: float | None
    q1: float | None
    median: float | None
    q3: float | None
    high: float | None
    """Minimum, quartiles (R type 7), maximum; None where infinite."""
    whisker_low: float | None
    whisker_high: float | None
    """Most extreme values within 1.5 interquartile ranges of the box."""
    mean: float | None
    missing: int
    """Missing values and gaps among the n cases (they are in the numbers above with the rule's missing_value)."""


class Dots(TypedDict):
    """Values of single cases for dot plots and podium lines: all cases of a small site, evenly spaced ones of a
    large site."""

    cases: list[int]
    """Indices of the cases shown, into the site's cases in order of input (0 .. n-1). Names are left out on purpose."""
    values: list[list[float | None]]
    """[case shown][A]; None where infinite or absent."""
    ranks: list[list[int]]
    """[case shown][A] rank within the case, ties = min (podium place)."""


class SiteMetric(TypedDict):
    """One sub-ranking: one metric at one site."""

    metric: str
    value: list[float | None]
    """[A] the number that is ranked: mean or median of per-case ranks, mean or median of values, or share of
    opponents beaten."""
    rank: list[int]
    """[A] sub rank, ties = min."""
    box: list[Box | None]
    """[A]."""
    dots: Dots | None
    case_rank_counts: list[list[int]] | None
    """[A][A]: cases in which submission a has per-case rank r + 1, ties = min (ranking heatmap, podium bars)."""
    significant: list[str]
    """[A] strings of A characters, "1" where row beats column (one-sided Wilcoxon, Holm over all ordered pairs, p <=
    0.05)."""
    bootstrap: RankBootstrap | None


class Site(TypedDict):
    """One site."""

    name: str
    cases: int
    mean_rank: list[float]
    """[A] mean of the M sub ranks."""
    rank: list[float]
    """[A] rank of that mean, ties = average."""
    metrics: list[SiteMetric]
    """[M] in the order of ``Document.metrics``."""
    significance: list[list[int]]
    """[A][A] metrics in which row beats column, 0 .. M."""
    bootstrap: RankBootstrap | None
    """The site's ranking (rank of the mean of M sub ranks, ties = min) when its cases are drawn again, all metrics
    together."""
    methods_rank: dict[str, list[float]]
    """method -> [A] this site's rank under each of the five methods (line plot)."""


class FinalRow(TypedDict):
    """One row of the final table."""

    submission: int
    mean_rank: float
    final_rank: float
    """Ties = average unless ``options.final_ties`` is ``min``."""
    intervals: dict[str, Interval | None]
    """Resampling -> 95 % interval of the final rank."""
    rank_set: Interval | None
    """Simultaneous 95 % confidence set for the rank over sites (all submissions at once)."""
    groups: str
    """Compact letters: two submissions that share a letter cannot be separated. Empty when not computed."""
    wins: int
    """Row sum of the significance matrix."""


class LeftOut(TypedDict):
    """The final ranking without one site."""

    site: int
    final_rank: list[float]
    """[A]."""
    changed: int
    """Submissions whose final rank differs from the full one."""
    largest_shift: float
    """Largest absolute difference of final rank."""
    most_moved: list[int]
    """Submissions that moved by that much; empty when none moved."""
    tau: float | None
    """Kendall's tau-b with the full final ranking."""


class WorstSite(TypedDict):
    """Fairness view: ranks of one submission's site means, over sites (ties = min)."""

    submission: int
    best_rank: float
    median_rank: float
    tenth_percentile_rank: float
    """Rank at the 10th percentile of performance over sites (90 % quantile of the ranks, R type 7)."""
    worst_rank: float
    worst_sites: list[int]
    """Sites with the worst rank."""
    spread: float
    """Interquartile range of the ranks."""


class WeightedRanking(TypedDict):
    """Final ranking under one weighting of the sites."""

    weights: list[float]
    """[S], sum 1."""
    mean_rank: list[float]
    final_rank: list[float]
    """[A]."""
    tau: float | None
    """Kendall's tau-b with the equal weights."""
    changed: int


class Heterogeneity(TypedDict):
    """How much the sites agree. None in Federation when there is one site or one submission."""

    tau: list[list[float | None]]
    """[S][S] Kendall's tau-b between the sites' mean ranks; None where a site ties all."""
    mean_tau: float | None
    kendall_w: float | None
    """Kendall's coefficient of concordance, corrected for ties, 0 .. 1."""
    kendall_w_p: float | None
    """p-value of the chi-square approximation with A - 1 degrees of freedom."""


class Dendrogram(TypedDict):
    """Sites clustered by their mean ranks. None with fewer than three sites."""

    distance: str
    """In words, for the caption."""
    linkage_method: str
    linkage: list[list[float]]
    """[S-1][4], scipy's linkage matrix: cluster, cluster, height, sites in it. Cluster S + i is row i."""
    leaves: list[int]
    """[S] site indices in drawing order."""


class CriticalDifference(TypedDict):
    """Demsar's diagram: Friedman test over sites and Nemenyi's critical difference. None with one site."""

    average_rank: list[float]
    """[A] mean over sites of the rank of the site's mean (ties = average)."""
    critical_difference: float
    """Difference of average rank that is significant at 5 %."""
    friedman_p: float | None
    cliques: list[list[int]]
    """Groups of submissions, best first, within the critical difference; only groups of two or more, none within
    another."""


class PairwiseProbability(TypedDict):
    """Bayesian signed-rank test over sites with a region of practical equivalence."""

    rope: float
    """Half width of the region, in mean ranks."""
    draws: int
    better: list[list[float]]
    """[A][A] probability that row is better than column by more than the rope; diagonal 0."""
    equivalent: list[list[float]]
    """[A][A] probability that they differ by less than the rope; diagonal 1."""


class PermutationRanking(TypedDict):
    """Per-case ranking over all cases of all sites with a paired permutation test (Bakas et al. 2018)."""

    permutations: int
    mean_rank: list[float]
    """[A] mean over cases of the mean of the M per-case ranks."""
    rank: list[int]
    """[A] ties = min."""
    p: list[list[float]]
    """[A][A] one-sided p-value that row is better than column; diagonal 1."""


class Decathlon(TypedDict):
    """Significance score: share of opponents beaten (unadjusted one-sided Wilcoxon, p <= 0.05), mean over sites and
    metrics."""

    score: list[float]
    rank: list[int]
    """[A] ties = min."""


class MoreAnswers(TypedDict):
    """Other published ways to rank, and other kinds of uncertainty. None in Federation unless asked for."""

    permutation: PermutationRanking | None
    decathlon: Decathlon | None
    critical_difference: CriticalDifference | None
    bayes: PairwiseProbability | None


class Federation(TypedDict):
    """The final ranking over all sites."""

    order: list[int]
    """[A] submissions sorted by final rank, ties in order of input."""
    final_table: list[FinalRow]
    """[A] in that order."""
    mean_rank: list[float]
    final_rank: list[float]
    """[A]."""
    significance: list[list[int]]
    """[A][A] sum over sites and metrics of "row beats column"; at most ``significance_max`` = M * S."""
    significance_max: int
    sub_rank_counts: list[list[int]]
    """[A][A]: sub-rankings (of M * S) in which submission a has rank r + 1 (ranking heatmap and podium bars of the
    federation)."""
    site_rank_counts: list[list[int]]
    """[A][A]: sites in which submission a has rank r + 1 (ties = min)."""
    bootstrap: dict[str, FederationBootstrap]
    """Resampling -> ranks of the final ranking; empty when no bootstrap was asked for."""
    methods_rank: dict[str, list[float]]
    """method -> [A] final rank under each of the five methods (line plot). Always all five."""
    leave_one_site_out: list[LeftOut]
    """[S]; empty with one site."""
    moved_by: list[list[float]]
    """[A][S]: final rank without the site minus full final rank ("which site moves whom"); rows empty with one site."""
    worst_site: list[WorstSite]
    """[A] in order of ``submissions``."""
    weights: dict[str, WeightedRanking]
    """Weighting -> final ranking; ``equal`` is the ranking of the table."""
    heterogeneity: Heterogeneity | None
    dendrogram: Dendrogram | None
    groups: list[list[int]]
    """Groups of submissions that cannot be separated (from the simultaneous sets), best first; one letter each in
    final_table."""
    more: MoreAnswers | None


class Options(TypedDict):
    """What was asked for."""

    absent: str
    na: str
    final_ties: str
    ties: str
    strict: bool
    bootstrap: BootstrapInfo | None


class Document(TypedDict):
    """Everything about one ranking by one method."""

    format: str
    version: str
    rule: str
    """Name of the ranking rule, for example ``FeTS 2022``."""
    method: str
    options: Options
    submissions: list[str]
    sites: list[str]
    metrics: list[MetricInfo]
    federation: Federation
    per_site: list[Site]
    """[S] in the order of ``sites``."""
    missing_values: int
    """Missing values and gaps that were replaced, over everything."""
    left_out: list[str]
    """Sentences on sites or submissions left out or ranked last by the policy for absent submissions."""
    warnings: list[str]
    """What was also said on stderr."""


def load_document(path: Path) -> Document:
    """Read one ``ranking_<method>.json``.

    Raises
    ------
    ValueError
        If the file is not a ranking document of this format.
    """
    loaded: Any = json.loads(path.read_text(encoding="utf-8"))
    found = loaded.get("format") if isinstance(loaded, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path.name} is not a ranking document: format is {found!r}, expected {FORMAT!r}")
    return cast(Document, loaded)


def format_document(document: Document) -> str:
    """Strict JSON text (no NaN, no Infinity) with a newline at the end; same document, same bytes."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
