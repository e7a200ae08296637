"""A site's share as a file: what leaves the site, and nothing else.

``share_<site>.json`` holds the number of cases, the sub ranks by all five methods, the significance decisions, and
under bootstrap the counts of ranks. It holds no value of a metric, no case name and no p-value. With ``--share-draws``
it also holds the sum of the ranks in every bootstrap draw, which the coordinator needs to draw the cases of all sites
again together.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ranking.bootstrap import Weighting
from ranking.document import RankBootstrap
from ranking.errors import InputError, format_found, format_name
from ranking.rules import METHODS, Rule
from ranking.site_share import SiteBootstrap, SiteSettings, SiteShare
from ranking.tables import Absent, Study, compute_kept

FORMAT = "fedeval-ranking-share/1"


@dataclass(frozen=True)
class SharedSite:
    """One share file: the site's own list of submissions, and what it was made with."""

    submissions: tuple[str, ...]
    share: SiteShare
    weighting: Weighting | None
    draws: int
    seed: int
    na: Literal["penalty", "bottom"]


def compute_rule_digest(rule: Rule) -> str:
    """Names what the metrics, directions and missing values are; sites that ranked by another rule cannot be
    combined."""
    parts = [(metric.name, metric.better, repr(metric.missing)) for metric in rule.metrics]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def format_share(share: SiteShare, submissions: tuple[str, ...], rule: Rule, made: SiteSettings, draws: bool) -> str:
    """JSON text of a share.

    Parameters
    ----------
    draws : bool
        Also give the sum of ranks in every draw.
    """
    bootstrap = {
        method: {
            "metrics": entry.metrics,
            "site": entry.site,
            "sums": entry.sums.tolist() if draws and entry.sums is not None else None,
        }
        for method, entry in share.bootstrap.items()
    }
    node = {
        "format": FORMAT,
        "rule": compute_rule_digest(rule),
        "site": share.name,
        "cases": share.cases,
        "submissions": list(submissions),
        "metrics": [metric.name for metric in rule.metrics],
        "na": "bottom" if made.na_bottom else "penalty",
        "ranks": {method: share.ranks[method].tolist() for method in METHODS},
        "significant": [
            ["".join("01"[cell] for cell in row) for row in metric] for metric in share.significant.tolist()
        ],
        "weighting": made.weighting if share.bootstrap else None,
        "draws": made.draws if share.bootstrap else 0,
        "seed": made.seed,
        "bootstrap": bootstrap,
    }
    return json.dumps(node, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def load_shares(folder: Path, rule: Rule) -> list[SharedSite]:
    """Read every ``share_*.json`` of a folder, sorted by site.

    Raises
    ------
    InputError
        No share, two of one site, or one that does not fit the rule or the others; the message names the file.
    """
    paths = sorted(folder.glob("share_*.json")) if folder.is_dir() else []
    if not paths:
        raise InputError(f"no shares in {folder}: expected at least one share_<site>.json (made with --share)")
    shared = [_load_share(path, rule) for path in paths]
    shared.sort(key=lambda entry: entry.share.name)
    for before, after in itertools.pairwise(shared):
        if before.share.name == after.share.name:
            raise InputError(f"two shares are of site {format_name(after.share.name)}; keep one of them")
    if len({entry.na for entry in shared}) > 1:
        raise InputError("the shares treat missing values differently (--na); make them again with one rule")
    made = {(str(entry.weighting), entry.draws) for entry in shared if entry.weighting is not None}
    if len(made) > 1:
        raise InputError(
            f"the shares were bootstrapped differently: {sorted(made)}; make them again with the same options"
        )
    return shared


def combine_shares(shared: list[SharedSite], rule: Rule, absent: Absent) -> tuple[Study, list[SiteShare]]:
    """Put shares over one list of submissions.

    Parameters
    ----------
    shared : list of SharedSite
    absent : str
        Policy for a submission that is absent at a site. ``leave-out-submission`` would change the ranks within the
        sites, which needs their values.

    Returns
    -------
    study : Study
        Without tables.
    shares : list of SiteShare

    Raises
    ------
    InputError
        A submission is absent at a site and the policy does not allow it.
    """
    kept, submissions, effects = compute_kept({entry.share.name: list(entry.submissions) for entry in shared}, absent)
    if absent == "leave-out-submission" and effects:
        raise InputError(f"{effects[0]}; ranks without it need the values of the cases: choose another --absent policy")
    shares = [_align(entry, submissions) for entry in shared if entry.share.name in kept]
    return Study(rule, tuple(submissions), (), tuple(effects), tuple(effects)), shares


def _align(entry: SharedSite, submissions: list[str]) -> SiteShare:
    """Bring a share to the order of the study; absent submissions get the rank after the last present one."""
    index = {name: place for place, name in enumerate(entry.submissions)}
    if list(entry.submissions) == submissions:
        return entry.share
    places = np.array([index.get(name, -1) for name in submissions])
    present, last = places >= 0, len(index) + 1
    share, metrics = entry.share, len(entry.share.significant)
    significant = share.significant[:, places][:, :, places] & present & present[:, None]
    ranks = {
        method: np.where(present, table[:, places], last).astype(np.int32) for method, table in share.ranks.items()
    }
    bootstrap = {
        method: SiteBootstrap(
            [_reorder(summary, places) for summary in drawn.metrics] if present.all() else [],
            _reorder(drawn.site, places) if drawn.site and present.all() else None,
            None
            if drawn.sums is None
            else np.where(present[:, None], drawn.sums[places], metrics * last).astype(np.int32),
        )
        for method, drawn in share.bootstrap.items()
    }
    return SiteShare(share.name, share.cases, {}, ranks, significant, bootstrap)


def _reorder(summary: RankBootstrap, places: npt.NDArray[np.intp]) -> RankBootstrap:
    order = places.tolist()
    return {
        "draws": summary["draws"],
        "rank_counts": [summary["rank_counts"][place] for place in order],
        "median": [summary["median"][place] for place in order],
        "interval": [summary["interval"][place] for place in order],
        "winner_counts": [summary["winner_counts"][place] for place in order],
        "tau": summary["tau"],
    }


def _load_share(path: Path, rule: Rule) -> SharedSite:
    where = f"share {format_name(path.name)}"
    try:
        node: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {where}: {error}; have the site make it again") from error
    if not isinstance(node, dict) or node.get("format") != FORMAT:
        raise InputError(f"{where}: found no share of format {FORMAT}; have the site make it again")
    if node.get("rule") != compute_rule_digest(rule):
        raise InputError(f"{where}: made by another ranking rule than {rule.name}; give that one with --rule")
    try:
        return _read_share(node, rule)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: {format_found(str(error), 200)}; expected a complete share: have the site make it again"
        ) from error


