"""The numbers of a report: the table of cases, tiles and strip plots. Pure; the template only places them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PLOTTED = 2  # metrics that get tiles and plots; the table shows all
BOX_FROM = 5  # cases that a box needs to mean anything
UNDEFINED = "n/a"
LOG_TICKS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class Column:
    """One metric of one region: a key of results.yaml and how to show it.

    `stats` holds mean, median, min, max and n over all cases, penalties included; `usable_mean` leaves them out.
    """

    key: str
    region: str
    index: int
    label: str
    direction: str
    unit: str | None
    digits: int
    first: bool
    stats: Mapping[str, float | None]
    usable_mean: float | None

    def show(self, value: float | None) -> str:
        """The value with the digits of its column; what is not defined says so."""
        return UNDEFINED if value is None else f"{value:.{self.digits}f}"

    def share(self, value: float | None) -> float | None:
        """Per cent of the best value, for metrics that run from 0 to 1; else None."""
        bounded = self.unit is None and self.direction == "higher" and value is not None and 0 <= value <= 1
        return round(100 * value, 1) if bounded and value is not None else None


@dataclass(frozen=True)
class CaseRow:
    """One case: its state, wall time in seconds, and one value a column (None where not defined)."""

    case: str
    status: str
    reason: str
    wall_s: float | None
    values: tuple[float | None, ...]

    @property
    def penalised(self) -> bool:
        """True if the values are the penalty, or absent, and not a measurement."""
        return self.status != "ok"


def as_number(value: object) -> float | None:
    """A finite number, or None for anything else: NaN, infinity, text, nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_listing(value: object) -> list[Mapping[str, Any]]:
    """`value` as a list of mappings; empty if it is no list."""
    return [as_mapping(item) for item in value] if isinstance(value, list | tuple) else []


def compute_table(
    record: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    regions: Mapping[str, Sequence[int]],
    metrics: Sequence[Mapping[str, Any]],
) -> tuple[list[CaseRow], list[Column]]:
    """Rows (sorted by case) and columns (metric by metric, region by region) of the table.

    A case that only the record knows gets a row without values. A state of the record that is not ``ok`` goes before
    the one in the results: the runner knows a timeout where the metrics cube sees only a missing file.
    """
    scored = {str(case): as_mapping(values) for case, values in results.items()}
    runs = {str(item.get("case")): item for item in as_listing(record.get("cases"))}
    names = [(metric, region) for metric in metrics for region in regions]
    rows = []
    for case in sorted({*scored, *runs}):
        values, run = scored.get(case, {}), runs.get(case, {})
        status = _case_status(values, run)
        reason = ": ".join(str(part) for part in (run.get("reason") or values.get("reason"), run.get("detail")) if part)
        numbers = tuple(as_number(values.get(f"{metric['key']}_{region}")) for metric, region in names)
        rows.append(CaseRow(case, status, reason, as_number(run.get("wall_s")), numbers))
    summary = as_mapping(record.get("summary"))
    columns = []
    for at, (metric, region) in enumerate(names):
        key = f"{metric['key']}_{region}"
        known = [value for row in rows if (value := row.values[at]) is not None]
        usable = [value for row in rows if not row.penalised and (value := row.values[at]) is not None]
        digits = 2 if metric.get("unit") else 4 if usable and min(usable) >= 0.99 else 3
        stats = as_mapping(summary.get(key)) or compute_stats(known)
        shown = {name: as_number(stats.get(name)) for name in ("mean", "median", "min", "max", "n")}
        index = at % len(regions)
        text = (str(metric["label"]), str(metric["direction"]), metric.get("unit"))
        mean = as_number(compute_stats(usable).get("mean"))
        columns.append(Column(key, region, index, *text, digits, index == 0, shown, mean))
    return rows, columns


