"""`medperf run`: a list of submissions unattended; one bad one never stops the others, nothing complete is repeated."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fedeval import batch
from fedeval.batch import RunRequest, SubmissionOutcome, load_list, run_submissions
from fedeval.cli import main
from fedeval.engine.base import TaskCall, TaskOutcome
from fedeval.engine.process_engine import ProcessEngine
from fedeval.errors import EngineFaultError, FedevalError, InputError, ModelError, StorageError, UsageError
from fedeval.inference import InferenceMode
from fedeval.log import close_run_log
from fedeval.options import Options
from fedeval.store import Store
from fedeval.summary import batch_error
from fedeval.view import RunView
from tests.cube_factory import INFER, make_cube, medperf
from tests.runner_cases import (
    SLOW_MODEL,
    begun,
    complete_cases,
    leftovers,
    log_texts,
    processes_of,
    published,
    run_in_process,
    start,
    wait_until,
    write_benchmark,
)

GOOD = "print('BEGIN model', flush=True)\nfor case in CASES: write(case)"
CRASH = """
print("BEGIN model", flush=True)
for case in CASES:
    head = header(case)
    if case != "S01_001": sys.exit("no weights")
    write(case, head)
"""


def run(
    benchmark: Path, dataset: Path, storage: Path, *models: Path, slots: int = 1, retries: int = 2, resume: bool = True,
) -> tuple[SubmissionOutcome, ...]:  # fmt: skip
    """`medperf run` without a process of its own."""
    options = Options(storage, platform="process", allow_foreign=True, json=True, resume=resume)
    request = RunRequest(str(benchmark), models, dataset, slots, retries, 0.05)
    try:
        return run_submissions(request, options, RunView(quiet=True))
    finally:
        close_run_log()


def command(benchmark: Path, dataset: Path, storage: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("--platform=process", f"--storage={storage}", "run", "-b", benchmark, "-d", dataset,
            "--allow-foreign-code", *more)  # fmt: skip


def starts(storage: Path) -> int:
    """Containers of models so far."""
    return len(begun(log_texts(storage)))


def test_a_night_with_bad_submissions(dataset: Path, tmp_path: Path) -> None:
    """A list file; broken, missing, crashing, hanging and good ones; then the same command again."""
    for name, body in {"b-crash": CRASH, "d-good": GOOD, "e-hang": "time.sleep(99)", "f-good": GOOD + " # 2"}.items():
        make_cube(tmp_path / name, body)
    broken = make_cube(tmp_path / "a-broken")
    (broken / "mlcube.yaml").write_text("tasks: [")
    names = ["f-good", "a-broken", "b-crash", "c-missing", "d-good", "e-hang"]
    listed = tmp_path / "list.txt"
    listed.write_text("# forty strangers\n\n" + "".join(f"  {name}/mlcube\n" for name in names))
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 1})
    asked = command(benchmark, dataset, tmp_path / "s", "--submissions", listed)

    first = medperf(*asked, "--json")
    assert first.returncode == 61, first.stderr
    document = json.loads(first.stdout)
    runs = document["runs"]
    assert [Path(run["submission"]).parent.name for run in runs] == names
    assert [run["status"] for run in runs] == ["ok", "failed", "partial", "failed", "ok", "failed"]
    assert [run["error"] and run["error"]["code"] for run in runs] == [None, 11, 22, 2, None, 30]
    assert all(run["attempts"] == 1 for run in runs)
    cases = [[case["status"] for case in run["record"]["cases"]] for run in runs if run["record"]]
    assert cases == [["ok"] * 3, ["ok", "crashed", "crashed"], ["ok"] * 3, ["timeout"] * 3]
    assert starts(tmp_path / "s") == 5  # of these 3 are of the one that crashes: all, then each of the other two alone
    assert first.stderr.count("error:") == 1 and "4 of 6" in first.stderr
    assert leftovers(tmp_path / "s") == []

    second = medperf(*asked)
    assert second.returncode == 61, second.stderr
    assert starts(tmp_path / "s") == 5, "something complete was repeated"
    assert [second.stdout.count(f"{number} of 3") for number in (3, 1, 0)] == [2, 1, 1]
    assert "6 submissions" in second.stdout and second.stdout.count("failed") >= 3
    again = run(benchmark, dataset, tmp_path / "s", *(tmp_path / name / "mlcube" for name in names))
    assert [outcome.attempts for outcome in again] == [0, 1, 0, 1, 0, 0]
    assert [outcome.status for outcome in again] == [run["status"] for run in runs]
    assert [outcome.error and outcome.error.exit_code for outcome in again] == [None, 11, 22, 2, None, 30]
    assert isinstance(again[2].error, ModelError) and again[2].submission == str(tmp_path / "b-crash" / "mlcube")


def test_all_well_is_exit_code_0(dataset: Path, tmp_path: Path) -> None:
    models = [make_cube(tmp_path / name, f"{GOOD} # {name}") for name in ("a", "b")]
    done = medperf(
        *command(write_benchmark(tmp_path / "b1"), dataset, tmp_path / "s", "-m", models[0], "-m", models[1])
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3") == 2 and "error:" not in done.stderr


class FaultyEngine(ProcessEngine):
    """The process engine, which fails as a platform does whenever `fault` raises."""

    def __init__(self, fault: Callable[[TaskCall], None]) -> None:
        super().__init__(Path("/"), Path("/nonexistent"))
        self._fault = fault

    def run(self, call: TaskCall) -> TaskOutcome:
        self._fault(call)
        return super().run(call)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Exception]]]:
    """Name of a cube -> what its next tasks infer end with."""
    planned: dict[str, list[Exception]] = {}

    def fault(call: TaskCall) -> None:
        if call.invocation.task == "infer" and planned.get(call.manifest.name):
            raise planned[call.manifest.name].pop(0)

    monkeypatch.setattr(batch, "choose_engine", lambda options, view, gpu=None: FaultyEngine(fault))
    yield planned


def test_platform_faults_are_retried_and_others_go_on(
    dataset: Path, tmp_path: Path, faults: dict[str, list[Exception]]
) -> None:
    models = [make_cube(tmp_path / name, f"{GOOD} # {name}") for name in ("passes", "lasts", "good")]
    lost = EngineFaultError("the engine was restarted")
    faults |= {"passes": [lost, lost], "lasts": [lost] * 9}
    outcomes = run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", *models)
    assert [(outcome.status, outcome.attempts) for outcome in outcomes] == [("ok", 3), ("not_run", 3), ("ok", 1)]
    error = batch_error(outcomes)
    assert error is not None and error.exit_code == 62 and "lasts" in error.found
    assert outcomes[1].error is lost and outcomes[1].record is None
    faults.clear()
    again = run(write_benchmark(tmp_path / "b2"), dataset, tmp_path / "s2", *models)
    assert batch_error(again) is None


def test_faults_of_a_participant_are_never_retried(
    dataset: Path, tmp_path: Path, faults: dict[str, list[Exception]]
) -> None:
    model = make_cube(tmp_path / "m", "print('BEGIN model', flush=True)\nsys.exit(1)")
    (outcome,) = run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", model, retries=9)
    assert (outcome.status, outcome.attempts) == ("failed", 1)
    assert starts(tmp_path / "s") <= 6


def test_a_fault_of_this_program_costs_one_submission_its_result(
    dataset: Path, tmp_path: Path, faults: dict[str, list[Exception]]
) -> None:
    models = [make_cube(tmp_path / name, f"{GOOD} # {name}") for name in ("odd", "good")]
    faults["odd"] = [ZeroDivisionError("at 3 a.m.")]
    outcomes = run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", *models)
    assert [outcome.status for outcome in outcomes] == ["not_run", "ok"]
    error = outcomes[0].error
    assert type(error) is FedevalError and "fault of this program" in error.what
    (log,) = (tmp_path / "s" / "logs").glob("*_run-fets.log")
    assert "at 3 a.m." in log.read_text()


def test_a_failing_metrics_cube_is_no_fault_of_the_submission(dataset: Path, tmp_path: Path) -> None:
    benchmark = write_benchmark(tmp_path / "b", scores="sys.exit('metrics are broken')")
    (outcome,) = run(benchmark, dataset, tmp_path / "s", make_cube(tmp_path / "m"))
    assert (outcome.status, outcome.attempts) == ("not_run", 1) and not published(tmp_path / "s")
    assert outcome.error is not None and outcome.error.exit_code == 23
    error = batch_error([outcome])
    assert error is not None and error.exit_code == 62


def test_a_dataset_that_is_damaged_stops_before_any_submission(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "d")
    image = next((tmp_path / "d" / "data").rglob("*_t2.nii.gz"))
    image.write_bytes(image.read_bytes()[:-100])
    done = medperf(*command(write_benchmark(tmp_path / "b"), tmp_path / "d", tmp_path / "s", "-m", tmp_path / "m"))
    assert done.returncode == 14 and "not what was prepared" in done.stderr


OVERLAP = """
print("BEGIN model", time.time(), flush=True)
time.sleep(0.6)
for case in CASES: write(case)
print("END model", time.time(), flush=True)
"""


def spans(storage: Path) -> list[tuple[float, float]]:
    """Begin and end of each model's container."""
    return sorted((float(text.split()[2]), float(text.split()[5])) for text in log_texts(storage))


