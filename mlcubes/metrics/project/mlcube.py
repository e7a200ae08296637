"""Entry point of the metrics cube: reads the arguments, calls the task, turns errors into one line and an exit code.

python mlcube.py evaluate --predictions=DIR --labels=DIR --output_path=results.yaml
    [--parameters_file=FILE] [--log_path=FILE]
"""

import argparse
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


def main() -> int:
    """Run one task and return the exit code."""
    arguments = vars(build_parser().parse_args())
    del arguments["task"]
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
