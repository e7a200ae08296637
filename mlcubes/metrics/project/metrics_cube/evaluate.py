"""The `evaluate` task: folders of masks in, results.yaml and evaluate.log out."""

import functools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from metrics_cube import __version__
from metrics_cube.cases import CaseFiles, find_cases
from metrics_cube.cores import count_cores, keep_freed_memory
from metrics_cube.errors import REASONS, BadReferenceError, InvalidMask
from metrics_cube.header import Header
from metrics_cube.mask_file import load_mask
from metrics_cube.native import Kernel, load_kernel
from metrics_cube.parameters import Parameters, load_parameters
from metrics_cube.results import Value, clear_output, format_results, format_text, write_log, write_results
from metrics_cube.scores import RegionImage, Row, compute_case, compute_penalty, compute_region_image

MAX_WARNINGS = 20

HEADING = f"""fedeval metrics {__version__}; one mapping per case.
Hausdorff95 is definition P (pooled, as MedPy and CaPTk) in mm; see docs/metrics.md."""


@dataclass(frozen=True)
class CaseResult:
    """Metrics of one case with its status: ``ok``, ``missing`` or ``invalid``, and why it is not ok."""

    case: str
    metrics: Row
    status: str
    reason: str | None

    def to_row(self) -> dict[str, Value]:
        """The case as it stands in results.yaml."""
        return {
            **self.metrics,
            "missing_pred": self.status == "missing",
            "status": self.status,
            "reason": self.reason,
        }


def run_evaluate(
    predictions: Path,
    labels: Path,
    output_path: Path,
    parameters_file: Path | None = None,
    log_path: Path | None = None,
) -> None:
    """Score every case of a folder.

    Parameters
    ----------
    predictions, labels, parameters_file : Path
        See `cases.find_cases` and `parameters.load_parameters`.
    output_path : Path
        results.yaml; nothing is left there unless every case has been dealt with.
    log_path : Path, optional
        Default ``logs/evaluate.log`` beside the results.

    Raises
    ------
    MetricsError
        One of its kinds; an unusable prediction is none, an unusable reference is.
    """
    clear_output(output_path)
    parameters = load_parameters(parameters_file)
    cases, not_scored = find_cases(predictions, labels, parameters)
    for entry in not_scored[:MAX_WARNINGS]:
        _warn(f"not scored: {entry}")
    if len(not_scored) > MAX_WARNINGS:
        _warn(f"not scored: {len(not_scored) - MAX_WARNINGS} more, listed in evaluate.log")
    results = list(_report(run_cases(cases, parameters), len(cases)))
    if all(result.status != "ok" for result in results):
        _warn(f"ALL {len(results)} CASES GET THE PENALTY SCORE ({_count_reasons(results)}); check the predictions")
    write_results(output_path, format_results({r.case: r.to_row() for r in results}, HEADING))
    write_log(log_path or output_path.parent / "logs" / "evaluate.log", _format_log(results, not_scored))


def run_cases(cases: Sequence[CaseFiles], parameters: Parameters) -> Iterator[CaseResult]:
    """Score the cases, several at a time, and yield the results in the order of the cases.

    Threads, not processes: decompression and kernel release the interpreter lock, and a process costs more to start
    than several cases to score.

    Raises
    ------
    BadReferenceError
        At the first reference that cannot be used; what has not begun by then is not begun.
    """
    keep_freed_memory()
    kernel = load_kernel() if parameters.native_kernel else None
    score = functools.partial(compute_case_result, parameters=parameters, kernel=kernel)
    workers = min(parameters.workers or count_cores(), len(cases))
    if workers == 1:
        yield from map(score, cases)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(score, cases)
    finally:
        pool.shutdown(cancel_futures=True)


def compute_case_result(files: CaseFiles, parameters: Parameters, kernel: Kernel | None = None) -> CaseResult:
    """Score one case; an unusable prediction gets the penalty row, an unusable reference is an error.

    Raises
    ------
    BadReferenceError
    """
    try:
        header, reference = _load_image(files.reference, parameters, kernel)
    except InvalidMask as error:
        raise BadReferenceError(
            f"the reference of case {format_text(files.case)} cannot be used: {error} ({REASONS[error.code]}); "
            "next: repair or remove it, then evaluate again"
        ) from error
    try:
        if len(files.predictions) != 1:
            raise InvalidMask("ambiguous" if files.predictions else "missing")
        _, prediction = _load_image(files.predictions[0], parameters, kernel, header)
    except InvalidMask as error:
        status = "missing" if error.code == "missing" else "invalid"
        return CaseResult(files.case, compute_penalty(parameters, header), status, str(error))
    return CaseResult(files.case, compute_case(reference, prediction, header, parameters, kernel), "ok", None)


def _load_image(
    path: Path, parameters: Parameters, kernel: Kernel | None, expected: Header | None = None
) -> tuple[Header, RegionImage]:
    """Read a mask and keep of it what the scores need; a prediction is what has an expected grid."""
    mask = load_mask(
        path,
        expected,
        tolerance_mm=parameters.geometry_tolerance_mm,
        max_voxels=parameters.max_voxels,
        follow_links=expected is None,
    )
    return mask.header, compute_region_image(mask, parameters, kernel)


def _report(results: Iterator[CaseResult], total: int) -> Iterator[CaseResult]:
    """Pass the results on and show how far they are: a running line on a terminal, else a line each tenth."""
    running = sys.stderr.isatty()
    for done, result in enumerate(results, start=1):
        yield result
        if running:
            print(f"\rscored {done}/{total} cases", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif done == total or done % max(1, total // 10) == 0:
            print(f"scored {done}/{total} cases", file=sys.stderr, flush=True)


def _format_log(results: list[CaseResult], not_scored: list[str]) -> list[str]:
    lines = []
    for r in results:
        dice = " ".join(f"{key}={value:.6f}" for key, value in r.metrics.items() if key.startswith("Dice_"))
        lines.append(f"{format_text(r.case)} {r.status}{f' ({r.reason})' if r.reason else ''} {dice}".rstrip())
    return lines + [f"not scored: {entry}" for entry in not_scored]


def _count_reasons(results: list[CaseResult]) -> str:
    codes = [str(r.reason).partition(":")[0] for r in results]
    return ", ".join(f"{codes.count(code)} x {code}" for code in sorted(set(codes)))


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
