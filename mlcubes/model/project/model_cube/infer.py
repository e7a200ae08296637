"""The task `infer`: every case of a folder, one after the other."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from model_cube.cases import load_case, load_case_ids, write_prediction
from model_cube.errors import CaseError, InputError
from model_cube.parameters import PARAMETERS_PATH, load_parameters
from model_cube.segmentation import WEIGHTS_PATH, Model, load_model


@dataclass(frozen=True)
class InferOptions:
    """Arguments of `infer`; the last two are None where the image's own files apply."""

    data_path: Path
    output_path: Path
    parameters_file: Path | None
    checkpoint_path: Path | None


def check_optional_path(name: str, value: str) -> Path | None:
    """Turn an optional argument into a path, or None if it was not given.

    Not given are: the empty string, `null`, and a path that ends in `null` and does not exist. The last is what mlcube
    makes of the default "null": it mounts the folder of that file and passes `/mlcube_io1/null`.

    Raises
    ------
    InputError
        If another path does not exist.
    """
    path = Path(value)
    if not value or (path.name == "null" and not path.exists()):
        return None
    if not path.exists():
        raise InputError(
            f"infer: {name} does not exist: {path}; expected an existing path, or nothing to use the file inside the "
            "image; next: correct the path or leave the option out"
        )
    return path


def run_infer(options: InferOptions) -> list[str]:
    """Segment every case in sorted order; a prediction is complete as soon as it has its final name.

    One line per case goes to stdout, faults to stderr. A case that cannot be read does not end the run.

    Returns
    -------
    list of str
        Cases without prediction, empty if all went well.

    Raises
    ------
    InputError
        If an argument is wrong or the output folder cannot be written.
    """
    case_ids = load_case_ids(options.data_path)
    parameters = load_parameters(options.parameters_file or PARAMETERS_PATH)
    model = load_model(options.checkpoint_path or WEIGHTS_PATH, parameters)
    try:
        options.output_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"infer: output_path cannot be made ({error.strerror}): {options.output_path}") from error
    failed = []
    for number, case_id in enumerate(case_ids, start=1):
        start = time.perf_counter()
        position = f"{number}/{len(case_ids)} {case_id}"
        try:
            _run_case(model, options, case_id)
        except CaseError as error:
            failed.append(case_id)
            print(f"{position}: failed: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{position}: done in {time.perf_counter() - start:.2f} s", flush=True)
    return failed


def _run_case(model: Model, options: InferOptions, case_id: str) -> None:
    """Load, segment, write. A disk that is full or read-only is a fault of the run, not of the case."""
    case = load_case(options.data_path, case_id)
    labels = model.segment(case.images, case.spacing_mm)
    try:
        write_prediction(options.output_path, case, labels)
    except OSError as error:
        raise InputError(
            f"infer: prediction of {case_id} cannot be written ({error.strerror}): {options.output_path}; "
            "next: check that the folder is writable for this user and the disk is not full"
        ) from error