def _case_status(values: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    for status in (run.get("status"), values.get("status")):
        if status and status != "ok":
            return str(status)
    if values.get("missing_pred") is True:
        return "missing"
    return "ok" if values else "not scored"


def compute_stats(values: Sequence[float]) -> Mapping[str, object]:
    """Mean, median, min, max and count of defined values; empty without any."""
    if not values:
        return {}
    mean, median = float(np.mean(values)), float(np.median(values))
    return {"mean": mean, "median": median, "min": min(values), "max": max(values), "n": len(values)}


def plotted_groups(columns: Sequence[Column]) -> list[list[int]]:
    """Column numbers of the metrics that get tiles and plots, metric by metric."""
    starts = [at for at, column in enumerate(columns) if column.first]
    ends = [*starts[1:], len(columns)]
    return [list(range(start, end)) for start, end in list(zip(starts, ends, strict=True))[:PLOTTED]]


def group_tiles(columns: Sequence[Column]) -> list[list[Column]]:
    """One list a region: its columns of the plotted metrics."""
    return [[columns[at] for at in group] for group in zip(*plotted_groups(columns), strict=True)]


@dataclass(frozen=True)
class Scale:
    """Axis from 0 to `end`; `logarithmic` places x at log(1 + x), which keeps 0 on the axis."""

    end: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Position in per cent of the axis."""
        inside = min(max(value, 0.0), self.end)
        part = math.log1p(inside) / math.log1p(self.end) if self.logarithmic else inside / self.end
        return round(100 * part, 2)


def choose_scale(values: Sequence[float], bounded: bool) -> Scale:
    """0 to 1 for shares; else linear, or logarithmic if the largest value is more than 8 times the median."""
    if bounded:
        return Scale(1.0, False, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    top = max([*values, 1.0])
    if values and top > 8 * max(float(np.median(values)), 0.5):
        return Scale(top * 1.1, True, tuple(tick for tick in LOG_TICKS if tick <= top * 1.1))
    raw = top / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    ticks = tuple(step * count for count in range(math.ceil(top / step) + 1))
    return Scale(ticks[-1], False, ticks)


def compute_plot(group: Sequence[int], rows: Sequence[CaseRow], columns: Sequence[Column]) -> dict[str, Any]:
    """Strip plot of one metric: a row a region, a point a case, a box (quartiles) from `BOX_FROM` cases on.

    Positions are in per cent of the axis. Whiskers reach the outermost value within 1.5 interquartile ranges (Tukey).
    """
    known = {at: [(row, value) for row in rows if (value := row.values[at]) is not None] for at in group}
    everything = [value for pairs in known.values() for _, value in pairs]
    bounded = columns[group[0]].unit is None and all(0 <= value <= 1 for value in everything)
    scale = choose_scale(everything, bounded)
    lanes = []
    for at in group:
        pairs = sorted(known[at], key=lambda pair: (pair[1], pair[0].case))
        points = []
        for count, (row, value) in enumerate(pairs):
            # The golden ratio spreads neighbours evenly without chance.
            offset = round(((count * 0.6180339887 + 0.5) % 1 - 0.5) * 20, 1) if len(pairs) > 1 else 0.0
            points.append((scale.place(value), offset, row, columns[at].show(value)))
        box = _compute_box([value for _, value in pairs], scale)
        lanes.append({"column": columns[at], "points": points, "box": box, "lost": len(rows) - len(pairs)})
    ticks = [(scale.place(tick), f"{tick:g}") for tick in scale.ticks]
    return {"column": columns[group[0]], "lanes": lanes, "ticks": ticks, "logarithmic": scale.logarithmic}


def _compute_box(values: Sequence[float], scale: Scale) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
    reach = 1.5 * (high - low)
    inner = [value for value in values if low - reach <= value <= high + reach]
    marks = {"median": middle}
    if len(values) >= BOX_FROM:
        marks |= {"low": low, "high": high, "least": min(inner), "most": max(inner)}
    return {name: scale.place(value) for name, value in marks.items()}
