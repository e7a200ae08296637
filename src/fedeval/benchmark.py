"""Benchmark id or file -> cubes, toy data, limits, regions and metrics. A benchmark is data."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval.errors import BenchmarkError
from fedeval.limits import Limits, load_limits
from fedeval.log import show_safe
from fedeval.strict_yaml import load_mapping

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHMARKS = CHECKOUT / "benchmarks"
TRUSTED = CHECKOUT / "mlcubes"
"""Cubes below it are this project's own; all others are strangers', also when they lie elsewhere in the checkout."""

_KEYS = {"id", "name", "title", "cubes", "toy_data", "prediction", "regions", "metrics", "limits", "ranking"}
# "ranking" is the rule that ranking/ reads; the runner leaves it alone.
_ROLES = ("data_prep", "reference_model", "metrics")
_PARTS = ("data_prep", "infer", "metrics")
_SECTIONS = {
    "cubes": set(_ROLES),
    "toy_data": {"generator", "site", "cases", "seed", "size", "sizes"},
    "prediction": {"file", "reference", "labels"},
    "limits": set(_PARTS),
}
_METRIC_KEYS = {"key", "label", "direction", "unit", "ranked"}

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]*\{case\}[A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ToyData:
    """What `toy_data` is asked for, and the data_prep parameters that belong to each size."""

    site: int
    cases: int
    seed: int
    size: str
    parameters: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class MetricSpec:
    """A metric of the results: ``<key>_<region>``, its direction (``higher`` or ``lower`` is better) and unit."""

    key: str
    label: str
    direction: str
    unit: str | None
    ranked: bool


@dataclass(frozen=True)
class Benchmark:
    """A checked benchmark file.

    Attributes
    ----------
    id, name, title : int, str, str
        Identity; `name` is used in folder names.
    digest : str
        ``sha256:...`` of the file.
    cubes : Mapping[str, Path]
        ``data_prep``, ``reference_model`` and ``metrics`` -> folder.
    toy_data : ToyData
        Cases for tests.
    prediction_file, reference_file : str
        File names with ``{case}``.
    labels : tuple of int
        Integers a prediction may hold.
    regions : Mapping[str, tuple[int, ...]]
        Region -> labels.
    metrics : tuple of MetricSpec
        In the order of tables.
    limits : Mapping[str, Limits]
        For ``data_prep``, ``infer`` and ``metrics``.
    """

    id: int
    name: str
    title: str
    digest: str
    cubes: Mapping[str, Path]
    toy_data: ToyData
    prediction_file: str
    reference_file: str
    labels: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]]
    metrics: tuple[MetricSpec, ...]
    limits: Mapping[str, Limits]


def resolve_benchmark(wanted: str) -> Benchmark:
    """The benchmark with a number (``1``) or at a path (``benchmarks/1-fets.yaml``).

    Raises
    ------
    BenchmarkError
        Unknown or broken.
    """
    if re.fullmatch(r"[0-9]+", wanted):
        found = sorted(BENCHMARKS.glob(f"{wanted.lstrip('0')}-*.yaml"))
        if not found:
            known = ", ".join(path.name.removesuffix(".yaml") for path in sorted(BENCHMARKS.glob("*.yaml")))
            raise BenchmarkError(
                f"unknown benchmark {show_safe(wanted, 40)}",
                f"known are {known or 'none'}",
                "choose one of these, or give a file",
            )
        return load_benchmark(found[0])
    if not os.path.isfile(wanted):  # noqa: PTH113  (Path.is_file raises for folders of others and long names)
        raise BenchmarkError(
            f"unknown benchmark {show_safe(wanted, 200)!r}", "neither a number nor a file that can be read",
            "e.g. -b 1, or -b benchmarks/1-fets.yaml",
        )  # fmt: skip
    return load_benchmark(Path(wanted))


def load_benchmark(path: Path) -> Benchmark:
    """Read and check a benchmark file; relative cube paths are relative to it.

    Raises
    ------
    BenchmarkError
        Broken YAML, a missing or unknown key, or a value of the wrong kind.
    """
    content = load_mapping(path, BenchmarkError, "the benchmark file")
    try:
        _check_keys(content, _KEYS, path.name)
        for section, known in _SECTIONS.items():
            _check_keys(content[section], known, f"{path.name}, section {section}")
        return _build(content, path)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        kind = "missing key" if isinstance(err, KeyError) else "wrong kind of value:"
        raise BenchmarkError(
            f"{path.name}: broken benchmark file", f"{kind} {show_safe(str(err), 200)}",
            "compare with benchmarks/1-fets.yaml",
        ) from err  # fmt: skip


def _check_keys(section: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in section.keys() - known):
        raise BenchmarkError(
            f"{where}: unknown keys", show_safe(", ".join(unknown), 200), f"known are {', '.join(sorted(known))}"
        )


def _matching(pattern: re.Pattern[str], value: Any, what: str, expected: str) -> str:
    """Text that becomes part of file names, keys and tables; anything else is a broken file."""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{what} {value!r}; expected {expected}")
    return value


def _build(content: Mapping[str, Any], path: Path) -> Benchmark:
    toy, prediction, sections = content["toy_data"], content["prediction"], content["limits"]
    file_name = "a file name that holds {case} once"
    return Benchmark(
        id=int(content["id"]),
        name=_matching(_NAME, content["name"], "name", "lower-case letters, digits and '-'"),
        title=show_safe(str(content["title"]), 200),
        digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        cubes={role: (path.parent / content["cubes"][role]).resolve() for role in _ROLES},
        toy_data=_toy_data(toy),
        prediction_file=_matching(_FILE_NAME, prediction["file"], "prediction.file", file_name),
        reference_file=_matching(_FILE_NAME, prediction["reference"], "prediction.reference", file_name),
        labels=tuple(int(label) for label in prediction["labels"]),
        regions={
            _matching(_IDENTIFIER, name, "region", "letters and digits"): tuple(map(int, labels))
            for name, labels in content["regions"].items()
        },
        metrics=tuple(_metric(item, path) for item in content["metrics"]),
        limits={part: load_limits(sections.get(part, {}), Limits(), path.name) for part in _PARTS},
    )


def _toy_data(toy: Mapping[str, Any]) -> ToyData:
    found = ToyData(int(toy["site"]), int(toy["cases"]), int(toy["seed"]), str(toy["size"]), dict(toy["sizes"]))
    if found.size not in found.parameters or found.cases < 1:
        raise ValueError(
            f"toy_data: {found.cases} cases, size {found.size!r}; expected one case or more, and one of the sizes "
            + ", ".join(map(str, found.parameters))
        )
    return found


def _metric(item: Mapping[str, Any], path: Path) -> MetricSpec:
    _check_keys(item, _METRIC_KEYS, f"{path.name}, a metric")
    spec = MetricSpec(
        _matching(_IDENTIFIER, item["key"], "metric", "letters and digits"),
        show_safe(str(item.get("label", item["key"])), 40),
        str(item["direction"]),
        item.get("unit"),
        bool(item["ranked"]),
    )
    if spec.direction not in ("higher", "lower"):
        raise BenchmarkError(
            f"{path.name}: metric {spec.key}", f"direction {spec.direction!r}; expected higher or lower"
        )
    return spec
