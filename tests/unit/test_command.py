"""The command as people type it, without containers: results, messages and exit codes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from fedeval.engine.docker_engine import DockerEngine
from fedeval.errors import FedevalError
from fedeval.results import check_record
from tests.cube_factory import INFER, make_cube, medperf, medperf_command

ROOT = Path(__file__).resolve().parents[2]
PROCESS = ("--platform=process", "test", "-b", "1", "--allow-foreign-code")


def run_cube(dataset: Path, folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return medperf(*PROCESS, "-d", dataset, "-m", folder, "--json", *more)


def one_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_reference_model_on_toy_cases(tmp_path: Path) -> None:
    """The main job: toy cases, three cubes, a table, the files; a second run does not prepare the data again."""
    first = medperf("--log=debug", f"--storage={tmp_path}", *PROCESS, "--toy-size=ci")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count(" ok ") == 4
    assert first.stdout.splitlines()[-1].startswith("report ")
    report = Path(first.stdout.splitlines()[-1].split(maxsplit=1)[1])
    assert report.is_file()
    record = json.loads((report.parent / "run.json").read_text())
    check_record(record)
    assert record["dataset"]["prepared_now"] and [task["task"] for task in record["tasks"]] == [
        "prepare", "sanity_check", "statistics", "infer", "evaluate",
    ]  # fmt: skip
    results = (report.parent / "results.yaml").read_text()
    assert all(row[f"Dice_{region}"] > 0 for row in yaml.safe_load(results).values() for region in ("WT", "TC", "ET"))

    second = medperf(f"--storage={tmp_path}", *PROCESS[:-1], "--toy-size=ci", "--json", "-m", "mlcubes/model", cwd=ROOT)
    again = json.loads(second.stdout)
    assert not again["dataset"]["prepared_now"]
    assert [task["task"] for task in again["tasks"]] == ["infer", "evaluate"]
    assert again["dataset"]["digest"] == record["dataset"]["digest"]
    assert (report.parent / "results.yaml").read_text() == results
    assert not list((tmp_path / "tmp").iterdir())
    assert str(tmp_path) not in json.dumps(record)
    assert socket.gethostname() not in json.dumps(record["host"])


def test_test_run_is_the_same_command(dataset: Path, tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "c")
    done = medperf("--platform=process", "test", "run", "-b", ROOT / "benchmarks" / "1-fets.yaml", "-d", dataset,
                   "--allow-foreign-code", "-m", folder, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"]["status"] == "ok"


def test_json_is_one_document_and_nothing_else(dataset: Path, tmp_path: Path) -> None:
    done = run_cube(dataset, make_cube(tmp_path / "c"))
    document = json.loads(done.stdout)
    assert document["files"]["report"].endswith("report.html") and done.stderr == ""
    failed = run_cube(dataset, tmp_path / "nothing")
    assert json.loads(failed.stdout)["error"]["code"] == failed.returncode == 14


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["test", "-b", "99"], 10, "known are 1-fets"),
        (["test", "-b", "nothing.yaml"], 10, "neither a number nor a file"),
        (["test"], 2, "which benchmark"),
        (["test", "list", "-b", "1"], 2, "unknown command 'test list'"),
        (["test", "-b", "1", "--platform=podman"], 2, "expected one of docker, singularity, process"),
        (["--log=loud", "test", "-b", "1"], 2, "--log has an unknown value"),
        (["test", "-b", "1", "--wrong"], 2, "--wrong"),
        (["--storage=/proc/none", "--platform=process", "test", "-b", "1"], 50, "choose another folder"),
        (["--platform=process", "test", "-b", "1", "-d", "/nonexistent"], 14, "prepared dataset: folder data/"),
    ],
)
def test_wrong_options(arguments: list[str], code: int, part: str) -> None:
    assert part in one_error(medperf(*arguments), code)


@pytest.mark.parametrize("empty", ["data", "labels"])
def test_empty_input_folder(dataset: Path, tmp_path: Path, empty: str) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    shutil.rmtree(copy / empty)
    (copy / empty).mkdir()
    assert "an empty folder" in one_error(run_cube(copy, make_cube(tmp_path / "c")), 14)
    assert not list((copy / empty).iterdir())


def test_zero_cases(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "d" / "data").mkdir(parents=True)
    (tmp_path / "d" / "data" / "notes.txt").touch()
    shutil.copytree(dataset / "labels", tmp_path / "d" / "labels")
    assert "zero cases" in one_error(run_cube(tmp_path / "d", make_cube(tmp_path / "c")), 14)


def test_manifest_without_infer_and_with_a_misspelt_parameter(dataset: Path, tmp_path: Path) -> None:
    without = make_cube(tmp_path / "a", tasks=INFER.replace("infer:", "inference:"))
    assert "no task 'infer'" in one_error(run_cube(dataset, without), 11)
    misspelt = make_cube(tmp_path / "b", tasks=INFER.replace("output_path", "output_pth"))
    assert "rename output_pth to output_path" in one_error(run_cube(dataset, misspelt), 13)


def test_misspelt_data_prep_parameter(tmp_path: Path) -> None:
    """A wrong key in the cube's parameters.yaml is data_prep's error, named with the known keys."""
    shutil.copytree(ROOT / "mlcubes" / "data_prep", tmp_path / "data_prep")
    parameters = tmp_path / "data_prep" / "mlcube" / "workspace" / "parameters.yaml"
    parameters.write_text(parameters.read_text() + "\nmax_val_sise: 3\n")
    done = medperf(*PROCESS, "--toy-size=ci", "-p", tmp_path / "data_prep")
    assert "max_val_sise" in one_error(done, 20)


def test_foreign_code_needs_permission_without_a_container(dataset: Path, tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "c", f"open({str(tmp_path / 'ran')!r}, 'w')")
    done = medperf("--platform=process", "test", "-b", "1", "-d", dataset, "-m", folder)
    assert "is not one of this checkout's" in one_error(done, 12)
    assert not (tmp_path / "ran").exists()


def test_failing_model_keeps_its_log_and_what_was_finished(dataset: Path, tmp_path: Path) -> None:
    body = """
    write(CASES[0])
    print("loading weights", flush=True)
    sys.exit("no weights for \\x1b[31mstage two")
    """
    done = run_cube(dataset, make_cube(tmp_path / "c", body), f"--storage={tmp_path}/s")
    text = one_error(done, 22)
    assert "exit code 1" in text and "| loading weights" in text and "1 of 3 cases are scored" in text
    assert "\x1b" not in text and "\\x1b[31mstage two" in text
    document = json.loads(done.stdout)
    assert [case["status"] for case in document["cases"]] == ["ok", "crashed", "crashed"]
    assert document["outcome"]["status"] == "partial"
    penalised = list(document["results"].values())[1]
    assert (penalised["Dice_WT"], penalised["Hausdorff95_ET"], penalised["status"]) == (0, 374, "crashed")
    log = Path(text.split("whole log: ")[1].split(")")[0])
    assert "loading weights" in log.read_text()


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("for case in CASES[1:]: write(case)", 40, "missing"),
        ("for case in CASES: write(case, name=case + '.nii')", 40, "missing"),
        ("for case in CASES: open(f'{OUT}/{case}.nii.gz', 'w').write('hello')", 41, "not_a_nifti"),
        ("for case in CASES: h = header(case); struct.pack_into('<h', h, 42, 50); write(case, h)", 42, "wrong_shape"),
        ("for case in CASES: h = header(case); struct.pack_into('<f', h, 292, 7.0); "
         "struct.pack_into('<f', h, 268, 7.0); write(case, h)", 43, "wrong_affine"),
        ("""