def _read_share(node: dict[str, Any], rule: Rule) -> SharedSite:
    submissions = tuple(_check_text(name) for name in node["submissions"])
    count, metrics = len(submissions), len(rule.metrics)
    if not submissions or len(set(submissions)) != count:
        raise ValueError("submissions are not distinct")
    ranks = {method: np.array(node["ranks"][method], dtype=np.int32) for method in METHODS}
    for method, table in ranks.items():
        if table.shape != (metrics, count) or table.min() < 1 or table.max() > count:
            raise ValueError(f"ranks of {method} are not one of 1..{count} per metric and submission")
    significant = np.array([[list(row) for row in metric] for metric in node["significant"]]) == "1"
    if significant.shape != (metrics, count, count):
        raise ValueError("the significance decisions are not one per metric and pair")
    cases = node["cases"]
    if type(cases) is not int or cases < 1:
        raise ValueError("cases is not a positive whole number")
    bootstrap = {
        method: _read_bootstrap(entry, metrics, count, int(node["draws"]))
        for method, entry in node["bootstrap"].items()
    }
    share = SiteShare(_check_text(node["site"]), cases, {}, ranks, significant, bootstrap)
    weighting: Weighting | None = {"case": "case", "challengeR": "challengeR"}.get(node["weighting"])  # type: ignore[assignment]
    return SharedSite(
        submissions,
        share,
        weighting,
        int(node["draws"]),
        int(node["seed"]),
        "bottom" if node["na"] == "bottom" else "penalty",
    )


def _check_text(name: Any) -> str:
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("a name is empty or not printable")
    return name


def _read_bootstrap(entry: dict[str, Any], metrics: int, count: int, draws: int) -> SiteBootstrap:
    if len(entry["metrics"]) != metrics:
        raise ValueError("the bootstrap does not have every metric")
    for summary in (*entry["metrics"], entry["site"]):
        table = np.array(summary["rank_counts"])
        if table.shape != (count, count) or (table.sum(axis=1) != draws).any() or summary["draws"] != draws:
            raise ValueError("the counts of bootstrap ranks do not sum to the number of draws")
    sums = None if entry["sums"] is None else np.array(entry["sums"], dtype=np.int32)
    if sums is not None and sums.shape != (count, draws):
        raise ValueError("the sums of bootstrap ranks are not one per submission and draw")
    return SiteBootstrap(entry["metrics"], entry["site"], sums)