@pytest.mark.parametrize("slots", [1, 2])
def test_slots(dataset: Path, tmp_path: Path, slots: int) -> None:
    models = [make_cube(tmp_path / str(number) / "model", f"{OVERLAP}# {number}") for number in range(3)]
    outcomes = run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", *models, slots=slots)
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3
    assert [outcome.submission for outcome in outcomes] == [str(model) for model in models]
    times = spans(tmp_path / "s")
    assert len(times) == 3, "models of the same name share a log"
    overlaps = sum(one[1] > other[0] for one, other in pairwise(times))
    assert overlaps == 0 if slots == 1 else overlaps >= 1
    results = {path.read_bytes() for path in published(tmp_path / "s")}
    assert len(results) == 1 and len(published(tmp_path / "s")) == 3


def test_the_same_submission_twice_runs_once(dataset: Path, tmp_path: Path) -> None:
    """Also at the same time: the second waits, then takes what the first left."""
    model = make_cube(tmp_path / "m", GOOD)
    outcomes = run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", model, model, slots=2)
    assert sorted(outcome.attempts for outcome in outcomes) == [0, 1]
    assert starts(tmp_path / "s") == 1 and batch_error(outcomes) is None and leftovers(tmp_path / "s") == []


def test_no_resume_repeats(dataset: Path, tmp_path: Path) -> None:
    model, benchmark = make_cube(tmp_path / "m", GOOD), write_benchmark(tmp_path / "b")
    for resume, expected in ((True, 1), (True, 1), (False, 2)):
        run(benchmark, dataset, tmp_path / "s", model, resume=resume)
        assert starts(tmp_path / "s") == expected


