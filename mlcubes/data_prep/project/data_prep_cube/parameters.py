"""``parameters.yaml`` as a frozen, checked value."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from data_prep_cube.errors import InputError

MAX_PARAMETERS_BYTES = 1 << 20


@dataclass(frozen=True)
class Parameters:
    """Parameters of all three tasks; ``mlcubes/data_prep/README.md`` describes each key."""

    max_val_size: int | None = None
    seed: int = 0
    validation_subjects: tuple[str, ...] | None = None
    val_split_file: str | None = None
    val_split_file_required: bool = True
    anonymize_subjects: bool = False
    expected_shape: tuple[int, int, int] | None = (240, 240, 155)
    expected_spacing_mm: tuple[float, float, float] | None = (1.0, 1.0, 1.0)
    geometry_tolerance: float = 1e-3
    allowed_labels: tuple[int, ...] = (0, 1, 2, 4)
    allow_empty_reference: bool = False
    small_count_threshold: int = 10
    volume_rounding_mm3: float = 100.0


def _integer(value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError
    return tuple(_text(item) for item in value)


def _triple(value: Any, read: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError
    return read(value[0]), read(value[1]), read(value[2])


def _labels(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or len(set(map(str, value))) != len(value):
        raise ValueError
    return tuple(sorted(_integer(item, 0) for item in value))


# key -> (what a good value is, reader that raises ValueError, whether null is allowed)
_READERS: dict[str, tuple[str, Callable[[Any], Any], bool]] = {
    "max_val_size": ("a whole number of at least 1, or null", lambda value: _integer(value, 1), True),
    "seed": ("a whole number of at least 0", lambda value: _integer(value, 0), False),
    "validation_subjects": ("a list of subject ids (in quotes), or null", _ids, True),
    "val_split_file": ("a path relative to data_path, or null", _text, True),
    "val_split_file_required": ("true or false", _flag, False),
    "anonymize_subjects": ("true or false", _flag, False),
    "expected_shape": (
        "three whole numbers of at least 1, or null",
        lambda value: _triple(value, lambda item: _integer(item, 1)),
        True,
    ),
    "expected_spacing_mm": ("three positive numbers, or null", lambda value: _triple(value, _positive), True),
    "geometry_tolerance": ("a positive number", _positive, False),
    "allowed_labels": ("a list of different whole numbers of at least 0", _labels, False),
    "allow_empty_reference": ("true or false", _flag, False),
    "small_count_threshold": ("a whole number of at least 0", lambda value: _integer(value, 0), False),
    "volume_rounding_mm3": ("a positive number", _positive, False),
}


def load_parameters(path: Path | None) -> Parameters:
    """Read a parameters file.

    Parameters
    ----------
    path
        File to read. None, or a file named ``null`` (what mlcube passes for an optional file that is not given),
        stands for the defaults, as does an empty file.

    Raises
    ------
    InputError
        If the file is missing, is not a YAML mapping, or holds an unknown key or a value of the wrong kind.
    """
    if path is None or path.name == "null":
        return Parameters()
    if not path.is_file():
        raise InputError("parameters_file is no file", "correct its path, or leave the option out for the defaults")
    return parse_parameters(_load_mapping(path))


def _load_mapping(path: Path) -> dict[Any, Any]:
    edit = "correct parameters_file; the cube's own workspace/parameters.yaml is an example"
    try:
        if path.stat().st_size > MAX_PARAMETERS_BYTES:
            raise InputError("parameters_file is larger than 1 MiB", edit)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"parameters_file is not valid YAML{line}: {error.problem}", edit) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("parameters_file is not valid YAML text in UTF-8", edit) from error
    except OSError as error:
        raise InputError("parameters_file cannot be read", "make it readable for this user") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"parameters_file holds a {type(content).__name__}, expected keys with values", edit)
    return content


def parse_parameters(content: dict[Any, Any]) -> Parameters:
    """Check keys and values of a parsed parameters file and fill in the defaults."""
    known = [field.name for field in fields(Parameters)]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in _READERS:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(
                f"unknown key {str(key)[:60]!r} in parameters_file", f"{hint}known keys: {', '.join(known)}"
            )
        expected, read, nullable = _READERS[key]
        try:
            values[key] = None if value is None and nullable else read(value)
        except ValueError as error:
            raise InputError(f"parameters_file: {key} must be {expected}", f"correct {key}") from error
    if values.get("validation_subjects") and values.get("val_split_file"):
        raise InputError("parameters_file gives validation_subjects and val_split_file", "give only one of the two")
    return Parameters(**values)
