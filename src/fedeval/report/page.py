"""``report.html``: one self-contained page about a run, for a person. Machines read results.yaml and run.json.

The page holds no script and asks for nothing from outside. All text in it is treated as hostile: escaped, control
characters made visible, over-long text cut. Equal inputs give equal bytes.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from fedeval.log import show_safe
from fedeval.report.outlines import DataText
from fedeval.report.pictures import CasePicture, draw_case
from fedeval.report.table import (
    CaseRow,
    Column,
    as_listing,
    as_mapping,
    as_number,
    compute_plot,
    compute_table,
    group_tiles,
    plotted_groups,
)

MAX_PICTURES = 12  # four lowest, four in the middle, four highest, when there are more cases
LOG_LINES = 200
TEXT_LIMIT = 2000

REGION_NAMES = {"WT": "Whole tumour", "TC": "Tumour core", "ET": "Enhancing tumour"}
BADGES = {"ok": "Complete", "partial": "Partial", "failed": "Failed"}
# What to do about each state a case can end in (docs/limits.md has the long form).
ADVICE = {
    "missing": "the model wrote no file for the case. Write <case>.nii.gz to output_path for each folder of data_path.",
    "invalid": "a file is there but cannot be scored; the reason stands beside the case. Keep the grid and the header "
    "of the input, and store only labels that the benchmark knows.",
    "timeout": "the time limit ended the case. Compare the wall times below with the limit; load the model once, "
    "not once a case.",
    "crashed": "the model ended with an error at this case. Its last lines are in the log at the end of this page.",
    "out_of_memory": "the case needed more memory than the benchmark gives. Child processes and /tmp count too.",
    "out_of_gpu_memory": "the case needed more GPU memory than the benchmark gives. Use smaller patches or batches.",
    "not scored": "the run ended before the case was scored.",
}


def write_report(
    path: Path,
    record: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    *,
    data_dir: Path,
    labels_dir: Path,
    predictions_dir: Path,
    regions: Mapping[str, Sequence[int]],
    metrics: Sequence[Mapping[str, Any]],
    log_excerpt: Sequence[str] = (),
) -> None:
    """Write the page for one run, whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write; replaced if it is there.
    record : mapping
        The run record, schema ``fedeval.run/1``. Parts that are missing are left out of the page.
    results : mapping
        results.yaml: case to ``<metric>_<region>`` values, ``missing_pred``, ``status``, ``reason``. May be empty.
    data_dir, labels_dir, predictions_dir : Path
        Where the pictures are drawn from. A missing file becomes a note on the page.
    regions : mapping
        Region name to its labels.
    metrics : sequence of mapping
        ``key``, ``label``, ``direction`` ("higher" or "lower" is better), ``unit`` (None for a share). The first two
        get tiles and plots.
    log_excerpt : sequence of str
        Last lines of the log.

    Raises
    ------
    OSError
        The page cannot be written. Nothing is left behind.
    """
    rows, columns = compute_table(record, results, regions, metrics)
    pictures = _draw_pictures(rows, columns, (data_dir, labels_dir, predictions_dir), regions)
    context = {
        **_describe_run(record, rows),
        "rows": rows,
        "columns": columns,
        "metrics": metrics,
        "regions": [(name, REGION_NAMES.get(name, name), at) for at, name in enumerate(regions)],
        "tiles": group_tiles(columns),
        "plots": [compute_plot(group, rows, columns) for group in plotted_groups(columns)],
        "pictures": pictures,
        "log": [_show(str(line).rstrip("\r\n")) for line in list(log_excerpt)[-LOG_LINES:]],
    }
    _replace_file(path, _load_template().render(context).encode("utf-8", "backslashreplace"))


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(seconds=format_seconds, memory=format_memory, flat=flatten)
    return environment.from_string(resources.files("fedeval.report").joinpath("page.html").read_text(encoding="utf-8"))


def _finalize(value: object) -> object:
    """Every value on its way into the page; escaping follows."""
    if value is None:
        return "–"
    if isinstance(value, jinja2.Undefined):  # a part of the record that is not there
        return ""
    return _show(value) if isinstance(value, str) and not isinstance(value, DataText) else value


def _show(text: str) -> str:
    return show_safe(text[: TEXT_LIMIT + 1], TEXT_LIMIT)


def _replace_file(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


# ---- pictures ----------------------------------------------------------------------------------------------------


def choose_pictured(rows: Sequence[CaseRow], columns: Sequence[Column]) -> list[tuple[str, CaseRow]]:
    """Which cases get a picture, each with the heading of its group.

    All of them up to `MAX_PICTURES`, by name; else the worst, the middle and the best among those with a usable
    prediction, by the mean of the first metric over its regions.
    """
    if len(rows) <= MAX_PICTURES:
        return [("", row) for row in rows]
    first = plotted_groups(columns)[0] if columns else []
    sign = -1.0 if columns and columns[0].direction == "lower" else 1.0

    def score(row: CaseRow) -> tuple[float, str]:
        known = [value for at in first if (value := row.values[at]) is not None]
        return (sign * float(np.mean(known)) if known else -math.inf, row.case)

    ranked = sorted((row for row in rows if not row.penalised), key=score) or list(rows)
    third = MAX_PICTURES // 3
    if len(ranked) <= MAX_PICTURES:
        return [("", row) for row in ranked[:MAX_PICTURES]]
    middle = (len(ranked) - third) // 2
    parts = {"lowest": ranked[:third], "middle": ranked[middle : middle + third], "highest": ranked[-third:]}
    return [(name, row) for name, part in parts.items() for row in part]


def _draw_pictures(
    rows: Sequence[CaseRow],
    columns: Sequence[Column],
    folders: tuple[Path, Path, Path],
    regions: Mapping[str, Sequence[int]],
) -> list[dict[str, Any]]:
    pictures = []
    for group, row in choose_pictured(rows, columns):
        drawn = draw_case(row.case, *folders, regions)
        picture, note = (drawn, None) if isinstance(drawn, CasePicture) else (None, drawn)
        pictures.append({"group": group, "row": row, "picture": picture, "note": note})
    return pictures


# ---- words -------------------------------------------------------------------------------------------------------


def _describe_run(record: Mapping[str, Any], rows: Sequence[CaseRow]) -> dict[str, Any]:
    """The parts of the page that come from the record, each with every key that the template reads."""
    outcome = as_mapping(record.get("outcome"))
    status = str(outcome.get("status") or "failed")
    usable = sum(not row.penalised for row in rows)
    states = Counter(row.status for row in rows if row.penalised)
    parts = ("benchmark", "engine", "dataset", "timing", "host", "cubes")
    return {
        "run": {name: as_mapping(record.get(name)) for name in parts},
        "created": str(record.get("created") or ""),
        "version": str(record.get("fedeval_version") or ""),
        "status": status if status in BADGES else "failed",
        "badge": BADGES.get(status, status),
        "headline": _headline(status, usable, len(rows)),
        "error": _error_lines(as_mapping(outcome.get("error"))),
        "limit_reached": _limit_sentence(as_mapping(outcome.get("limit"))),
        "advice": [(state, count, ADVICE.get(state, "")) for state, count in sorted(states.items())],
        "tasks": as_listing(record.get("tasks")),
        "longest_s": max([as_number(task.get("wall_s")) or 0.0 for task in as_listing(record.get("tasks"))] + [1e-9]),
        "meters": _meters(record, rows),
        "limit_table": _limit_table(as_mapping(record.get("limits"))),
        "usable": usable,
        "scored": any(value is not None for row in rows for value in row.values),
    }


def _headline(status: str, usable: int, cases: int) -> str:
    if not usable:
        return "The run failed and no case is scored." if status == "failed" else "No case has a usable prediction."
    if status == "failed":
        return f"The run failed; {usable} of {cases} cases were scored before."
    if usable == cases:
        return "The case is scored." if cases == 1 else f"All {cases} cases are scored."
    have = "has" if usable == 1 else "have"
    return f"{usable} of {cases} cases {have} a usable prediction."


def _error_lines(error: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error with its message split into what failed, what was found, and what to do next."""
    if not error:
        return None
    parts: dict[str, list[str]] = {"what": [], "found": [], "next": []}
    at = "what"
    for line in str(error.get("message") or "").splitlines():
        text = line.strip()
        for name in ("found", "next"):
            if text.startswith(f"{name}:"):
                at, text = name, text.removeprefix(f"{name}:").strip()
        parts[at].append(text)
    if error.get("next") and not parts["next"]:
        parts["next"].append(str(error["next"]))
    return {"code": error.get("code"), "name": str(error.get("name") or "error"), **parts}


