"""Entry point of the metrics cube: reads the arguments, calls the task, turns errors into one line and an exit code.

python mlcube.py evaluate --predictions=DIR --labels=DIR --output_path=results.yaml
    [--parameters_file=FILE] [--log_path=FILE]
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

# One case at a time needs no BLAS threads, and starting them costs more than scoring a case.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))


def build_parser() -> argparse.ArgumentParser:
    """The command line of the cube."""
    parser = argparse.ArgumentParser(
        prog="mlcube.py", description="Metrics cube: scores segmentations.", allow_abbrev=False
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    evaluate = tasks.add_parser("evaluate", help="score predictions against references", allow_abbrev=False)
    evaluate.add_argument("--predictions", type=Path, required=True, help="folder of <case>.nii.gz")
    evaluate.add_argument("--labels", type=Path, required=True, help="folder of <case>_final_seg.nii.gz")
    evaluate.add_argument("--output_path", type=Path, required=True, help="results.yaml to write")
    evaluate.add_argument("--parameters_file", type=Path, help="parameters.yaml; default: FeTS 2022's metrics")
    evaluate.add_argument("--log_path", type=Path, help="evaluate.log; default: logs/ beside the results")
    return parser


def use_owner_of(output_path: Path) -> None:
    """Give up root for whoever owns the place of the results.

    Plain mlcube names no user; mlcube.yaml then asks for root, because the image's own user may not write into the
    caller's folders. Every other runner names a user, and nothing happens.
    """
    if os.getpid() != 1 or os.geteuid() != 0:  # process 1: in a container
        return
    place = next(path for path in (output_path.absolute(), *output_path.absolute().parents) if path.exists())
    owner = place.stat()
    if owner.st_uid == 0:
        return
    # Without the right to change user (all capabilities dropped) the task goes on as it was started.
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main() -> int:
    """Run one task and return the exit code."""
    arguments = vars(build_parser().parse_args())
    del arguments["task"]
    use_owner_of(arguments["output_path"])
    from metrics_cube.errors import MetricsError
    from metrics_cube.evaluate import run_evaluate

    try:
        run_evaluate(**arguments)
    except MetricsError as error:
        print(f"metrics: evaluate failed: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("metrics: evaluate failed: out of memory; next: set workers to 1 or give more memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("metrics: interrupted, no results written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
