"""The commands ``fedeval`` and ``medperf``; the only place that exits."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from fedeval import doctor
from fedeval.batch import RunRequest, load_list, run_submissions
from fedeval.errors import FedevalError, InterruptedRunError, UsageError
from fedeval.inference import InferenceMode
from fedeval.log import LOGGER, close_run_log
from fedeval.options import merge_options
from fedeval.pipeline import TestOutcome, TestRequest, run_test
from fedeval.summary import (
    batch_error,
    batch_text,
    error_text,
    outcome_text,
    print_batch,
    print_error,
    print_outcome,
)
from fedeval.view import RunView

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Platform = Annotated[str | None, typer.Option("--platform", help="docker, singularity or process.")]
Storage = Annotated[str | None, typer.Option("--storage", help="Default ~/.medperf, or MEDPERF_STORAGE.")]
LogLevel = Annotated[str | None, typer.Option("--log", "--loglevel", help="Log file: debug, info, warning, error.")]
Cleanup = Annotated[bool | None, typer.Option("--cleanup/--no-cleanup", help="Remove scratch folders at the end.")]
Json = Annotated[bool | None, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
ToySize = Annotated[str | None, typer.Option("--toy-size", help="Size of the toy cases: full or ci.")]
Foreign = Annotated[bool | None, typer.Option("--allow-foreign-code", help="Process engine: run cubes from elsewhere.")]
PerCase = Annotated[bool, typer.Option("--per-case", help="One container a case, each with its own time limit.")]
OnFailure = Annotated[str, typer.Option("--on-failure", help="After a crash: stop, or continue with what remains.")]
AsSingularity = Annotated[
    bool | None,
    typer.Option("--as-singularity", help="Run docker images as they behave after conversion to singularity."),
]
Tmp = Annotated[str | None, typer.Option("--tmp", help="Size of /tmp with --as-singularity: 64m, or 16m (stricter).")]
RequireGpu = Annotated[bool | None, typer.Option("--require-gpu", help="Refuse to run where no GPU is present.")]
Resume = Annotated[bool | None, typer.Option("--resume/--no-resume", help="Take what an interrupted run finished.")]


@app.callback()
def global_options(
    context: typer.Context, platform: Platform = None, storage: Storage = None, log: LogLevel = None,
    cleanup: Cleanup = None, json: Json = None,
) -> None:  # fmt: skip
    """Evaluate medical-imaging models where the data is. Options before the command hold for it too."""
    context.obj = {"platform": platform, "storage": storage, "log_level": log, "cleanup": cleanup, "json": json}


@app.command("test")
def test_command(
    context: typer.Context,
    verb: Annotated[str | None, typer.Argument(hidden=True)] = None,
    benchmark: Annotated[str | None, typer.Option("-b", "--benchmark", help="Number, or a benchmark file.")] = None,
    model: Annotated[Path | None, typer.Option("-m", "--model", help="Model cube; default: reference model.")] = None,
    data_prep: Annotated[Path | None, typer.Option("-p", "--data_preparation", help="Other data_prep cube.")] = None,
    evaluator: Annotated[Path | None, typer.Option("-e", "--evaluator", help="Other metrics cube.")] = None,
    dataset: Annotated[Path | None, typer.Option("-d", "--dataset", help="Prepared data/ and labels/.")] = None,
    build: Annotated[bool, typer.Option("--build/--no-build", help="Build images whose Dockerfile is there.")] = True,
    platform: Platform = None, storage: Storage = None, log: LogLevel = None, cleanup: Cleanup = None,
    json: Json = None, toy_size: ToySize = None, foreign: Foreign = None,
    per_case: PerCase = False, on_failure: OnFailure = "stop",
    resume: Resume = None, require_gpu: RequireGpu = None, as_singularity: AsSingularity = None, tmp: Tmp = None,
) -> None:  # fmt: skip
    """Run data_prep, a model and metrics on the benchmark's toy cases; `medperf test run` is the same."""
    if verb not in (None, "run"):
        raise UsageError(f"unknown command 'test {verb}'", "expected 'test' or 'test run'", "medperf test --help")
    if benchmark is None:
        raise UsageError("which benchmark?", "no -b", "e.g. medperf test -b 1 -m mlcubes/model/mlcube")
    own = {"platform": platform, "storage": storage, "log_level": log, "cleanup": cleanup, "json": json,
           "toy_size": toy_size, "allow_foreign": foreign, "resume": resume,
           "as_singularity": as_singularity, "tmp": tmp, "require_gpu": require_gpu}  # fmt: skip
    options = merge_options({**context.obj, **{key: value for key, value in own.items() if value is not None}})
    request = TestRequest(benchmark, model, data_prep, evaluator, dataset, build, _mode(per_case, on_failure))
    _report(run_test(request, options, RunView(quiet=options.json)), options.json)


