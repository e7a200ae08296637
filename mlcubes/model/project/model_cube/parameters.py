"""Parameters of the inference: defaults inside the image, optionally replaced by a parameters_file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from model_cube.errors import InputError

PARAMETERS_PATH = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class Parameters:
    """What a parameters file may set.

    Attributes
    ----------
    largest_component : bool
        Keep only the largest connected piece of the whole tumour.
    min_volume_mm3 : float
        A whole tumour smaller than this is taken for noise: the prediction is empty.
    """

    largest_component: bool
    min_volume_mm3: float


def load_parameters(path: Path = PARAMETERS_PATH) -> Parameters:
    """Read a YAML file with exactly the fields of `Parameters`.

    Raises
    ------
    InputError
        If the file cannot be read, is not YAML, or a field is missing, unknown or of the wrong type.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"infer: parameters_file {path} is not readable as YAML: {error}") from error
    names = [field.name for field in dataclasses.fields(Parameters)]
    if not isinstance(values, dict) or sorted(map(str, values)) != sorted(names):
        found = sorted(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(f"infer: parameters_file {path}: expected the keys {sorted(names)}, found {found}")
    largest, volume = values["largest_component"], values["min_volume_mm3"]
    if not isinstance(largest, bool):
        raise InputError(f"infer: parameters_file {path}: largest_component: expected true or false, found {largest!r}")
    if isinstance(volume, bool) or not isinstance(volume, int | float) or not 0 <= volume < float("inf"):
        raise InputError(f"infer: parameters_file {path}: min_volume_mm3: expected a number >= 0, found {volume!r}")
    return Parameters(largest, float(volume))
