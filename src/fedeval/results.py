"""The run record and everything a run leaves: results.yaml, run.json, report.html, all or nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from fedeval.benchmark import Benchmark
from fedeval.dataset import Dataset
from fedeval.engine.base import Engine, ImageRecord
from fedeval.errors import FedevalError
from fedeval.inference import Inference
from fedeval.report import write_report
from fedeval.scoring import Scores, summarise
from fedeval.store import Store, folder_name, storing, write_text
from fedeval.work import link_tree

SCHEMA_FILE = Path(__file__).with_name("run_record.schema.json")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Where a finished run lies."""

    folder: Path
    results: Path
    record: Path
    report: Path
    predictions: Path


def build_record(
    benchmark: Benchmark, engine: Engine, images: Mapping[str, ImageRecord], names: Mapping[str, str], dataset: Dataset,
    inference: Inference, scores: Scores, error: FedevalError | None, total_s: float, key: str,
) -> dict[str, Any]:  # fmt: skip
    """The run record, in the form of run_record.schema.json. Host facts carry no names, and nothing carries a path."""
    tasks = [*dataset.tasks, *(run.record for run in inference.runs), scores.run.record]
    scored = sum(case.status == "ok" for case in scores.cases)
    status = "ok" if error is None else "partial" if scored else "failed"
    return {
        "schema": "fedeval.run/1",
        "key": key,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fedeval_version": version("fedeval"),
        "benchmark": {key: getattr(benchmark, key) for key in ("id", "name", "title", "digest")},
        "engine": {"name": engine.name, "version": engine.version, "not_enforced": list(engine.not_enforced)},
        "cubes": {
            role: {"name": names[role], "image": image.reference, "digest": image.digest, "source": image.source}
            for role, image in images.items()
        },
        "dataset": {
            "name": dataset.name, "digest": dataset.digest, "cases": len(dataset.cases),
            "prepared_now": dataset.prepared_now, "statistics": dataset.statistics,
        },
        "limits": {part: limits.to_dict() for part, limits in benchmark.limits.items()},
        "outcome": {
            "status": status, "exit_code": error.exit_code if error else 0, "error": _error_record(error),
            "limit": _limit_record(inference),
        },
        "tasks": [task.to_dict() for task in tasks],
        "cases": [dataclasses.asdict(case) for case in scores.cases],
        "timing": _timing(inference, scores, total_s),
        "summary": summarise(scores.results, benchmark),
        "host": _host(),
    }  # fmt: skip


def _error_record(error: FedevalError | None) -> dict[str, Any] | None:
    """Code, name and first line: the full message may hold a path and lines of a log, which stay in the log."""
    if error is None:
        return None
    return {
        "code": error.exit_code,
        "name": type(error).__name__,
        "message": error.what,
        "next": error.next_step.split(" (")[0],
    }


def _limit_record(inference: Inference) -> dict[str, Any] | None:
    """The first limit that ended a container: name, measured value, the limit's value, and the case at work."""
    breaches = [run.outcome.ended_by for run in inference.runs if run.outcome.ended_by is not None]
    return {**dataclasses.asdict(breaches[0]), "case": inference.limit_case} if breaches else None


def _timing(inference: Inference, scores: Scores, total_s: float) -> dict[str, float | None]:
    outcomes = [run.outcome for run in inference.runs]
    return {
        "start_up_s": round(sum(outcome.start_up_s for outcome in outcomes), 3),
        "loading_s": inference.loading_s,
        "inference_s": round(sum(outcome.wall_s for outcome in outcomes), 3),
        "metrics_s": scores.run.outcome.wall_s,
        "total_s": round(total_s, 3),
    }


def _host() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "os": platform.system(), "python": platform.python_version(), "architecture": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)), "memory_gb": round(memory, 1),
    }  # fmt: skip


@cache
def record_schema() -> dict[str, Any]:
    """The JSON schema of run.json."""
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return schema


def check_record(record: Mapping[str, Any]) -> None:
    """Check a run record against its schema.

    Raises
    ------
    jsonschema.ValidationError
        It is not of the form that is promised to its readers.
    """
    jsonschema.validate(_plain(record), record_schema())


def _plain(value: Any) -> Any:
    """JSON has no NaN: null stands for an undefined number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def record_text(record: Mapping[str, Any]) -> str:
    """run.json as text; strict JSON."""
    return json.dumps(_plain(record), indent=1, allow_nan=False) + "\n"


def results_text(results: Mapping[str, Mapping[str, Any]]) -> str:
    """results.yaml as text: floats round-trip, cases sorted by id."""
    plain = {case: dict(results[case]) for case in sorted(results)}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1 << 20)


def result_place(benchmark: Benchmark, model: str, digest: str, dataset: Dataset) -> Path:
    """Where a run lies below ``results/`` and ``predictions/``: ``<benchmark>/<model>-<digest>/<dataset>``."""
    model_name = f"{folder_name(model)}-{digest.removeprefix('sha256:')[:8]}"
    return Path(folder_name(benchmark.name), model_name, folder_name(dataset.name))


def write_results(
    store: Store, benchmark: Benchmark, record: dict[str, Any], dataset: Dataset, inference: Inference, scores: Scores
) -> RunFiles:
    """Write the three files and give them their final place in one step.

    Raises
    ------
    StorageError, DiskFullError
        Nothing is left under the final name but what was there before.
    """
    check_record(record)
    model = record["cubes"]["model"]
    place = result_place(benchmark, model["name"], model["digest"], dataset)
    final, predictions = store.root / "results" / place, store.root / "predictions" / place
    with store.scratch("results") as scratch, storing("writing results", store.root):
        made = scratch / "run"
        made.mkdir()
        write_text(made / "results.yaml", results_text(scores.results))
        write_report(
            made / "report.html", record, scores.results, data_dir=dataset.data, labels_dir=dataset.labels,
            predictions_dir=inference.accepted, regions=benchmark.regions,
            metrics=[dataclasses.asdict(metric) for metric in benchmark.metrics],
            log_excerpt=inference.runs[-1].outcome.last_lines if inference.runs else (),
        )  # fmt: skip
        write_text(made / "run.json", record_text(record))
        # Results come last: where they are, all is there. The work folder keeps its own, should this be the end.
        link_tree(inference.accepted, scratch / "predictions")
        store.publish(scratch / "predictions", predictions)
        store.publish(made, final)
    return RunFiles(final, final / "results.yaml", final / "run.json", final / "report.html", predictions)
