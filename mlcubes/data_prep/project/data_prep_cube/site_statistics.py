"""Task ``statistics``: the numbers about a prepared dataset that leave the site.

Single persons must not show in them. Every count below ``small_count_threshold`` reads ``< threshold``, zero
included; there is no total, from which a suppressed count could be worked out; volumes are means, standard
deviations and quartiles over all valid cases (no smallest and largest, which are single persons), rounded, and
suppressed altogether when the valid cases are fewer than the threshold.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from data_prep_cube.checks import check_cases, list_cases
from data_prep_cube.folders import write_text_whole
from data_prep_cube.layout import REGIONS
from data_prep_cube.parameters import Parameters
from data_prep_cube.volumes import Volume

SCHEMA = "fedeval/data_prep/statistics/1"
QUARTILES = {"p25": 25, "median": 50, "p75": 75}


def compute_region_volumes(reference: Volume) -> dict[str, float]:
    """Volume in mm3 of each region of one reference: voxels with the region's labels times the voxel's volume."""
    voxel_mm3 = float(np.prod(reference.grid.spacing_mm))
    return {
        region: float(np.count_nonzero(np.isin(reference.voxels, labels))) * voxel_mm3
        for region, labels in REGIONS.items()
    }


def suppress_count(count: int, threshold: int) -> int | str:
    """Return the count, or ``< threshold`` for a smaller one."""
    return count if count >= threshold else f"< {threshold}"


def compute_summary(volumes_mm3: npt.ArrayLike, rounding_mm3: float) -> dict[str, float | None]:
    """Mean, sample standard deviation and quartiles, shape (cases,) in mm3, each rounded to a multiple.

    The standard deviation of a single case is None.
    """
    values = np.asarray(volumes_mm3, dtype=np.float64)
    summary: dict[str, float | None] = {"mean": float(values.mean())}
    summary["sd"] = float(values.std(ddof=1)) if values.size > 1 else None
    summary |= {name: float(np.percentile(values, percent)) for name, percent in QUARTILES.items()}
    return {
        name: None if value is None else round(round(value / rounding_mm3) * rounding_mm3, 6)
        for name, value in summary.items()
    }


def compute_statistics(volumes: list[dict[str, float]], invalid: int, parameters: Parameters) -> dict[str, Any]:
    """Build the document from the region volumes of the valid cases and the number of invalid ones."""
    threshold = parameters.small_count_threshold
    suppressed = not volumes or len(volumes) < threshold
    regions: dict[str, dict[str, float | None]] = {}
    for region in REGIONS:
        if suppressed:
            regions[region] = dict.fromkeys(("mean", "sd", *QUARTILES))
        else:
            regions[region] = compute_summary([case[region] for case in volumes], parameters.volume_rounding_mm3)
    return {
        "schema": SCHEMA,
        "small_count_threshold": threshold,
        "volume_rounding_mm3": parameters.volume_rounding_mm3,
        "cases": {
            "valid": suppress_count(len(volumes), threshold),
            "invalid": suppress_count(invalid, threshold),
        },
        "volumes_suppressed": suppressed,
        "volumes_mm3": regions,
    }


def run_statistics(data_path: Path, labels_path: Path, output_path: Path, parameters: Parameters) -> dict[str, Any]:
    """Check every case, summarise the valid ones and write ``statistics.yaml`` whole. Returns what was written."""
    cases = list_cases(data_path, labels_path)
    volumes: list[dict[str, float]] = []
    for checked in check_cases("statistics", data_path, labels_path, cases, parameters):
        if not checked.findings and checked.reference is not None:
            volumes.append(compute_region_volumes(checked.reference))
    document = compute_statistics(volumes, len(cases) - len(volumes), parameters)
    write_text_whole("output_path", output_path, yaml.safe_dump(document, sort_keys=False))
    return document