def test_what_stopped_in_a_test_is_no_result_of_a_run(dataset: Path, tmp_path: Path) -> None:
    """`test` stops at a crash and penalises the rest; `run` must go on behind it."""
    model = make_cube(tmp_path / "m", CRASH.replace('!= "S01_001"', '== "Site 1-003"'))
    benchmark = write_benchmark(tmp_path / "b")
    tested = run_in_process(benchmark, model, dataset, tmp_path / "s")
    assert [case["status"] for case in tested.record["cases"]] == ["ok", "crashed", "crashed"]
    (outcome,) = run(benchmark, dataset, tmp_path / "s", model)
    assert outcome.record is not None
    assert [case["status"] for case in outcome.record["cases"]] == ["ok", "crashed", "ok"]


def test_parameters_of_the_cube_belong_to_its_results(dataset: Path, tmp_path: Path) -> None:
    """They are not in the image; changed ones must not be answered with the results of the old ones."""
    tasks = INFER.replace("{data_path: data/}", "{data_path: data/, parameters_file: parameters.yaml}")
    body = """
    label = int(open(arguments["parameters_file"]).read().split(":")[1])
    for case in CASES:
        x, y, z = shape(header(case))
        write(case, voxels=bytes([label]) * (x * y * z))
    """
    model, benchmark = make_cube(tmp_path / "m", body, tasks=tasks), write_benchmark(tmp_path / "b")
    found = []
    for label in (0, 4, 4):
        (model / "workspace" / "parameters.yaml").write_text(f"label: {label}\n")
        (outcome,) = run(benchmark, dataset, tmp_path / "s", model)
        assert outcome.record is not None
        found.append((outcome.attempts, outcome.record["summary"]["Sensitivity_ET"]["mean"]))
    assert found == [(1, 0.0), (1, 1.0), (0, 1.0)]


