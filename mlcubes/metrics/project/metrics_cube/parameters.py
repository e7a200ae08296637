"""The parameters of `evaluate`: what may stand in parameters.yaml, checked once, frozen."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics_cube.errors import SetupError
from metrics_cube.labels import MAX_REGIONS, Bits, compute_byte_table

FETS_METRICS = ("Dice", "Hausdorff95", "Sensitivity", "Specificity", "Precision", "TP", "FP", "TN", "FN")
"""The set of FeTS 2022, task 2, and the default."""

EXTRA_METRICS = (
    "Hausdorff95Directed", "Hausdorff95Surfel", "NSD", "RelativeVolumeDifference", "LesionDice", "LesionHausdorff95",
)  # fmt: skip

FETS_REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


@dataclass(frozen=True)
class Parameters:
    """How to find, read and score the masks.

    Attributes
    ----------
    regions : mapping of str to tuple of int
        Region name to its labels; at most 8 regions.
    metrics : tuple of str
        Names out of `FETS_METRICS` and `EXTRA_METRICS`; a result key is ``<metric>_<region>``.
    nsd_tolerances_mm : tuple of float
        One ``NSD<tolerance>mm_<region>`` for each.
    reference_suffix, prediction_suffix : str
        What stands between the case id and ``.nii.gz`` in the file names.
    geometry_tolerance_mm : float
        How far a corner of the prediction's grid may lie from the reference's.
    max_voxels : int
        Largest image read.
    workers : int
        Cases scored at a time; 0 for one on every core given to the process.
    native_kernel : bool
        Whether to use the native kernel where it is built; the values do not depend on it.
    """

    regions: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: dict(FETS_REGIONS))
    metrics: tuple[str, ...] = FETS_METRICS
    nsd_tolerances_mm: tuple[float, ...] = (1.0,)
    reference_suffix: str = "_final_seg"
    prediction_suffix: str = ""
    geometry_tolerance_mm: float = 0.01
    max_voxels: int = 1 << 28
    workers: int = 0
    native_kernel: bool = True

    @functools.cached_property
    def byte_table(self) -> Bits:
        """Region bits of each of the 256 values of a byte."""
        return compute_byte_table(self.regions)


def load_parameters(path: Path | None) -> Parameters:
    """Read parameters.yaml; without a file the parameters are FeTS 2022's.

    Parameters
    ----------
    path : Path, optional
        mlcube passes a file called ``null`` where the participant named none: the same as no file.

    Raises
    ------
    SetupError
        If the file is missing or no YAML mapping, or a key or value is not allowed.
    """
    if path is None or path.name in ("null", "None", ""):
        return Parameters()
    import yaml  # only here: the defaults need no parser

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"parameters_file cannot be read ({error.strerror}); next: name an existing file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SetupError("parameters_file is no valid YAML; next: compare it with the one in this cube") from error
    return check_parameters({} if content is None else content)


def check_parameters(content: Any) -> Parameters:
    """Turn the content of parameters.yaml into `Parameters`.

    Raises
    ------
    SetupError
        Naming the key, what was found and what is expected.
    """
    if not isinstance(content, dict):
        raise SetupError(f"parameters_file holds a {type(content).__name__}, expected a mapping of parameters")
    known = set(Parameters.__dataclass_fields__)
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise SetupError(f"unknown parameter {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    checks: dict[str, Callable[[Any], Any]] = {
        "regions": _check_regions,
        "metrics": _check_metrics,
        "nsd_tolerances_mm": lambda v: tuple(float(_check_number("nsd_tolerances_mm", t, 0)) for t in _as_list(v)),
        "reference_suffix": _check_suffix,
        "prediction_suffix": _check_suffix,
        "geometry_tolerance_mm": lambda v: float(_check_number("geometry_tolerance_mm", v, 0)),
        "max_voxels": lambda v: _check_whole_number("max_voxels", v, 1),
        "workers": lambda v: _check_whole_number("workers", v, 0),
        "native_kernel": _check_switch,
    }
    return Parameters(**{key: checks[key](value) for key, value in content.items()})


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_number(name: str, value: Any, least: float) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise SetupError(f"{name}: found {value!r}, expected a number of at least {least}")
    return value


def _check_whole_number(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SetupError(f"{name}: found {value!r}, expected a whole number of at least {least}")
    return value


def _check_switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise SetupError(f"native_kernel: found {value!r}, expected true or false")
    return value


def _check_suffix(value: Any) -> str:
    if not isinstance(value, str) or "/" in value or "\0" in value:
        raise SetupError(f"file suffix: found {value!r}, expected text without a slash")
    return value


def _check_regions(value: Any) -> dict[str, tuple[int, ...]]:
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_REGIONS:
        raise SetupError(f"regions: expected a mapping of 1 to {MAX_REGIONS} names to lists of labels")
    regions = {}
    for name, labels in value.items():
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
            raise SetupError(f"regions: found the name {name!r}, expected letters, digits and underscores")
        whole = [label for label in _as_list(labels) if isinstance(label, int) and not isinstance(label, bool)]
        if not whole or len(whole) != len(_as_list(labels)) or 0 in whole:
            raise SetupError(f"regions: {name} needs at least one label, whole numbers other than 0 (the background)")
        regions[name] = tuple(whole)
    return regions


def _check_metrics(value: Any) -> tuple[str, ...]:
    names = _as_list(value)
    unknown = [str(name) for name in names if name not in FETS_METRICS + EXTRA_METRICS]
    if unknown or not names or len(set(names)) != len(names):
        known = ", ".join(FETS_METRICS + EXTRA_METRICS)
        raise SetupError(f"metrics: {', '.join(unknown) or 'none or a name twice'}; expected each once out of {known}")
    return tuple(names)
