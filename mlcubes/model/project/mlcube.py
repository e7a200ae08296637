"""Entry point of the model cube: arguments only, the logic is in `model_cube`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from model_cube.errors import InputError
from model_cube.infer import InferOptions, check_optional_path, run_infer


def load_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a mistake prints the usage and exits with status 2."""
    parser = argparse.ArgumentParser(prog="mlcube.py", allow_abbrev=False)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    infer = tasks.add_parser("infer", allow_abbrev=False, help="segment every case of a folder")
    infer.add_argument(
        "--data_path", required=True, type=Path, help="folder with <case>/<case>_brain_<modality>.nii.gz"
    )
    infer.add_argument("--output_path", required=True, type=Path, help="folder for <case>.nii.gz")
    infer.add_argument("--parameters_file", default="null", help="YAML file that replaces the one inside the image")
    infer.add_argument("--checkpoint_path", default="null", help="weights that replace those inside the image")
    return parser.parse_args(arguments)


def use_owner_of(output_path: Path) -> None:
    """Give up root for the user who owns the output folder, so that the caller can read and delete the predictions.

    Plain mlcube starts containers as root unless told otherwise; every other runner names a user, and then nothing
    happens here. Only as process 1, that is in a container, and only if the folder belongs to somebody else.
    """
    if os.getpid() != 1 or os.getuid() != 0 or not output_path.exists():
        return
    owner = output_path.stat()
    if owner.st_uid == 0:
        return
    # Without the right to change user (all capabilities dropped) the run goes on as it was started.
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one task; 0 all well, 1 some cases failed, 2 wrong arguments or inputs."""
    options = load_arguments(arguments)
    use_owner_of(options.output_path)
    try:
        failed = run_infer(
            InferOptions(
                options.data_path,
                options.output_path,
                check_optional_path("parameters_file", options.parameters_file),
                check_optional_path("checkpoint_path", options.checkpoint_path),
            )
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if failed:
        print(f"infer: {len(failed)} cases have no prediction: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    # As process 1 of a container Python would ignore SIGTERM, and a stop would have to wait for the kill.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