def test_ctrl_c_ends_all(dataset: Path, tmp_path: Path) -> None:
    """Two at work, one behind them in the list; what was finished is kept for the next time."""
    body = "print('BEGIN model', flush=True)\nwrite(CASES[0])\ntime.sleep(99)"
    models = [make_cube(tmp_path / "models" / str(number), f"{body} # {number}") for number in range(3)]
    named = [word for model in models for word in ("-m", model)]
    runner = start(*command(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s", "--slots=2", *named))
    wait_until(lambda: starts(tmp_path / "s") == 2 and complete_cases(tmp_path / "s"), 60, runner)
    runner.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, stderr = runner.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert runner.returncode == 130 and stderr.count("error:") == 1 and "error: stopped" in stderr, stderr
    assert not list(processes_of(tmp_path / "models"))
    assert (
        starts(tmp_path / "s") == 2 and not published(tmp_path / "s") and not list((tmp_path / "s" / "tmp").iterdir())
    )


def test_a_killed_run_continues_where_it_was(dataset: Path, tmp_path: Path) -> None:
    models = [make_cube(tmp_path / "models" / str(number), f"{SLOW_MODEL}# {number}") for number in range(2)]
    benchmark = write_benchmark(tmp_path / "b")
    named = [word for model in models for word in ("-m", model)]
    runner = start(*command(benchmark, dataset, tmp_path / "s", *named))
    wait_until(lambda: "".join(log_texts(tmp_path / "s")).count("END S01_001") == 2, 60, runner)
    runner.kill()
    runner.communicate()
    wait_until(lambda: not list(processes_of(tmp_path / "models")), 10)
    kept = complete_cases(tmp_path / "s")
    before = starts(tmp_path / "s")
    assert "S01_001" in kept
    outcomes = run(benchmark, dataset, tmp_path / "s", *models)
    assert [(outcome.status, outcome.attempts) for outcome in outcomes] == [("ok", 0), ("ok", 1)]
    assert not kept & set(begun(log_texts(tmp_path / "s"))[before:])
    assert leftovers(tmp_path / "s") == []
    results = {path.read_bytes() for path in published(tmp_path / "s")}
    assert len(results) == 1


def test_results_get_their_name_last(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end between the two renames of publishing: no results without their predictions, and nothing is done twice."""
    publish, calls = Store.publish, 0

    def publish_once(store: Store, complete: Path, final: Path, keep_existing: bool = False) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StorageError("the power went")
        publish(store, complete, final, keep_existing)

    monkeypatch.setattr(Store, "publish", publish_once)
    model, benchmark = make_cube(tmp_path / "m", GOOD), write_benchmark(tmp_path / "b")
    (outcome,) = run(benchmark, dataset, tmp_path / "s", model)
    assert outcome.status == "not_run" and not published(tmp_path / "s")
    monkeypatch.undo()
    (again,) = run(benchmark, dataset, tmp_path / "s", model)
    assert again.status == "ok" and starts(tmp_path / "s") == 1
    assert len(list((tmp_path / "s" / "predictions").rglob("*.nii.gz"))) == 3 and leftovers(tmp_path / "s") == []


def test_lists(tmp_path: Path) -> None:
    listed = tmp_path / "sub" / "list.txt"
    listed.parent.mkdir()
    listed.write_text("a b/mlcube\n# no\n\n /abs/olute \n../up\n")
    assert load_list(listed) == (
        tmp_path / "sub" / "a b" / "mlcube",
        Path("/abs/olute"),
        tmp_path / "sub" / ".." / "up",
    )
    for content in (b"", b"# nothing\n\n", b"\xff\xfe"):
        listed.write_bytes(content)
        with pytest.raises(InputError, match="list"):
            load_list(listed)
    with pytest.raises(InputError, match="cannot be read"):
        load_list(tmp_path)


def test_no_submissions(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no submissions"):
        run(write_benchmark(tmp_path / "b"), dataset, tmp_path / "s")


@pytest.mark.parametrize(
    ("words", "mode"),
    [([], InferenceMode(go_on=True)), (["--per-case", "--on-failure=stop"], InferenceMode(per_case=True))],
)
def test_run_goes_on_by_default(monkeypatch: pytest.MonkeyPatch, words: list[str], mode: InferenceMode) -> None:
    asked: list[RunRequest] = []

    def remember(request: RunRequest, options: Options, view: RunView) -> tuple[SubmissionOutcome, ...]:
        asked.append(request)
        return ()

    monkeypatch.setattr("fedeval.cli.run_submissions", remember)
    monkeypatch.setattr("sys.argv", ["medperf", "run", "-b", "1", "-m", "x", "--json", *words])
    threads = threading.active_count()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and asked[0].mode == mode and threading.active_count() == threads
