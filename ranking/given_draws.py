"""Ranks for resamples that are given (``--multiplicities``), to compare another program's bootstrap draw by draw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ranking.bootstrap import Weighting, compute_bootstrap_ranks
from ranking.errors import OptionError, format_found, format_name
from ranking.rules import METHODS
from ranking.tables import SiteTable, Study

# Cubes of it stay exact in a double.
_MAX_DRAWN = 100_000


@dataclass(frozen=True)
class GivenDraws:
    """``counts``: site -> metric -> (case names, int array [B, cases])."""

    method: str
    weighting: Weighting
    counts: dict[str, dict[str, tuple[list[str], npt.NDArray[np.int32]]]]


def load_given_draws(path: Path) -> GivenDraws:
    """Read a multiplicities file.

    Raises
    ------
    OptionError
        It is no such file.
    """
    try:
        node: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot read multiplicities file {path.name}: {error}; expected JSON") from error
    if not isinstance(node, dict) or not isinstance(node.get("sites"), dict):
        raise OptionError(
            f"{path.name}: found no sites, expected method, weighting and sites -> metric -> cases, counts"
        )
    method, weighting = node.get("method"), node.get("weighting", "case")
    if method not in METHODS:
        raise OptionError(f"{path.name}: method is {format_found(str(method))}, expected one of {', '.join(METHODS)}")
    if weighting not in ("case", "challengeR"):
        raise OptionError(f"{path.name}: weighting is {format_found(str(weighting))}, expected case or challengeR")
    counts: dict[str, dict[str, tuple[list[str], npt.NDArray[np.int32]]]] = {}
    for site, metrics in node["sites"].items():
        if not isinstance(metrics, dict):
            raise OptionError(
                f"{path.name}: site {format_name(site)} holds no mapping, expected metric -> cases, counts"
            )
        counts[site] = {
            metric: _read_counts(entry, f"{path.name}: site {format_name(site)}, metric {format_name(metric)}")
            for metric, entry in metrics.items()
        }
    return GivenDraws(method, weighting, counts)


def _read_counts(entry: Any, where: str) -> tuple[list[str], npt.NDArray[np.int32]]:
    cases, counts = (entry.get("cases"), entry.get("counts")) if isinstance(entry, dict) else (None, None)
    if not isinstance(cases, list) or not isinstance(counts, list):
        raise OptionError(f"{where}: found no cases and counts, expected a list of names and a list of lists")
    names = [str(case) for case in cases]
    sized = all(isinstance(draw, list) and len(draw) == len(names) for draw in counts)
    if not sized or not all(type(count) is int and count >= 0 for draw in counts for count in draw):
        raise OptionError(f"{where}: expected one whole number of copies, at least 0, per case in each draw")
    if any(sum(draw) > _MAX_DRAWN for draw in counts):
        raise OptionError(f"{where}: found a draw of more than {_MAX_DRAWN} cases, which cannot be added exactly")
    if not all(any(draw) for draw in counts) or len(set(names)) != len(names):
        raise OptionError(f"{where}: found a draw without any case or a case named twice")
    return names, np.array(counts, dtype=np.int32).reshape(len(counts), len(names))


def compute_given_ranks(study: Study, given: GivenDraws, na_bottom: bool) -> dict[str, dict[str, dict[str, Any]]]:
    """Ranks of every given draw: site -> metric -> ``{"algorithms": [...], "ranks": [[rank per algorithm] per draw]}``.

    Raises
    ------
    OptionError
        A site, metric or case in the file is not in the data.
    """
    tables = {table.name: table for table in study.sites}
    metrics = {metric.name: number for number, metric in enumerate(study.rule.metrics)}
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for site, entries in given.counts.items():
        if site not in tables:
            raise OptionError(f"multiplicities: site {format_name(site)} is not in the data; known: {sorted(tables)}")
        table = tables[site]
        names = [study.submissions[number] for number in table.present]
        result[site] = {}
        for metric, (cases, counts) in entries.items():
            if metric not in metrics:
                raise OptionError(f"multiplicities: metric {format_name(metric)} is not in the rule {study.rule.name}")
            number = metrics[metric]
            ranks = compute_bootstrap_ranks(
                given.method,
                table.values[number],
                study.rule.metrics[number].higher_is_better,
                _align(cases, counts, table),
                given.weighting,
                table.missing[number] if na_bottom else None,
            )
            result[site][metric] = {"algorithms": names, "ranks": ranks.T.tolist()}
    return result


def _align(cases: list[str], counts: npt.NDArray[np.int32], table: SiteTable) -> npt.NDArray[np.int32]:
    """Put the counts in the table's order of cases; a case that is not named is never drawn."""
    index = {case: place for place, case in enumerate(table.cases)}
    unknown = [case for case in cases if case not in index]
    if unknown:
        raise OptionError(
            f"multiplicities: site {format_name(table.name)} has no case {format_name(unknown[0])}; "
            "expected the case names of its file"
        )
    aligned = np.zeros((len(counts), len(table.cases)), dtype=np.int32)
    aligned[:, [index[case] for case in cases]] = counts
    return aligned