for case in CASES:
    head = header(case)
    struct.pack_into("<hh", head, 70, 16, 32)
    x, y, z = shape(head)
    write(case, head, struct.pack("<f", 0.5) * (x * y * z))
""", 44, "not_integer_labels"),
        ("for case in CASES: write(case, voxels=bytes([3]) * 589824)", 44, "unknown_label"),
    ],
    ids=["missing", "wrong-name", "not-nifti", "shape", "affine", "float", "label"],
)  # fmt: skip
def test_unusable_predictions(dataset: Path, tmp_path: Path, body: str, code: int, reason: str) -> None:
    done = run_cube(dataset, make_cube(tmp_path / "c", body))
    text = one_error(done, code)
    assert f"({reason})" in text and ("expected" in text or reason == "missing")
    rows = json.loads(done.stdout)["results"].values()
    refused = [row for row in rows if row["status"] != "ok"]
    assert refused and all(row["Dice_WT"] == 0 and row["reason"] == reason for row in refused)
    assert all(row["missing_pred"] == (reason == "missing") for row in refused)


def test_time_limit_ends_the_run_and_keeps_what_was_finished(dataset: Path, tmp_path: Path) -> None:
    """The budget is wall clock, also for a model that keeps talking (upstream's limits are idle limits)."""
    survivor = tmp_path / "survivor"
    body = f"""
    import signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(CASES[0])
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6); open({str(survivor)!r}, 'w')"])
    while True:
        print("still busy", flush=True); time.sleep(0.05)
    """
    benchmark = tmp_path / "quick.yaml"
    text = (ROOT / "benchmarks" / "1-fets.yaml").read_text().replace("../mlcubes", str(ROOT / "mlcubes"))
    benchmark.write_text(text.replace("infer: {per_case_s: 180", "infer: {per_case_s: 1"))
    done = medperf("--platform=process", "test", "-b", benchmark, "-d", dataset, "--allow-foreign-code",
                   "-m", make_cube(tmp_path / "c", body), "--json")  # fmt: skip
    assert "ended by limit time:" in one_error(done, 30)
    document = json.loads(done.stdout)
    assert [case["status"] for case in document["cases"]] == ["ok", "timeout", "timeout"]
    infer = next(task for task in document["tasks"] if task["task"] == "infer")
    assert 3.0 <= infer["wall_s"] < 30 and infer["ended_by"]["name"] == "time"
    threading.Event().wait(4)
    assert not survivor.exists()


def test_paths_with_spaces_and_equals_signs(dataset: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b=c,d"
    shutil.copytree(dataset, odd / "data set=1")
    done = run_cube(odd / "data set=1", make_cube(odd / "cube x=y"), f"--storage={odd}/st ore=2")
    assert done.returncode == 0, done.stderr


def test_metrics_cube_that_fails_is_never_a_score(dataset: Path, tmp_path: Path) -> None:
    evaluate = """
    evaluate:
      parameters:
        inputs: {predictions: predictions/, labels: labels/}
        outputs: {output_path: {type: file, default: results.yaml}}
    """
    program = "import sys\narguments = dict(word[2:].split('=', 1) for word in sys.argv[2:])\n"
    bodies = {
        "crash": "sys.exit(5)",
        "nothing": "pass",
        "lacks a case": "open(arguments['output_path'], 'w').write('{}')",
        "not YAML": "open(arguments['output_path'], 'w').write('a: [')",
        "pickle": "open(arguments['output_path'], 'w').write('a: !!python/object/apply:os.system [\"true\"]')",
    }
    for name, body in bodies.items():
        metrics = make_cube(tmp_path / name, body, tasks=evaluate, program=program)
        storage = tmp_path / f"s {name}"
        done = run_cube(dataset, make_cube(tmp_path / f"m {name}"), "-e", metrics, f"--storage={storage}")
        one_error(done, 23)
        assert not list((storage / "results").rglob("*.yaml")), name


def test_a_metrics_cube_that_writes_too_many_files_is_ended(dataset: Path, tmp_path: Path) -> None:
    evaluate = """
    evaluate:
      parameters:
        inputs: {predictions: predictions/, labels: labels/}
        outputs: {output_path: {type: file, default: results.yaml}}
    """
    body = """
    import os, time
    for number in range(6):
        open(os.path.dirname(arguments["output_path"]) + f"/{number}", "w").close()
    time.sleep(60)
    """
    program = "import sys\narguments = dict(word[2:].split('=', 1) for word in sys.argv[2:])\n"
    metrics = make_cube(tmp_path / "metrics", body, tasks=evaluate, program=program)
    text = (ROOT / "benchmarks" / "1-fets.yaml").read_text().replace("../mlcubes", str(ROOT / "mlcubes"))
    benchmark = tmp_path / "small.yaml"
    benchmark.write_text(text.replace("output_mb: 256}", "output_mb: 256, output_files: 3}"))
    done = medperf("--platform=process", "test", "-b", benchmark, "-d", dataset, "--allow-foreign-code", "-e", metrics,
                   "-m", make_cube(tmp_path / "c"))  # fmt: skip
    text = one_error(done, 23)
    assert "metrics, task evaluate failed" in text and "limit output_files: 4 files of 3 files" in text


def test_outputs_that_only_the_manifest_knows_are_counted_too(dataset: Path, tmp_path: Path) -> None:
    tasks = INFER.replace("outputs: {", "outputs: {extra_path: {type: directory, default: extra/}, ")
    body = """
    for case in CASES: write(case)
    for number in range(10050): os.close(os.open(f"{arguments['extra_path']}/{number}", os.O_CREAT))
    time.sleep(60)
    """
    done = run_cube(dataset, make_cube(tmp_path / "c", body, tasks=tasks))
    assert "limit output_files" in one_error(done, 32)


def running(program: Path) -> list[str]:
    """Processes that run a cube's program; in a sandbox they have other ids inside."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(program).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
    return found


def test_interrupt_ends_the_model_and_leaves_no_results(dataset: Path, tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "c", "write(CASES[0]); time.sleep(100)")
    command = medperf_command(f"--storage={tmp_path}/s", *PROCESS, "-d", dataset, "-m", folder)
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if list((tmp_path / "s").glob("predictions/.work-*/found/*.nii.gz")):
            break
        threading.Event().wait(0.05)
    assert running(folder.parent / "project" / "mlcube.py")
    runner.send_signal(signal.SIGINT)
    _, stderr = runner.communicate(timeout=30)
    assert runner.returncode == 130 and "error: stopped" in stderr, stderr
    assert not running(folder.parent / "project" / "mlcube.py")
    assert not list((tmp_path / "s" / "results").iterdir()) and not list((tmp_path / "s" / "tmp").iterdir())


def test_engine_that_does_not_answer(dataset: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "down.sock"))
    down = {"DOCKER_HOST": f"unix://{tmp_path}/down.sock"}
    done = medperf("--platform=docker", "test", "-b", "1", "-d", dataset, "-m", make_cube(tmp_path / "c"), env=down)
    assert "Docker does not answer" in one_error(done, 17)


def test_engine_that_does_not_let_this_user_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real socket that only root may open, asked by another user."""
    if os.getuid():
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "docker.sock"))
        server.listen(1)
        (folder / "docker.sock").chmod(0o600)
        folder.chmod(0o755)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/docker.sock")
        child = os.fork()
        if child == 0:
            code = 0
            try:
                os.seteuid(65534)
                DockerEngine()
            except FedevalError as err:
                code = err.exit_code
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 18
    shutil.rmtree(folder)


def test_engine_that_is_not_installed(dataset: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where no engine's socket is to be seen."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && PATH=/nonexistent exec "$@"', "sh"]
    if subprocess.run([*hidden[:5], "true"], capture_output=True).returncode and os.getuid():
        pytest.skip("needs root for a mount namespace")
    asked = medperf_command("--platform=docker", "test", "-b", "1", "-d", dataset, "-m", make_cube(tmp_path / "c"))
    env = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    done = subprocess.run([*hidden, *asked], env=env, capture_output=True, text=True)
    assert "Docker is not installed" in one_error(done, 16)


def test_no_engine_falls_back_to_processes_with_a_warning(tmp_path: Path) -> None:
    down = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = medperf(f"--storage={tmp_path}", "test", "-b", "1", "--toy-size=ci", env=down)
    assert done.returncode == 0, done.stderr
    assert "WITHOUT containers" in done.stderr and "not enforced" in done.stderr
