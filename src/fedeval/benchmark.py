"""Benchmark id or file -> cubes, toy data, limits, regions and metrics. A benchmark is data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval.errors import BenchmarkError
from fedeval.limits import Limits, load_limits
from fedeval.strict_yaml import load_mapping

CHECKOUT = Path(__file__).resolve().parents[2]
BENCHMARKS = CHECKOUT / "benchmarks"

_KEYS = {"id", "name", "title", "cubes", "toy_data", "prediction", "regions", "metrics", "limits"}


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
    if wanted.isdigit():
        found = sorted(BENCHMARKS.glob(f"{int(wanted)}-*.yaml"))
        if not found:
            known = ", ".join(path.name.removesuffix(".yaml") for path in sorted(BENCHMARKS.glob("*.yaml")))
            raise BenchmarkError(
                f"unknown benchmark {wanted}", f"known are {known or 'none'}", "choose one of these, or give a file"
            )
        return load_benchmark(found[0])
    path = Path(wanted)
    if not path.is_file():
        raise BenchmarkError(
            f"unknown benchmark {wanted!r}", "neither a number nor a file", "e.g. -b 1, or -b benchmarks/1-fets.yaml"
        )
    return load_benchmark(path)


def load_benchmark(path: Path) -> Benchmark:
    """Read and check a benchmark file; relative cube paths are relative to it.

    Raises
    ------
    BenchmarkError
        Broken YAML, a missing or unknown key, or a value of the wrong kind.
    """
    content = load_mapping(path, BenchmarkError, "the benchmark file")
    if unknown := sorted(set(content) - _KEYS):
        raise BenchmarkError(f"{path.name}: unknown keys", ", ".join(unknown), f"known are {', '.join(sorted(_KEYS))}")
    try:
        return _build(content, path)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        kind = "missing key" if isinstance(err, KeyError) else "wrong kind of value:"
        raise BenchmarkError(
            f"{path.name}: broken benchmark file", f"{kind} {err}", "compare with benchmarks/1-fets.yaml"
        ) from err


def _build(content: Mapping[str, Any], path: Path) -> Benchmark:
    toy, prediction, sections = content["toy_data"], content["prediction"], content["limits"]
    roles = ("data_prep", "reference_model", "metrics")
    return Benchmark(
        id=int(content["id"]),
        name=str(content["name"]),
        title=str(content["title"]),
        digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        cubes={role: (path.parent / content["cubes"][role]).resolve() for role in roles},
        toy_data=ToyData(int(toy["site"]), int(toy["cases"]), int(toy["seed"]), str(toy["size"]), dict(toy["sizes"])),
        prediction_file=str(prediction["file"]),
        reference_file=str(prediction["reference"]),
        labels=tuple(int(label) for label in prediction["labels"]),
        regions={str(name): tuple(map(int, labels)) for name, labels in content["regions"].items()},
        metrics=tuple(_metric(item, path) for item in content["metrics"]),
        limits={
            part: load_limits(sections.get(part, {}), Limits(), path.name) for part in ("data_prep", "infer", "metrics")
        },
    )


def _metric(item: Mapping[str, Any], path: Path) -> MetricSpec:
    spec = MetricSpec(
        str(item["key"]),
        str(item.get("label", item["key"])),
        str(item["direction"]),
        item.get("unit"),
        bool(item["ranked"]),
    )
    if spec.direction not in ("higher", "lower"):
        raise BenchmarkError(
            f"{path.name}: metric {spec.key}", f"direction {spec.direction!r}; expected higher or lower"
        )
    return spec
