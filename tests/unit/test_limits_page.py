"""docs/limits.md says what the code does: fields, defaults, exit codes, states, what is enforced where."""

import dataclasses
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from fedeval import errors, inference
from fedeval.benchmark import CHECKOUT, load_benchmark
from fedeval.cube import CubeManifest
from fedeval.engine import child, sandbox
from fedeval.engine.base import ImageRecord, LogTail, TaskCall
from fedeval.engine.docker_engine import DockerEngine
from fedeval.engine.process_engine import ProcessEngine
from fedeval.engine.singularity_engine import SingularityEngine
from fedeval.invocation import Binding, Invocation
from fedeval.limits import Limits
from fedeval.results import SCHEMA_FILE

PAGE = (CHECKOUT / "docs" / "limits.md").read_text(encoding="utf-8")
FIELDS = [field.name for field in dataclasses.fields(Limits)]
BENCHMARK = load_benchmark(CHECKOUT / "benchmarks" / "1-fets.yaml")
NOT = "not enforced"


def tables() -> dict[str, dict[str, dict[str, str]]]:
    """Heading -> first cell of a row -> column -> cell."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        head, body = rows[0], rows[2:]
        assert all(len(row) == len(head) for row in body), section.splitlines()[0]
        found[section.splitlines()[0]] = {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in body}
    return found


TABLES = tables()
SUBMISSION = TABLES["Limits of a submission"]
ISOLATION = TABLES["Isolation"]
OTHERS = TABLES["data_prep and metrics"]


def shown(value: float | None) -> str:
    return "all" if value is None else f"{value:g}"


def test_every_limit_has_one_row_in_both_tables() -> None:
    assert list(SUBMISSION) == FIELDS
    assert list(OTHERS) == FIELDS
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(FIELDS * 2), "a row stands twice"


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_are_those_of_benchmark_1(name: str) -> None:
    assert SUBMISSION[name]["default"] == shown(getattr(BENCHMARK.limits["infer"], name))
    for part in ("data_prep", "metrics"):
        assert OTHERS[name][part] == shown(getattr(BENCHMARK.limits[part], name)), part


def exit_codes() -> dict[int, type[errors.FedevalError]]:
    classes = [found for _, found in inspect.getmembers(errors, inspect.isclass)]
    return {found.exit_code: found for found in classes if issubclass(found, errors.FedevalError)}


def state_enum() -> set[str]:
    schema = json.loads(SCHEMA_FILE.read_text())
    return set(schema["properties"]["cases"]["items"]["properties"]["status"]["enum"])


def breach_names() -> set[str]:
    schema = json.loads(SCHEMA_FILE.read_text())
    return set(schema["properties"]["outcome"]["properties"]["limit"]["oneOf"][1]["properties"]["name"]["enum"])


def test_states_and_exit_codes_are_those_of_the_schema_and_the_errors() -> None:
    for name, row in SUBMISSION.items():
        state, code = row["state"].strip("`"), row["exit"]
        assert (state == "-") == (code == "-"), name
        if state != "-":
            assert state in state_enum(), name
            assert int(code) in exit_codes(), name
    for code in re.findall(r"exit (\d+)", PAGE):
        assert int(code) in exit_codes(), code
    for word in re.findall(r"state `(\w+)`|^- `(out_of\w+)`", PAGE, flags=re.MULTILINE):
        assert (word[0] or word[1]) in state_enum()


BREACHES = {
    "per_case_s": "time", "start_up_s": "time", "memory_mb": "memory", "gpu_memory_mb": "gpu_memory",
    "output_mb": "output_size", "output_files": "output_files",
}  # fmt: skip
"""Limit -> the name under which the record has its breach; limits that only refuse have none."""


def test_each_breach_is_told_as_inference_ends_it() -> None:
    assert set(BREACHES.values()) == breach_names()
    for name, breach in BREACHES.items():
        state = inference._STATE_OF_LIMIT.get(breach, "crashed")
        default = (errors.OutputLimitError, "")
        error = inference._LIMIT_ERRORS.get(breach, default)[0]
        row = SUBMISSION[name]
        assert (row["state"], row["exit"]) == (f"`{state}`", str(error.exit_code)), name
        assert f"limit {breach}" in row["what the participant sees"], name
    for name in set(FIELDS) - set(BREACHES):
        assert SUBMISSION[name]["exit"] in ("-", str(errors.ModelError.exit_code)), name


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.PreparationError, r"fault of the data or the site: exit (\d+),"),
        (errors.DataFindingsError, r"or (\d+) when\s+`sanity_check`"),
        (errors.MetricsError, r"fault of the benchmark:\s+exit (\d+);"),
        (errors.PredictionMissingError, r"`missing` \(exit (\d+)\)"),
        (errors.PredictionFormatError, r"`invalid` \(exit (\d+) to"),
        (errors.PredictionLabelsError, r"`invalid` \(exit \d+ to (\d+),"),
    ],
)
def test_exit_codes_in_the_text(error: type[errors.FedevalError], sentence: str) -> None:
    found = re.search(sentence, PAGE)
    assert found is not None and int(found.group(1)) == error.exit_code


NOT_ENFORCED = {
    "memory": "memory_mb", "GPU memory": "gpu_memory_mb", "processes": "pids", "number of processes": "pids",
    "CPU share": "cpus", "shared memory": "shm_mb", "temporary space": "tmp_mb",
    "memory of all processes together": "memory_mb", "network isolation": "network", "read-only inputs": "inputs",
    "hidden labels": "labels",
}  # fmt: skip
"""What engines say under ``not_enforced`` -> row of this page."""


def check_not_enforced(said: tuple[str, ...], limits_column: str, isolation_column: str) -> None:
    for phrase in said:
        row = NOT_ENFORCED[phrase]
        cell = SUBMISSION[row][limits_column] if row in SUBMISSION else ISOLATION[row][isolation_column]
        partly = ("not of all together", "as for process")
        assert NOT in cell or any(words in cell for words in partly), f"{phrase}: {cell}"


def test_what_engines_say_they_do_not_enforce_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_not_enforced(SingularityEngine.not_enforced, "singularity", "singularity")
    check_not_enforced(DockerEngine.not_enforced, "docker", "docker")
    monkeypatch.setattr("fedeval.engine.process_engine.find_bubblewrap", lambda: None)
    check_not_enforced(ProcessEngine(tmp_path, tmp_path).not_enforced, "process", "process without")
    monkeypatch.setattr("fedeval.engine.process_engine.find_bubblewrap", lambda: "/usr/bin/bwrap")
    check_not_enforced(ProcessEngine(tmp_path, tmp_path).not_enforced, "process", "process with bubblewrap")


def doctor_names() -> set[str]:
    """Names of findings in the code of doctor."""
    text = "".join(file.read_text() for file in sorted((CHECKOUT / "src" / "fedeval").glob("doctor/*.py")))
    return set(re.findall(r'judge\(\s*"(\w+)"', text))


def test_every_line_of_doctor_that_the_page_names_is_there() -> None:
    for measure, row in ISOLATION.items():
        name = row["doctor"].strip("`")
        assert name == "-" or name in doctor_names(), measure


def test_docker_enforces_every_measure_of_isolation() -> None:
    assert all(NOT not in row["docker"] for row in ISOLATION.values())


def call(tmp_path: Path) -> TaskCall:
    data, out = tmp_path / "data", tmp_path / "out"
    manifest = CubeManifest(tmp_path, "c", "c:1", tmp_path, tmp_path / "Dockerfile", 0, {})
    bindings = (Binding(data, "/mlcube_io0", True), Binding(out, "/mlcube_io1", False))
    invocation = Invocation("c", "infer", (), (), bindings, (out,))
    limits = BENCHMARK.limits["infer"]
    return TaskCall(manifest, ImageRecord("c", "sha256:0", "built"), invocation, limits, 1, tmp_path / "log")


def test_bubblewrap_does_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_bubblewrap", lambda: "bwrap")
    command = sandbox.sandbox_command(call(tmp_path), (Path("/tmp"),))
    words = " ".join(command)
    assert "--unshare-all" in command and "--cap-drop ALL" in words
    assert f"--ro-bind {tmp_path}/data" in words and f"--bind {tmp_path}/out" in words
    assert f"--size {BENCHMARK.limits['infer'].tmp_mb << 20} --tmpfs /tmp" in words


def test_resource_limits_of_processes_are_those_on_the_page() -> None:
    source = inspect.getsource(child)
    for word in set(re.findall(r"RLIMIT_\w+", PAGE)):
        assert word in source, word


def uses(word: str, *places: str) -> bool:
    files = [file for place in places for file in sorted((CHECKOUT / "src" / "fedeval").glob(place))]
    return any(word in file.read_text(encoding="utf-8") for file in files)


def test_gpu_memory_is_on_the_page_as_it_is_enforced() -> None:
    watched = uses("GpuWatch", "engine/*.py", "task.py", "inference.py")
    for engine in ("docker", "singularity", "process"):
        cell = SUBMISSION["gpu_memory_mb"][engine]
        assert watched == ("NVML" in cell), f"GpuWatch is {'' if watched else 'not '}used by the runner: {cell}"
        assert watched != (NOT in cell)


def test_outputs_of_other_tasks_are_on_the_page_as_they_are_counted() -> None:
    counted = uses("OutputWatch", "task.py")
    alone = re.search(r"outputs are counted for `infer`\s+only", PAGE) is not None
    assert counted != alone, f"outputs of data_prep and metrics are {'' if counted else 'not '}counted by the runner"


def test_the_sentence_at_the_end_of_a_cut_log(tmp_path: Path) -> None:
    tail = LogTail(tmp_path / "log", 10)
    tail.feed(b"0123456789abc\nlast\n")
    assert tail.close()[-1] == "last"
    sentence = re.search(r"ends with `(\[.+?\])`", PAGE)
    assert sentence is not None and sentence.group(1) in (tmp_path / "log").read_text()


def test_the_budget_is_that_of_the_page() -> None:
    limits: Mapping[str, Limits] = BENCHMARK.limits
    assert limits["infer"].budget_s(10) == 10 * float(SUBMISSION["per_case_s"]["default"])
    assert limits["metrics"].budget_s(10) == 300 + 10 * 120
