"""The ranking rule: which metrics, which direction, what a missing value becomes, which method.

A rule is data (YAML): ``ranking/fets.yaml`` is the default, a benchmark file brings its own under the key ``ranking``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ranking.errors import RuleError, format_found
from ranking.plain_yaml import Node, PlainYamlError, Scalar, load_plain_yaml

METHODS = ("rankThenMean", "rankThenMedian", "aggregateThenMean", "aggregateThenMedian", "testBased")
"""The five published methods, in the order in which every comparison lists them."""

_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_MISSING = frozenset(["", "~", "null", "Null", "NULL", ".nan", ".NaN", ".NAN", "nan", "NaN", "NAN"])
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_METRIC_KEYS = frozenset(["name", "better", "missing", "low", "high"])
_RULE_KEYS = frozenset(["name", "files", "method", "metrics"])


@dataclass(frozen=True)
class Metric:
    """One metric: its direction, the value of a missing one, and the range outside which a value is remarked on."""

    name: str
    better: Literal["higher", "lower"]
    missing: float
    low: float | None = None
    high: float | None = None

    @property
    def higher_is_better(self) -> bool:
        """True when a larger value is a better one."""
        return self.better == "higher"


@dataclass(frozen=True)
class Rule:
    """Metrics in the order of the sub-rankings, the default method, and the kind of site file."""

    name: str
    method: str
    files: Literal["yaml", "csv"]
    metrics: tuple[Metric, ...]


def read_number(text: str) -> float | None:
    """Turn the text of a value into a double.

    ``1e-05`` is a number here, although YAML 1.1 says text. ``010`` is not: YAML 1.1 reads 8 and YAML 1.2 reads 10.

    Returns
    -------
    float or None
        NaN for a missing value (empty, ``~``, ``null``, ``.nan``, ``NaN``); None when the text is no number.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    if text in _MISSING:
        return math.nan
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    return None


def load_rule(path: Path | None = None) -> Rule:
    """Read a rule, or the ``ranking`` part of a benchmark file.

    Parameters
    ----------
    path : Path, optional
        The file; without it the rule of FeTS 2022.

    Raises
    ------
    RuleError
        The file cannot be read, or the rule in it is not complete and consistent.
    """
    path = path or Path(__file__).resolve().parent / "fets.yaml"
    try:
        node = load_plain_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, PlainYamlError) as error:
        raise RuleError(f"cannot read the ranking rule {path.name}: {error}; give a readable YAML file") from error
    if isinstance(node, dict) and "ranking" in node:
        node = node["ranking"]
    return _read_rule(node, path.name)


def _read_rule(node: Node, file: str) -> Rule:
    if not isinstance(node, dict):
        raise RuleError(f"{file}: found no mapping, expected a ranking rule with the keys {sorted(_RULE_KEYS)}")
    _check_keys(node, _RULE_KEYS, f"{file}: the ranking rule")
    method = _read_text(node, "method", file, METHODS[0])
    if method not in METHODS:
        raise RuleError(f"{file}: method is {format_found(method)}, expected one of {', '.join(METHODS)}")
    files = _read_text(node, "files", file, "yaml")
    if files not in ("yaml", "csv"):
        raise RuleError(f"{file}: files is {format_found(files)}, expected yaml or csv")
    entries = node.get("metrics")
    if not isinstance(entries, list) or not entries:
        raise RuleError(f"{file}: found no list of metrics, expected at least one with name, better and missing")
    metrics = tuple(_read_metric(entry, index, file) for index, entry in enumerate(entries, 1))
    names = [metric.name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise RuleError(f"{file}: metric {format_found(name)} is listed {names.count(name)} times, expected once")
    return Rule(_read_text(node, "name", file, file), method, "csv" if files == "csv" else "yaml", metrics)


def _read_metric(node: Node, index: int, file: str) -> Metric:
    where = f"{file}: metric {index}"
    if not isinstance(node, dict):
        raise RuleError(f"{where}: found no mapping, expected name, better and missing")
    _check_keys(node, _METRIC_KEYS, where)
    name = _read_text(node, "name", where, "")
    if not name or not name.isprintable():
        raise RuleError(f"{where}: name is {format_found(name)}, expected printable text")
    better = _read_text(node, "better", where, "")
    if better not in ("higher", "lower"):
        raise RuleError(f"{where} ({name}): better is {format_found(better)}, expected higher or lower")
    missing = _read_bound(node, "missing", where)
    if missing is None:
        raise RuleError(f"{where} ({name}): missing is not given, expected the number that replaces a missing value")
    low, high = _read_bound(node, "low", where), _read_bound(node, "high", where)
    return Metric(name, "higher" if better == "higher" else "lower", missing, low, high)


def _check_keys(node: dict[str, Node], allowed: frozenset[str], where: str) -> None:
    unknown = sorted(set(node) - allowed)
    if unknown:
        known = ", ".join(sorted(allowed))
        raise RuleError(f"{where}: unknown key {format_found(unknown[0])}, expected some of {known}")


def _read_text(node: dict[str, Node], key: str, where: str, default: str) -> str:
    value = node.get(key, Scalar(default, True, 0))
    if not isinstance(value, Scalar):
        raise RuleError(f"{where}: {key} is a mapping or list, expected text")
    return value.text


def _read_bound(node: dict[str, Node], key: str, where: str) -> float | None:
    text = _read_text(node, key, where, "null")
    number = read_number(text)
    if number is None or math.isinf(number):
        raise RuleError(f"{where}: {key} is {format_found(text)}, expected a finite number")
    return None if math.isnan(number) else number
