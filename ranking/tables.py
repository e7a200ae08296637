"""From site files to tables that can be ranked: one set of submissions, missing values replaced, oddities reported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ranking.errors import InputError, format_name, format_names
from ranking.read import SiteFile
from ranking.rules import Metric, Rule

Absent = Literal["error", "leave-out-sites", "leave-out-submission", "rank-last"]
"""What to do with a submission that is absent at a site."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SiteTable:
    """One site, ready to be ranked.

    Attributes
    ----------
    cases : tuple of str
        n case names in order of input.
    present : ndarray of int, shape (P,)
        Indices (into the study's submissions) of the submissions that the site has; all of them unless absent ones
        are ranked last. values : ndarray of float64, shape (M, n, P)
        Values with missing ones replaced by the rule's number.
    missing : ndarray of bool, shape (M, n, P)
        Where a value was replaced.
    """

    name: str
    cases: tuple[str, ...]
    present: npt.NDArray[np.intp]
    values: Floats
    missing: Bools


@dataclass(frozen=True)
class Study:
    """All sites over one list of submissions, with what was remarked on the way."""

    rule: Rule
    submissions: tuple[str, ...]
    sites: tuple[SiteTable, ...]
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def missing_values(self) -> int:
        """Number of values that were replaced."""
        return sum(int(site.missing.sum()) for site in self.sites)


def build_study(files: list[SiteFile], rule: Rule, absent: Absent = "error", strict: bool = False) -> Study:
    """Put the files over one list of submissions and replace missing values.

    Parameters
    ----------
    files : list of SiteFile
        At least one.
    absent : str
        Policy for a submission that is absent at a site; see :func:`compute_kept`.
    strict : bool
        Make a gap (no entry for a case and submission, or for one of its metrics) an error instead of a warning.

    Raises
    ------
    InputError
        A submission is absent at a site and the policy is ``error``; nothing is left; a gap under ``strict``.
    """
    listed = {file.name: file.content.submissions for file in files}
    kept, submissions, left_out = compute_kept(listed, absent)
    files = [file for file in files if file.name in kept]
    warnings = _describe_unknown(files)
    sites = []
    for file in files:
        gaps = _describe_gaps(file, submissions, rule)
        if gaps and strict:
            raise InputError(f"{gaps[0]}; expected a value or null for each (--strict): complete the file")
        warnings += [f"{gap}; treated as missing values" for gap in gaps]
        table = _build_table(file, submissions, rule)
        warnings += _describe_values(table, rule, submissions)
        sites.append(table)
    study = Study(rule, tuple(submissions), tuple(sites), tuple(left_out))
    if study.missing_values:
        warnings.append(f"{study.missing_values} missing values were replaced by the rule {rule.name}")
    return replace(study, warnings=(*left_out, *warnings))


def compute_kept(listed: dict[str, list[str]], absent: Absent) -> tuple[list[str], list[str], list[str]]:
    """Apply the policy for absent submissions.

    Parameters
    ----------
    listed : dict
        Site -> the submissions that it has.

    Returns
    -------
    sites, submissions : what remains, in order of first appearance
    effects : list of str
        One sentence for each site or submission that the policy left out or ranked last.
    """
    sites, submissions = list(listed), list(dict.fromkeys(name for names in listed.values() for name in names))
    lacking: dict[str, list[str]] = {}
    for site, names in listed.items():
        if absentees := [name for name in submissions if name not in set(names)]:
            lacking[site] = absentees
    if not lacking or absent == "rank-last":
        return (
            sites,
            submissions,
            [
                f"site {format_name(site)} has no values of {format_names(names)}: ranked last there in every metric, "
                "untested against the others"
                for site, names in lacking.items()
            ],
        )
    if absent == "error":
        text = "; ".join(
            f"site {format_name(site)} has no submission {format_names(names)}" for site, names in lacking.items()
        )
        raise InputError(
            f"{text}; expected the same submissions at every site: complete the files, or choose --absent "
            "leave-out-sites, leave-out-submission or rank-last"
        )
    if absent == "leave-out-sites":
        effects = [
            f"site {format_name(site)} is left out: it has no values of {format_names(names)}"
            for site, names in lacking.items()
        ]
        sites = [site for site in sites if site not in lacking]
        submissions = list(dict.fromkeys(name for site in sites for name in listed[site]))
    else:
        dropped = [name for name in submissions if any(name in names for names in lacking.values())]
        effects = [
            f"submission {format_name(name)} is left out: it is absent at site "
            + format_names([site for site, names in lacking.items() if name in names])
            for name in dropped
        ]
        submissions = [name for name in submissions if name not in dropped]
    if not sites or not submissions:
        raise InputError(f"--absent {absent} leaves nothing to rank: {effects[0]}; choose another policy")
    return sites, submissions, effects


