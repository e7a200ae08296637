"""Site files in: one YAML (or CSV) file per site, in one folder.

Layout of a YAML file: case -> submission -> metric -> number. Of a CSV file: the columns ``case``, ``submission``
(or ``algorithm``) and one per metric. The name of a site is the name of its file without the extension.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ranking.errors import InputError, format_found, format_name, format_names
from ranking.plain_yaml import Node, PlainYamlError, Scalar, load_plain_yaml
from ranking.regular_yaml import SiteValues, read_regular_yaml
from ranking.rules import Rule, read_number

_EXTENSIONS = {"yaml": (".yaml", ".yml"), "csv": (".csv",)}
_SUBMISSION_COLUMNS = ("submission", "algorithm")


@dataclass(frozen=True)
class SiteFile:
    """One site's values as they stand in its file."""

    name: str
    file: str
    content: SiteValues


def load_site_files(data_dir: Path, rule: Rule) -> list[SiteFile]:
    """Read every site file of a folder, in alphabetical order.

    Raises
    ------
    InputError
        No folder, no site file in it, two files with one site name, or a file that cannot be used; the message names
        it.
    """
    sites: dict[str, SiteFile] = {}
    for path in find_site_files(data_dir, rule):
        name = path.name[: -len(path.suffix)]
        if name in sites:
            raise InputError(
                f"{format_name(path.name)} and {format_name(sites[name].file)} both name site {format_name(name)}; "
                "expected one file per site: remove or rename one of them"
            )
        _check_name(name, f"file {format_name(path.name)}", "site")
        sites[name] = load_site_file(path, name, rule)
    return list(sites.values())


def find_site_files(data_dir: Path, rule: Rule) -> list[Path]:
    """List the site files of a folder, not recursive, sorted by name; hidden files are no site files."""
    extensions = _EXTENSIONS[rule.files]
    wanted = " or ".join(f"*{extension}" for extension in extensions)
    if not data_dir.is_dir():
        raise InputError(f"cannot read {data_dir}: found no folder there, expected one with a {wanted} file per site")
    try:
        entries = sorted(data_dir.iterdir(), key=lambda path: (path.stem, path.name))
    except OSError as error:
        raise InputError(f"cannot read folder {data_dir}: {error.strerror}; check its permissions") from error
    paths = [path for path in entries if path.suffix in extensions and not path.name.startswith(".")]
    if not paths:
        inner = [path.name for path in entries if path.is_dir() and any(path.glob(f"*{extensions[0]}"))]
        hint = f"; its subfolder {format_name(inner[0])} has some: give that folder" if inner else ""
        raise InputError(
            f"no site files in {data_dir}: found {len(entries)} entries, expected at least one {wanted} file{hint}"
        )
    return paths


def load_site_file(path: Path, name: str, rule: Rule) -> SiteFile:
    """Read one site file; regular YAML by the quick way, anything else strictly."""
    metrics = tuple(metric.name for metric in rule.metrics)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(
            f"cannot read site file {format_name(path.name)}: {error.strerror}; "
            "expected a readable file: check it and run again"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"cannot read site file {format_name(path.name)}: byte {error.start} is not UTF-8; save it as UTF-8"
        ) from error
    text = text.replace("\r\n", "\n")
    if rule.files == "csv":
        content = _read_csv(text, metrics, path.name, name)
    else:
        content = read_regular_yaml(text, metrics) or _read_yaml(text, metrics, path.name, name)
    for kind, names in (("case", content.cases), ("submission", content.submissions)):
        for entry in names:
            _check_name(entry, f"site file {format_name(path.name)}", kind)
    return SiteFile(name, path.name, content)


def _check_name(name: str, where: str, kind: str) -> None:
    if not name or not name.isprintable():
        raise InputError(f"{where}: {kind} name {format_found(name)} is empty or has control characters; rename it")


def _read_yaml(text: str, metrics: tuple[str, ...], file: str, site: str) -> SiteValues:
    try:
        node = load_plain_yaml(text)
    except PlainYamlError as error:
        raise InputError(
            f"cannot read site file {format_name(file)} (site {format_name(site)}): {error}; "
            "expected case -> submission -> metric -> number: correct the file"
        ) from error
    if not isinstance(node, dict) or not node:
        raise InputError(
            f"site file {format_name(file)}: found no cases, expected case -> submission -> metric -> number"
        )
    cells = _Cells(metrics, file, site)
    for case, submissions in node.items():
        cells.add_case(case)
        for submission, entries in _as_mapping(submissions, f"{cells.where}, case {format_name(case)}").items():
            where = f"{cells.where}, case {format_name(case)}, submission {format_name(submission)}"
            cells.add_block(case, submission, _as_mapping(entries, where))
    return cells.collect()


