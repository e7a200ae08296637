"""How often each kind of 95 % rank interval covers the true rank, for known populations.

``python tests/bench/bench_ranking_coverage.py`` prints the tables of docs/ranking.md (a few minutes on one core;
seeded). ``--quick`` does a few replications of each, which says nothing about coverage.

A population: submission a has skill theta_a, at site s and in metric m it is better by u_sam (normal, the
heterogeneity of sites), in a case by a normal error of standard deviation 1 around the difficulty of the case, which
all submissions share. Three kinds: skills 0.25 apart, pairs of equal skill 0.5 apart, and all equal. Truth is

* for a sub-ranking: the ranking by skill, equal skills tied (ties = min); for rankThenMedian by the median rank in the
  population, from 20,000 cases;
* for one site's ranking over its metrics (ties = min) and for ``cases``: the ranking of that very site, the final
  ranking of these very sites, if each had endless cases;
* for ``sites`` and ``sites+cases``: the ranking by skill; equal skills share the average rank;
* for the simultaneous sets: all places of the ranking by skill that a submission shares with equal ones; a set that
  lacks one of them has told equal submissions apart.

An interval covers when the true rank lies within it. For the simultaneous sets the share of replications in which all
submissions are covered is given too; 95 % is promised for that.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ranking.bootstrap import Weighting, compute_bootstrap_ranks  # noqa: E402
from ranking.draws import draw_counts, make_stream  # noqa: E402
from ranking.methods import compute_case_ranks, compute_sub_ranking  # noqa: E402
from ranking.ranks import compute_average_ranks, compute_min_ranks  # noqa: E402
from ranking.resample import draw_both_totals, draw_case_totals, draw_site_totals  # noqa: E402
from ranking.rules import METHODS  # noqa: E402
from ranking.separate import compute_separation  # noqa: E402

Floats = npt.NDArray[np.float64]

SUBMISSIONS, METRICS, DRAWS = 6, 2, 400
SKILLS: dict[str, Floats] = {
    "0.25 apart": -0.25 * np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "pairs 0.5 apart": -0.5 * np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0]),
    "all equal": np.zeros(SUBMISSIONS),
}
HETEROGENEITY = 0.25


class Tally:
    """Counts of covered intervals and sums of widths, by name."""

    def __init__(self) -> None:
        self.covered: dict[str, list[float]] = defaultdict(list)
        self.widths: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, low: Floats, high: Floats, truth: Floats, last: Floats | None = None) -> None:
        """One replication: intervals of all submissions; with ``last`` all places from ``truth`` to it must be in."""
        inside = (low <= truth) & ((truth if last is None else last) <= high)
        self.covered[name].append(float(inside.mean()))
        self.covered[name + ", all at once"].append(float(inside.all()))
        self.widths[name].append(float((high - low).mean()))

    def print(self, name: str, joint: bool = False) -> None:
        """One line of a table: coverage, its standard error, width."""
        cover = np.array(self.covered[name])
        error = cover.std() / np.sqrt(len(cover))
        line = f"| {name} | {100 * cover.mean():.1f} ± {100 * error:.1f} | {np.mean(self.widths[name]):.2f} |"
        if joint:
            line += f" {100 * np.mean(self.covered[name + ', all at once']):.1f} |"
        print(line, flush=True)


def make_values(rng: np.random.Generator, skills: Floats, cases: int) -> Floats:
    """Values [cases, submissions] of one metric at one site; larger is better."""
    return skills + rng.normal(size=(cases, 1)) + rng.normal(size=(cases, len(skills)))


def compute_truth(method: str, skills: Floats) -> Floats:
    """Ranks in the population, ties = min."""
    if method != "rankThenMedian":
        return compute_min_ranks(-skills).astype(float)
    ranks = compute_case_ranks(make_values(np.random.default_rng(3), skills, 20_000), True)
    medians = {skill: float(np.median(ranks[skills == skill])) for skill in set(skills.tolist())}
    return compute_min_ranks(np.array([medians[skill] for skill in skills.tolist()])).astype(float)


def get_interval(ranks: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """2.5 % and 97.5 % quantile (R type 7) of ranks [A, B]."""
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1)
    return low, high


def run_sub_rankings(replications: int, cases: int) -> None:
    """Coverage of the bootstrap of one sub-ranking, by method and weighting."""
    print(f"\nSub-ranking, {cases} cases: coverage (%), mean width\n")
    for kind, skills in SKILLS.items():
        rng = np.random.default_rng([1, cases])
        tally = Tally()
        truths = {method: compute_truth(method, skills) for method in METHODS}
        for replication in range(replications):
            values = make_values(rng, skills, cases)
            counts = draw_counts(make_stream(replication, "coverage", kind), DRAWS, cases)
            weightings: tuple[Weighting, ...] = ("case", "challengeR")
            for method in METHODS:
                for weighting in weightings:
                    ranks = compute_bootstrap_ranks(method, values, True, counts, weighting)
                    tally.add(f"{kind}: {method}, {weighting}", *get_interval(ranks), truths[method])
        for name in tally.widths:
            if not name.endswith("challengeR") or "aggregate" not in name:
                tally.print(name)


def run_federations(replications: int, sites: int, cases: int) -> None:
    """Coverage of the intervals of the final ranking (rankThenMean)."""
    print(f"\nFinal ranking, {sites} sites of {cases} cases: coverage (%), mean width, all at once (%)\n")
    for kind, skills in SKILLS.items():
        tally = Tally()
        rng = np.random.default_rng([2, sites, cases])
        for replication in range(replications):
            effects = skills + HETEROGENEITY * rng.normal(size=(sites, METRICS, SUBMISSIONS))
            drawn = []
            sums = np.zeros((sites, SUBMISSIONS), dtype=np.int64)
            for site in range(sites):
                counts = draw_counts(make_stream(replication, "coverage", str(site)), DRAWS, cases)
                total = np.zeros((SUBMISSIONS, DRAWS), dtype=np.int32)
                for metric in range(METRICS):
                    values = make_values(rng, effects[site, metric], cases)
                    sums[site] += compute_sub_ranking("rankThenMean", values, True).rank
                    total += compute_bootstrap_ranks("rankThenMean", values, True, counts)
                drawn.append(total)
            places = compute_min_ranks(np.moveaxis(effects, 2, 0), higher_is_better=True)
            endless = places.sum(axis=(1, 2))
            one_site = compute_min_ranks(places[:, 0].sum(axis=1)).astype(float)
            tally.add(f"{kind}: one site's ranking", *get_interval(compute_min_ranks(drawn[0])), one_site)
            fixed, by_skill = compute_average_ranks(endless), compute_average_ranks(-skills)
            cases_ranks = compute_average_ranks(draw_case_totals(drawn))
            tally.add(f"{kind}: cases", *get_interval(cases_ranks), fixed)
            sites_ranks = compute_average_ranks(draw_site_totals(sums, DRAWS, replication))
            tally.add(f"{kind}: sites", *get_interval(sites_ranks), by_skill)
            both_ranks = compute_average_ranks(draw_both_totals(drawn, replication))
            tally.add(f"{kind}: sites+cases", *get_interval(both_ranks), by_skill)
            separation = compute_separation(sums)
            assert separation is not None
            low, high = separation.rank_sets.T.astype(float)
            best, worst = compute_min_ranks(-skills), SUBMISSIONS + 1 - compute_min_ranks(skills)
            tally.add(f"{kind}: simultaneous set", low, high, best.astype(float), worst.astype(float))
        for name in tally.widths:
            tally.print(name, joint=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few replications: a smoke test")
    parser.add_argument("--replications", type=int, default=2000, help="default: %(default)s")
    arguments = parser.parse_args()
    replications = 2 if arguments.quick else arguments.replications
    run_sub_rankings(replications, 60)
    for sites in (5,) if arguments.quick else (5, 20):
        run_federations(replications, sites, 40)


if __name__ == "__main__":
    main()