def _build_table(file: SiteFile, submissions: list[str], rule: Rule) -> SiteTable:
    content = file.content
    index = {name: column for column, name in enumerate(content.submissions)}
    present = [number for number, name in enumerate(submissions) if name in index]
    columns = [index[submissions[number]] for number in present]
    values = np.ascontiguousarray(content.values[:, columns, :].transpose(2, 0, 1))
    missing = np.isnan(values)
    fill = np.array([metric.missing for metric in rule.metrics])
    values = np.where(missing, fill[:, None, None], values)
    return SiteTable(file.name, tuple(content.cases), np.array(present, dtype=np.intp), values, missing)


def _describe_unknown(files: list[SiteFile]) -> list[str]:
    unknown = list(dict.fromkeys(key for file in files for key in file.content.unknown))
    return [f"ignored keys that are no metric of the rule: {format_names(unknown)}"] if unknown else []


def _describe_gaps(file: SiteFile, submissions: list[str], rule: Rule) -> list[str]:
    """One sentence per submission (and metric) that lacks entries; the cases are named."""
    content = file.content
    texts = []
    for column, name in enumerate(content.submissions):
        if name not in submissions:
            continue
        absent = ~content.stated[:, column, :]
        whole = np.asarray(absent.all(axis=1))
        who = f"site {format_name(file.name)}: submission {format_name(name)}"
        if whole.any():
            texts.append(f"{who} has no entry for case {_name_cases(content.cases, whole)}")
        for number, metric in enumerate(rule.metrics):
            partial = absent[:, number] & ~whole
            if partial.any():
                texts.append(f"{who} has no metric {metric.name} for case {_name_cases(content.cases, partial)}")
    return texts


def _name_cases(cases: list[str], chosen: Bools) -> str:
    return format_names([case for case, wanted in zip(cases, chosen, strict=True) if wanted])


def _describe_values(table: SiteTable, rule: Rule, submissions: list[str]) -> list[str]:
    """Remarks on values that are accepted as they are but look wrong."""
    texts = []
    where = f"site {format_name(table.name)}"
    names = [submissions[number] for number in table.present]
    for number, metric in enumerate(rule.metrics):
        texts += _describe_range(table, number, metric, names)
    for column, gone in enumerate(np.asarray(table.missing.all(axis=(0, 1)))):
        if gone:
            texts.append(f"{where}: every value of submission {format_name(names[column])} is missing")
    if len(names) > 1 and (table.values == table.values[:, :, :1]).all():
        texts.append(f"{where}: all submissions have identical values, so all tie")
    if len(table.cases) == 1:
        texts.append(f"{where} has one case only: no bootstrap over its cases, and no test can be significant")
    return texts


def _describe_range(table: SiteTable, number: int, metric: Metric, names: list[str]) -> list[str]:
    values = np.where(table.missing[number], metric.missing, table.values[number])
    infinite = np.isinf(values)
    outside = np.zeros(values.shape, dtype=bool)
    if metric.low is not None:
        outside |= values < metric.low
    if metric.high is not None:
        outside |= values > metric.high
    outside &= ~table.missing[number]
    texts = []
    for what, found in (("infinite", infinite), ("outside its range", outside & ~infinite)):
        if found.any():
            case, column = (int(index[0]) for index in np.nonzero(found))
            texts.append(
                f"site {format_name(table.name)}: metric {metric.name}: {int(found.sum())} values are {what}, first "
                f"{values[case, column]:g} of submission {format_name(names[column])} in case "
                f"{format_name(table.cases[case])}; used as they are"
            )
    return texts
