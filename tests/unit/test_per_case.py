"""One bad case costs only itself: containers a case, going on after a crash, whom a limit names, times apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedeval.batch import RunRequest
from fedeval.casewatch import CaseWatch
from fedeval.errors import ModelError, TimeLimitError
from fedeval.limits import Limits
from fedeval.pipeline import TestOutcome, TestRequest
from tests.cube_factory import make_cube
from tests.runner_cases import (
    WRITE_SCORES,
    begun,
    load_record,
    log_texts,
    multiply_cases,
    run_in_process,
    write_benchmark,
)

CASES = ["S01_001", "Site 1-003", "site1-002"]

BAD = """
BAD, READ_AHEAD = {bad}, {read_ahead}
if READ_AHEAD:
    for case in CASES: header(case)
for case in CASES:
    print("BEGIN", case, flush=True)
    head = header(case)
    if case in BAD:
        exec(BAD[case])
    write(case, head)
"""
CRASH = "sys.exit('broken')"
HANG = "time.sleep(100)"


def bad_model(folder: Path, bad: dict[str, str], read_ahead: bool = False) -> Path:
    """A model that does something else, by case, before it writes the prediction."""
    return make_cube(folder, BAD.format(bad=bad, read_ahead=read_ahead))


def states(outcome: TestOutcome) -> list[str]:
    return [case["status"] for case in outcome.record["cases"]]


def infer_walls(outcome: TestOutcome) -> list[float]:
    return [task["wall_s"] for task in outcome.record["tasks"] if task["task"] == "infer"]


def test_per_case_a_crash_and_a_hang_cost_only_themselves(dataset: Path, tmp_path: Path) -> None:
    model = bad_model(tmp_path / "m", {CASES[0]: CRASH, CASES[1]: HANG})
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 3})
    outcome = run_in_process(benchmark, model, dataset, tmp_path / "s", per_case=True)
    assert states(outcome) == ["crashed", "timeout", "ok"]
    assert len(infer_walls(outcome)) == 3
    walls = [case["wall_s"] for case in outcome.record["cases"]]
    assert None not in walls and 2 < walls[1] < 6 and walls[0] < 2.5 and walls[2] < 2.5
    limit = load_record(tmp_path / "s")["outcome"]["limit"]
    assert (limit["name"], limit["limit"], limit["unit"], limit["case"]) == ("time", 3, "s", CASES[1])
    assert 3 <= limit["measured"] < 5
    assert [row["Dice_WT"] for row in outcome.results.values()][:2] == [0, 0]
    assert [row["status"] for row in outcome.results.values() if "status" in row] == ["crashed", "timeout"]
    assert isinstance(outcome.error, ModelError)


def test_per_case_the_limit_that_is_recorded_belongs_to_its_case(dataset: Path, tmp_path: Path) -> None:
    """Two hang: value and case are those of the first."""
    model = bad_model(tmp_path / "m", {CASES[0]: HANG, CASES[2]: HANG})
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 1.5})
    outcome = run_in_process(benchmark, model, dataset, tmp_path / "s", per_case=True)
    assert states(outcome) == ["timeout", "ok", "timeout"]
    assert outcome.record["outcome"]["limit"]["case"] == CASES[0]
    assert isinstance(outcome.error, TimeLimitError) and CASES[0] in outcome.error.what


@pytest.mark.parametrize(("bad", "read_ahead"), [(CASES[0], False), (CASES[1], True), (CASES[2], False)])
def test_batch_goes_on_and_blames_only_the_bad_case(dataset: Path, tmp_path: Path, bad: str, read_ahead: bool) -> None:
    """Also a model that reads all cases first, where what was opened last says nothing."""
    model = bad_model(tmp_path / "m", {bad: CRASH}, read_ahead)
    outcome = run_in_process(write_benchmark(tmp_path / "b"), model, dataset, tmp_path / "s", go_on=True)
    assert states(outcome) == ["crashed" if case == bad else "ok" for case in CASES]
    attempts = begun(log_texts(tmp_path / "s"))
    assert all(attempts.count(case) == 1 for case in CASES[: CASES.index(bad)]), "a complete case was repeated"
    assert attempts.count(bad) == 2
    assert outcome.record["outcome"]["status"] == "partial" and isinstance(outcome.error, ModelError)


def test_neighbours_that_both_crash(dataset: Path, tmp_path: Path) -> None:
    """Eight cases, three bad ones in a row and the last: the others all get their score."""
    copies, names = multiply_cases(dataset, tmp_path / "d", 8)
    bad = [names[2], names[3], names[4], names[7]]
    model = bad_model(tmp_path / "m", dict.fromkeys(bad, CRASH), read_ahead=True)
    outcome = run_in_process(write_benchmark(tmp_path / "b"), model, copies, tmp_path / "s", go_on=True)
    assert states(outcome) == ["crashed" if name in bad else "ok" for name in names]


def test_a_crash_that_does_not_come_back_blames_nobody(dataset: Path, tmp_path: Path) -> None:
    body = "if len(CASES) == 3:\n    write(CASES[0])\n    header(CASES[1])\n    sys.exit(1)\nfor c in CASES: write(c)"
    outcome = run_in_process(
        write_benchmark(tmp_path / "b"), make_cube(tmp_path / "m", body), dataset, tmp_path / "s", go_on=True
    )
    assert states(outcome) == ["ok"] * 3 and outcome.error is None
    assert outcome.record["outcome"] == {"status": "ok", "exit_code": 0, "error": None, "limit": None}


def test_a_submission_that_never_finishes_a_case_is_given_up(dataset: Path, tmp_path: Path) -> None:
    copies, _ = multiply_cases(dataset, tmp_path / "d", 9)
    model = make_cube(tmp_path / "m", "sys.exit('no module named torch')")
    outcome = run_in_process(write_benchmark(tmp_path / "b"), model, copies, tmp_path / "s", go_on=True)
    assert states(outcome) == ["crashed"] * 9
    assert len(infer_walls(outcome)) <= 6


def test_stop_is_the_default_of_test_and_continue_of_run(dataset: Path, tmp_path: Path) -> None:
    assert TestRequest("1").mode.go_on is False and RunRequest("1", ()).mode.go_on is True
    model = bad_model(tmp_path / "m", {CASES[1]: CRASH})
    outcome = run_in_process(write_benchmark(tmp_path / "b"), model, dataset, tmp_path / "s")
    assert states(outcome) == ["ok", "crashed", "crashed"] and len(infer_walls(outcome)) == 1


def test_total_budget_holds_over_all_containers_of_a_batch(dataset: Path, tmp_path: Path) -> None:
    """Budget 4.5 s: the bad case takes 0.8 s twice, then a case hangs: no fourth container, no second more."""
    model = bad_model(tmp_path / "m", {CASES[1]: "time.sleep(0.8); sys.exit(1)", CASES[2]: HANG})
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 1.5})
    outcome = run_in_process(benchmark, model, dataset, tmp_path / "s", go_on=True)
    assert states(outcome) == ["ok", "crashed", "timeout"]
    walls = infer_walls(outcome)
    assert len(walls) == 3 and 4.5 <= sum(walls) < 6.5
    limit = outcome.record["outcome"]["limit"]
    assert (limit["name"], limit["case"]) == ("time", CASES[2]) and limit["limit"] < 3


def test_when_the_budget_ends_no_other_container_is_started(dataset: Path, tmp_path: Path) -> None:
    """The case at work is named although half of its prediction is there; it has its time, the one behind has none."""
    half = "open(f'{OUT}/{case}.nii.gz', 'wb').write(gzip.compress(bytes(head))[:60]); time.sleep(100)"
    model = bad_model(tmp_path / "m", {CASES[1]: half}, read_ahead=True)
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 1})
    outcome = run_in_process(benchmark, model, dataset, tmp_path / "s", go_on=True)
    assert states(outcome) == ["ok", "timeout", "timeout"] and len(infer_walls(outcome)) == 1
    limit = outcome.record["outcome"]["limit"]
    assert (limit["limit"], limit["case"]) == (3, CASES[1])
    first, second, third = (case["wall_s"] for case in outcome.record["cases"])
    assert first < 2 and 1 < second < 5 and third is None
    assert isinstance(outcome.error, TimeLimitError)


def test_output_limit_of_one_case_and_the_others_go_on(dataset: Path, tmp_path: Path) -> None:
    flood = "open(f'{OUT}/big', 'wb').write(os.urandom(3 << 20)); time.sleep(100)"
    model = bad_model(tmp_path / "m", {CASES[1]: flood})
    benchmark = write_benchmark(tmp_path / "b", {"output_mb": 2})
    outcome = run_in_process(benchmark, model, dataset, tmp_path / "s", go_on=True)
    assert states(outcome) == ["ok", "crashed", "ok"]
    assert outcome.record["cases"][1]["reason"] in ("output_size", "exit code 1")


def test_times_apart_and_limits_recorded(dataset: Path, tmp_path: Path) -> None:
    body = "time.sleep(0.6)\nfor case in CASES:\n    head = header(case)\n    time.sleep(0.4)\n    write(case, head)"
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 77}, "time.sleep(0.5)\n" + WRITE_SCORES)
    outcome = run_in_process(benchmark, make_cube(tmp_path / "m", body), dataset, tmp_path / "s")
    record = load_record(tmp_path / "s")
    timing = record["timing"]
    walls = [case["wall_s"] for case in record["cases"]]
    assert 0.55 <= timing["loading_s"] < timing["inference_s"] and timing["metrics_s"] >= 0.5
    assert all(0.3 <= wall < 3 for wall in walls), walls
    assert timing["loading_s"] + sum(walls) <= timing["inference_s"] + 0.1
    assert 0 < timing["start_up_s"] < 2
    assert timing["start_up_s"] + timing["inference_s"] + timing["metrics_s"] < timing["total_s"]
    assert record["limits"]["infer"]["per_case_s"] == 77 and record["limits"]["infer"]["memory_mb"] == 40960
    assert record["limits"]["metrics"]["per_case_s"] == 120
    assert json.loads(json.dumps(outcome.record["timing"])) == timing


def test_loading_does_not_count_the_start_of_the_container(tmp_path: Path) -> None:
    """The clock of the watch begins when the task is asked for; what the engine needed is taken off."""
    watch, tick = begin_watch(tmp_path, ["a", "b"])
    (tmp_path / "in" / "a" / "image").read_bytes()
    tick()
    watch.close()
    loading_s = watch.loading_s(0.0)
    assert loading_s is not None
    assert watch.loading_s(100.0) == 0.0 and watch.loading_s(loading_s) == 0.0


def begin_watch(folder: Path, cases: list[str]) -> tuple[CaseWatch, Callable[[], object]]:
    for case in cases:
        (folder / "in" / case).mkdir(parents=True)
        (folder / "in" / case / "image").touch()
    (folder / "out").mkdir()
    watch = CaseWatch(folder / "in", folder / "out", {case: f"{case}.nii.gz" for case in cases}, Limits())
    return watch, watch.watch(lambda done: None)


@pytest.mark.parametrize(
    ("opened", "finished", "expected"),
    [
        ("", "", "a"),
        ("a", "", "a"),
        ("abcd", "", "a"),
        ("abcd", "ab", "c"),
        ("acd", "ac", "d"),
        ("ab", "b", "a"),
        ("", "ab", "c"),
        ("dcba", "dc", "b"),
    ],
)
def test_the_case_at_work(tmp_path: Path, opened: str, finished: str, expected: str) -> None:
    watch, tick = begin_watch(tmp_path, list("abcd"))
    for case in opened:
        (tmp_path / "in" / case / "image").read_bytes()
        tick()
    for case in finished:
        (tmp_path / "out" / f"{case}.nii.gz").write_text("mask")
        tick()
    assert watch.running_case([case for case in "abcd" if case not in finished]) == expected
    watch.close()
    assert watch.running_case([]) is None


@pytest.mark.parametrize("content", ["b''", "gzip.compress(bytes(head))[:60]"])
def test_a_prediction_that_was_only_begun_is_unfinished_not_invalid(
    dataset: Path, tmp_path: Path, content: str
) -> None:
    """A crash in the middle of writing; the case before wrote nonsense and is refused for that."""
    begun_file = f"open(f'{{OUT}}/{{case}}.nii.gz', 'wb').write({content}); time.sleep(0.2); sys.exit(1)"
    nonsense = "open(f'{OUT}/{case}.nii.gz', 'w').write('nonsense'); time.sleep(0.2); continue"
    loop = "for case in CASES:\n    head = header(case)\n"
    for number, text in enumerate((nonsense, begun_file)):
        loop += f"    if case == CASES[{number}]:\n        {text}\n"
    outcome = run_in_process(write_benchmark(tmp_path / "b"), make_cube(tmp_path / "m", loop), dataset, tmp_path / "s")
    assert states(outcome) == ["invalid", "crashed", "crashed"]
    assert outcome.record["cases"][0]["reason"] == "not_a_nifti"