@app.command("run")
def run_list_command(
    context: typer.Context,
    benchmark: Annotated[str | None, typer.Option("-b", "--benchmark", help="Number, or a benchmark file.")] = None,
    model: Annotated[list[Path] | None, typer.Option("-m", "--model", help="Model cube; may be repeated.")] = None,
    submissions: Annotated[Path | None, typer.Option("--submissions", help="List file: one model cube a line.")] = None,
    dataset: Annotated[Path | None, typer.Option("-d", "--dataset", help="Prepared data/ and labels/.")] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=64, help="Submissions at once; slot n gets GPU n.")] = 1,
    retries: Annotated[int, typer.Option("--retries", min=0, max=20, help="Tries more after platform faults.")] = 2,
    retry_wait: Annotated[float, typer.Option("--retry-wait", min=0, help="Seconds before a retry.")] = 5.0,
    build: Annotated[
        bool | None, typer.Option("--build/--no-build", help="Build images; default: only cubes of this checkout.")
    ] = None,
    platform: Platform = None, storage: Storage = None, log: LogLevel = None, cleanup: Cleanup = None,
    json: Json = None, toy_size: ToySize = None, foreign: Foreign = None,
    per_case: PerCase = False, on_failure: OnFailure = "continue",
    resume: Resume = None, require_gpu: RequireGpu = None,
) -> None:  # fmt: skip
    """Run a list of submissions on one prepared dataset, unattended; complete results are never repeated."""
    if benchmark is None:
        raise UsageError("which benchmark?", "no -b", "e.g. medperf run -b 1 -d DATASET --submissions list.txt")
    own = {"platform": platform, "storage": storage, "log_level": log, "cleanup": cleanup, "json": json,
           "toy_size": toy_size, "allow_foreign": foreign, "resume": resume, "require_gpu": require_gpu}  # fmt: skip
    options = merge_options({**context.obj, **{key: value for key, value in own.items() if value is not None}})
    listed = (*(model or ()), *(load_list(submissions) if submissions else ()))
    request = RunRequest(benchmark, listed, dataset, slots, retries, retry_wait, build, _mode(per_case, on_failure))
    outcomes = run_submissions(request, options, RunView(quiet=options.json, live=slots == 1))
    print(batch_text(outcomes)) if options.json else print_batch(outcomes)
    if error := batch_error(outcomes):
        raise _ReportedError(error)


doctor.register(app)


def _mode(per_case: bool, on_failure: str) -> InferenceMode:
    if on_failure not in ("stop", "continue"):
        raise UsageError("--on-failure has an unknown value", f"{on_failure!r}; expected stop or continue")
    return InferenceMode(per_case, on_failure == "continue")


def _report(outcome: TestOutcome, as_json: bool) -> None:
    if as_json:
        print(outcome_text(outcome))
    else:
        print_outcome(outcome)
    if outcome.error is not None:
        raise _ReportedError(outcome.error)


class _ReportedError(Exception):
    """A run that has results and ends with an error: the results were printed, the error follows."""

    def __init__(self, error: FedevalError) -> None:
        super().__init__(str(error))
        self.error = error


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: containers go first."""
    raise KeyboardInterrupt


def main() -> NoReturn:
    """Run a command; every error leaves as one clear message and its own exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    as_json = "--json" in sys.argv[1:]
    try:
        code = _run_app()
    except _ReportedError as reported:
        print_error(reported.error)
        code = reported.error.exit_code
    except FedevalError as err:
        code = _fail(err, as_json)
    except KeyboardInterrupt:
        code = _fail(InterruptedRunError("stopped", "", "containers are gone; the same command starts again"), as_json)
    except BrokenPipeError:
        code = 141
    except Exception as err:
        LOGGER.exception("fault of the program")
        if "--log=debug" in sys.argv:
            traceback.print_exc()
        code = _fail(FedevalError("a fault of this program, not of yours", f"{type(err).__name__}", _REPORT), as_json)
    close_run_log()
    sys.stdout.flush()
    sys.exit(code)


_REPORT = "run again with --log=debug before the command, and report it with what is printed and the log file"


def _fail(err: FedevalError, as_json: bool) -> int:
    LOGGER.error("%s", err)
    if as_json:
        print(error_text(err))
    print_error(err)
    return err.exit_code


def _run_app() -> int:
    """Run typer without its own exits."""
    command: Any = typer.main.get_command(app)
    try:
        result = command.main(args=sys.argv[1:], prog_name=Path(sys.argv[0]).name, standalone_mode=False)
    except typer.Abort as err:
        raise KeyboardInterrupt from err
    except Exception as err:
        if hasattr(err, "format_message") and hasattr(err, "exit_code"):  # click's own usage errors
            raise UsageError(str(err.format_message()), "", f"{Path(sys.argv[0]).name} --help") from err
        raise
    if result == 130:  # typer's own answer to Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
