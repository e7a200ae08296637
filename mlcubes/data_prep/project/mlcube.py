"""Entry point of the data_prep cube: ``mlcube.py TASK --option=value``.

Reads only its arguments: no working directory, no home, no environment but DATA_PREP_DEBUG.
"""

import argparse
import contextlib
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from data_prep_cube.checks import run_sanity_check
from data_prep_cube.errors import CubeError, FindingsError, InputError, OutputError
from data_prep_cube.findings import DATASET, print_findings
from data_prep_cube.parameters import load_parameters
from data_prep_cube.prepare import PrepareFolders, run_prepare
from data_prep_cube.site_statistics import run_statistics

EXIT_UNEXPECTED = 70


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message, f"{self.prog} --help lists what is known")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the three tasks; option names are those of mlcube.yaml."""
    parser = _Parser(prog="mlcube.py", description=__doc__, allow_abbrev=False)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK", parser_class=_Parser)
    helps = {
        "prepare": "raw subjects to prepared cases",
        "sanity_check": "check prepared cases; prints all findings, exit code 1 if there are any",
        "statistics": "write counts and volumes that may leave the site",
    }
    for task, text in helps.items():
        command = tasks.add_parser(task, help=text, description=text, allow_abbrev=False)
        command.add_argument("--data_path", type=Path, help="folder with a folder for each subject")
        command.add_argument("--labels_path", type=Path, help="folder with the references")
        command.add_argument("--parameters_file", type=Path, default=None, help="optional YAML file")
        if task == "prepare":
            command.add_argument("--output_path", type=Path, help="folder for the images")
            command.add_argument("--output_labels_path", type=Path, help="folder for the references")
            command.add_argument("--metadata_path", type=Path, default=None, help="folder that stays at the site")
        if task == "statistics":
            command.add_argument("--output_path", type=Path, default=Path("statistics.yaml"), help="file to write")
    return parser


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; a misspelt option is named before the one that is missing because of it.

    Raises
    ------
    InputError
        If an option is unknown or a required one is missing or empty.
    """
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    step = f"mlcube.py {arguments.task} --help lists what is known"
    if unknown:
        raise InputError(f"unknown argument {unknown[0].split('=')[0][:60]!r}", step)
    required = ["data_path", "labels_path"]
    required += ["output_path", "output_labels_path"] if arguments.task == "prepare" else []
    missing = [f"--{name}" for name in required if getattr(arguments, name) is None]
    if missing:
        raise InputError(f"{arguments.task} needs {', '.join(missing)}", step)
    return arguments


def use_owner_of(output_path: Path) -> None:
    """Give up root for the owner of an output folder: plain mlcube starts containers as root, others name a user.

    Only as process 1, that is in a container, and only if the folder belongs to somebody else.
    """
    folder = output_path if output_path.is_dir() else output_path.parent
    if os.getpid() != 1 or os.getuid() != 0 or not folder.exists() or folder.stat().st_uid == 0:
        return
    owner = folder.stat()
    with contextlib.suppress(PermissionError):  # all capabilities dropped: go on as started
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def run_task(arguments: argparse.Namespace) -> None:
    """Run the task that was asked for and print its one-line result."""
    parameters = load_parameters(arguments.parameters_file)
    if arguments.task == "prepare":
        folders = PrepareFolders(
            arguments.data_path,
            arguments.labels_path,
            arguments.output_path,
            arguments.output_labels_path,
            arguments.metadata_path,
        )
        result = run_prepare(folders, parameters)
        print(f"prepare: {len(result.written)} cases written, {len(result.kept)} kept (complete from an earlier run)")
    elif arguments.task == "sanity_check":
        count, findings = run_sanity_check(arguments.data_path, arguments.labels_path, parameters)
        if findings:
            print_findings(findings)
            bad = len({finding.case for finding in findings} - {DATASET})
            raise FindingsError(
                f"{len(findings)} findings, {bad} of {count} cases affected",
                "correct the raw data and run prepare again",
            )
        print(f"sanity_check: {count} cases, no findings")
    else:
        run_statistics(arguments.data_path, arguments.labels_path, arguments.output_path, parameters)
        print("statistics: written")


def main(argv: list[str]) -> int:
    """Run one task; returns the exit code.

    An unexpected fault is reported by its place only: Python's own message may hold a path or a patient's id.
    """
    task = argv[0] if argv and not argv[0].startswith("-") else "data_prep"
    try:
        arguments = parse_arguments(argv)
        if getattr(arguments, "output_path", None):
            use_owner_of(arguments.output_path)
        run_task(arguments)
    except CubeError as error:
        print(f"{task}: error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        print(f"{task}: error: a folder cannot be used: {reason}; next: check its permissions", file=sys.stderr)
        return OutputError.exit_code
    except Exception as error:
        if os.environ.get("DATA_PREP_DEBUG"):
            traceback.print_exc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        print(
            f"{task}: unexpected fault: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}; "
            "next: run again with DATA_PREP_DEBUG=1 to see the details (they may name patients' files)",
            file=sys.stderr,
        )
        return EXIT_UNEXPECTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
