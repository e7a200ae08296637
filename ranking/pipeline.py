"""The steps of a ranking, in order: read, build the study, analyse each site, combine.

:func:`compute_documents` is the whole of it for a program that wants the numbers and no files.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ranking.assemble import Combination, compute_document
from ranking.assemble_site import build_pictures
from ranking.bootstrap import Weighting
from ranking.document import Document
from ranking.final import FinalTies
from ranking.read import load_site_files
from ranking.rules import Rule, load_rule
from ranking.signed_rank_draws import is_worth_compiling
from ranking.site_share import SiteDetails, SiteSettings, SiteShare, analyse_site
from ranking.tables import Absent, Study, build_study

Progress = Callable[[int, int], None]
"""Called with (sites done, sites in all)."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be asked of a ranking; the defaults are the published ranking with a proper bootstrap."""

    methods: tuple[str, ...] = ("rankThenMean",)
    absent: Absent = "error"
    strict: bool = False
    na: Literal["penalty", "bottom"] = "penalty"
    final_ties: FinalTies = "average"
    ties: Literal["exact", "upstream"] = "exact"
    bootstrap: Weighting | None = "case"
    draws: int = 1000
    seed: int = 1
    workers: int = 1
    more: bool = False

    def make_site_settings(self, study: Study) -> SiteSettings:
        """What is asked of each site."""
        pairs = len(study.submissions) * (len(study.submissions) - 1) // 2
        values = sum(len(site.cases) for site in study.sites) * len(study.rule.metrics)
        tested = self.bootstrap is not None and "testBased" in self.methods
        return SiteSettings(
            bootstrap_methods=self.methods if self.bootstrap else (),
            weighting=self.bootstrap or "case",
            draws=self.draws,
            seed=self.seed,
            na_bottom=self.na == "bottom",
            compiled=tested and is_worth_compiling(pairs, values, self.draws),
        )


def load_study(data_dir: Path, rule: Rule, settings: Settings) -> Study:
    """Read a folder of site files and put them over one list of submissions."""
    return build_study(load_site_files(data_dir, rule), rule, settings.absent, settings.strict)


def analyse_study(
    study: Study, settings: Settings, progress: Progress | None = None
) -> tuple[list[SiteShare], list[SiteDetails]]:
    """Analyse every site, in parallel where workers are given; the result does not depend on how many.

    Returns
    -------
    shares, details : lists in the order of ``study.sites``
    """
    count = len(study.sites)
    results: dict[int, tuple[SiteShare, SiteDetails]] = {}
    for index, result in _analyse_sites(study, settings):
        results[index] = result
        if progress is not None:
            progress(len(results), count)
    return [results[index][0] for index in range(count)], [results[index][1] for index in range(count)]


def _analyse_sites(study: Study, settings: Settings) -> Iterator[tuple[int, tuple[SiteShare, SiteDetails]]]:
    submissions, asked = len(study.submissions), settings.make_site_settings(study)
    if settings.workers <= 1 or len(study.sites) < 2:
        for index, table in enumerate(study.sites):
            yield index, analyse_site(table, study.rule, submissions, asked)
        return
    # Fresh processes: a forked one could inherit the locks of numpy's threads.
    context = multiprocessing.get_context("spawn")
    workers = min(settings.workers, len(study.sites))
    with ProcessPoolExecutor(max_workers=workers, mp_context=context) as pool:
        futures = {
            pool.submit(analyse_site, table, study.rule, submissions, asked): index
            for index, table in enumerate(study.sites)
        }
        for future in as_completed(futures):
            yield futures[future], future.result()


def combine(
    study: Study, shares: list[SiteShare], details: list[SiteDetails] | None, settings: Settings
) -> list[Document]:
    """One document per method that was asked for."""
    pictures = [build_pictures(detail, len(study.submissions)) for detail in details] if details else None
    return [
        compute_document(
            Combination(
                method=method,
                rule=study.rule,
                submissions=study.submissions,
                shares=shares,
                details=details,
                pictures=pictures,
                bootstrap=settings.bootstrap,
                draws=settings.draws,
                seed=settings.seed,
                final_ties=settings.final_ties,
                ties=settings.ties,
                na=settings.na,
                absent=settings.absent,
                strict=settings.strict,
                more=settings.more,
                missing_values=study.missing_values,
                left_out=study.left_out,
                warnings=study.warnings,
            )
        )
        for method in settings.methods
    ]


def compute_documents(data_dir: Path, settings: Settings | None = None, rule: Rule | None = None) -> list[Document]:
    """Read a folder of site files and rank it: one document per method.

    Raises
    ------
    RankingError
        The input cannot be used; see :mod:`ranking.errors`.
    """
    settings = settings or Settings()
    study = load_study(data_dir, rule or load_rule(), settings)
    shares, details = analyse_study(study, settings)
    return combine(study, shares, details, settings)