def _as_mapping(node: Node, where: str) -> dict[str, Node]:
    if isinstance(node, dict):
        return node
    if isinstance(node, Scalar) and node.plain and math.isnan(read_number(node.text) or 0.0):
        return {}
    found = "a list" if isinstance(node, list) else f"text {format_found(node.text)}"
    raise InputError(f"{where}: found {found}, expected a mapping (case -> submission -> metric -> number)")


class _Cells:
    """Values of one file, collected entry by entry, then put into arrays."""

    def __init__(self, metrics: tuple[str, ...], file: str, site: str) -> None:
        self.metrics = metrics
        self.where = f"site file {format_name(file)}, site {format_name(site)}"
        self.cases: dict[str, int] = {}
        self.submissions: dict[str, int] = {}
        self.unknown: dict[str, None] = {}
        self.entries: list[tuple[int, int, int, float]] = []

    def add_case(self, case: str) -> None:
        self.cases.setdefault(case, len(self.cases))

    def add_block(self, case: str, submission: str, entries: dict[str, Node]) -> None:
        row, column = self.cases[case], self.submissions.setdefault(submission, len(self.submissions))
        for key, node in entries.items():
            if key in self.metrics:
                number = self._read_cell(node, case, submission, key)
                self.entries.append((row, column, self.metrics.index(key), number))
            else:
                if not isinstance(node, Scalar) and not any(metric in entries for metric in self.metrics):
                    raise InputError(
                        f"{self.where}, case {format_name(case)}, submission {format_name(submission)}: found a nested "
                        f"layout ({format_name(key)} holds a mapping or list), expected the numbers "
                        f"{', '.join(self.metrics)} directly below the submission: flatten the file"
                    )
                self.unknown[key] = None

    def _read_cell(self, node: Node, case: str, submission: str, metric: str) -> float:
        number = read_number(node.text) if isinstance(node, Scalar) and node.plain else None
        if number is None:
            found = f"text {format_found(node.text)} in line {node.line}" if isinstance(node, Scalar) else "no scalar"
            raise InputError(
                f"{self.where}, case {format_name(case)}, submission {format_name(submission)}, metric {metric}: "
                f"found {found}, expected a decimal number, null or .nan: correct the value"
            )
        return number

    def collect(self) -> SiteValues:
        if not self.submissions:
            raise InputError(f"{self.where}: found no submission in {len(self.cases)} cases, expected at least one")
        if not self.entries:
            raise InputError(
                f"{self.where}: found none of the metrics {', '.join(self.metrics)}"
                + (f", only {format_names(list(self.unknown), 6)}" if self.unknown else "")
                + "; expected case -> submission -> metric -> number: check the layout and the ranking rule"
            )
        values = np.full((len(self.cases), len(self.submissions), len(self.metrics)), np.nan)
        stated = np.zeros(values.shape, dtype=bool)
        for row, column, metric, number in self.entries:
            values[row, column, metric] = number
            stated[row, column, metric] = True
        return SiteValues(list(self.cases), list(self.submissions), values, stated, list(self.unknown))


def _read_csv(text: str, metrics: tuple[str, ...], file: str, site: str) -> SiteValues:
    where = f"site file {format_name(file)}"
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as error:
        raise InputError(f"cannot read {where}: {error}; expected a comma-separated table") from error
    header = [name.strip() for name in rows[0]] if rows else []
    submission_column = next((name for name in _SUBMISSION_COLUMNS if name in header), None)
    if "case" not in header or submission_column is None or len(set(header)) != len(header):
        raise InputError(
            f"{where}: found the columns {format_names(header)}, "
            "expected case, submission and one per metric, each once"
        )
    cells = _Cells(metrics, file, site)
    seen: set[tuple[str, str]] = set()
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise InputError(f"{where}, row {line}: found {len(row)} columns, expected {len(header)}")
        record = dict(zip(header, row, strict=True))
        case, submission = record.pop("case"), record.pop(submission_column)
        if (case, submission) in seen:
            raise InputError(
                f"{where}, row {line}: duplicate case {format_name(case)}, submission {format_name(submission)}"
            )
        seen.add((case, submission))
        cells.add_case(case)
        cells.add_block(case, submission, {key: Scalar(value.strip(), True, line) for key, value in record.items()})
    return cells.collect()