def _limit_sentence(limit: Mapping[str, Any]) -> str:
    """Which limit ended the model, with the measured value, the limit's value and the case."""
    if not limit:
        return ""
    values = [as_number(limit.get(name)) or 0.0 for name in ("measured", "limit")]
    measured, allowed = (f"{value:.6g} {limit.get('unit')}" for value in values)
    where = f", at case {limit['case']}" if limit.get("case") else ""
    return f"{str(limit.get('name')).replace('_', ' ')}, {measured} measured, {allowed} allowed{where}."


def _meters(record: Mapping[str, Any], rows: Sequence[CaseRow]) -> list[tuple[str, str, str, float]]:
    """How near the model came to its limits: label, value, limit, per cent."""
    limits = as_mapping(as_mapping(record.get("limits")).get("infer"))
    walls = [row.wall_s for row in rows if row.wall_s is not None]
    tasks = [task for task in as_listing(record.get("tasks")) if task.get("task") == "infer"]
    peaks = [peak for task in tasks if (peak := as_number(task.get("peak_memory_mb"))) is not None]
    found = (
        ("Slowest case", max(walls, default=None), as_number(limits.get("per_case_s")), format_seconds),
        ("Peak memory of the model", max(peaks, default=None), as_number(limits.get("memory_mb")), format_memory),
    )
    return [
        (label, show(value), show(limit), round(min(100.0, 100 * value / limit), 1))
        for label, value, limit, show in found
        if value is not None and limit
    ]


def _limit_table(limits: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Parts that have limits, and for each limit its name and its text for every part."""
    parts = {str(part): as_mapping(values) for part, values in limits.items()}
    names = dict.fromkeys(str(name) for values in parts.values() for name in values)
    return list(parts), [(name, [format_limit(values.get(name), name) for values in parts.values()]) for name in names]


def format_seconds(value: object) -> str:
    """Seconds as a person reads them: 0.42 s, 12.3 s, 3 min 05 s, 2 h 07 min."""
    number = as_number(value)
    if number is None:
        return "–"
    if number < 100:
        return f"{number:.2f} s" if number < 1 else f"{number:.1f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_memory(value: object) -> str:
    """MiB as MB or GB (powers of 1024)."""
    number = as_number(value)
    if number is None:
        return "–"
    return f"{number:.0f} MB" if number < 1000 else f"{number / 1024:.1f} GB".replace(".0 GB", " GB")


def format_limit(value: object, key: str) -> str:
    """A limit with the unit that its name ends in."""
    if key.endswith("_mb"):
        return format_memory(value)
    return format_seconds(value) if key.endswith("_s") else "–" if value is None else str(value)


def flatten(value: object, name: str = "") -> Iterable[tuple[str, object]]:
    """Nested mappings as (dotted name, value), lists joined by commas."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(str(item) for item in value)
    else:
        yield name, value
