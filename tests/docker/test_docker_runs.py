"""The main job in real containers: same numbers as without, nothing left behind, limits of isolation in force."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from tests.cube_factory import BASE, INFER, ROOT, make_cube, medperf, medperf_command

pytestmark = pytest.mark.docker

DOCKER = ("--platform=docker", "test", "-b", "1")


def containers() -> set[str]:
    shown = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=org.fedeval.runner"], capture_output=True, text=True
    )
    return set(shown.stdout.split())


def run_cube(dataset: Path, folder: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return medperf(*DOCKER, "-d", dataset, "-m", folder, "--json", *more)


def test_both_engines_give_identical_results(tmp_path: Path) -> None:
    """`medperf --platform=docker test -b 1 -m mlcubes/model/mlcube`, and the same without docker."""
    results = []
    before = containers()
    for platform in ("docker", "process"):
        storage = tmp_path / platform
        done = medperf(f"--platform={platform}", f"--storage={storage}", "test", "-b", "1", "--toy-size=ci",
                       "-m", "mlcubes/model/mlcube", cwd=ROOT)  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(next(storage.rglob("results.yaml")).read_bytes())
        record = json.loads(next(storage.rglob("run.json")).read_text())
        assert record["engine"]["name"] == platform
    assert results[0] == results[1]
    assert containers() == before


def test_a_changed_source_is_never_run_from_a_stale_image(dataset: Path, tmp_path: Path) -> None:
    """Same tag, other program: upstream runs the old image silently."""
    digests = []
    for number in (1, 2):
        folder = make_cube(tmp_path / str(number), f"print('version {number}')\nfor c in CASES: write(c)",
                           image="fedeval-test/stale:1")  # fmt: skip
        done = run_cube(dataset, folder, f"--storage={tmp_path}/s")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["cubes"]["model"]["source"] == "built"
        digests.append(document["cubes"]["model"]["digest"])
        shown = subprocess.run(["docker", "image", "inspect", "-f", "{{.Id}}", "fedeval-test/stale:1"],
                               capture_output=True, text=True)  # fmt: skip
        assert shown.stdout.strip() == digests[-1]
    assert digests[0] != digests[1]
    assert len(list((tmp_path / "s" / "results" / "fets").iterdir())) == 2


def test_outputs_of_an_earlier_run_are_never_scored(dataset: Path, tmp_path: Path) -> None:
    every = make_cube(tmp_path / "a", "for c in CASES: write(c)")
    assert run_cube(dataset, every, f"--storage={tmp_path}/s").returncode == 0
    fewer = make_cube(tmp_path / "b", "write(CASES[0])")
    done = run_cube(dataset, fewer, f"--storage={tmp_path}/s")
    assert done.returncode == 40
    assert [case["status"] for case in json.loads(done.stdout)["cases"]] == ["ok", "missing", "missing"]


INSPECT = """
    import json, socket
    def attempt(action):
        try:
            action()
        except OSError as error:
            return error.errno
        return 0
    facts = {
        "uid": os.getuid(), "entries": sorted(os.listdir("/")), "environment": sorted(os.environ),
        "caps": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0],
        "privileges": [line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")][0],
        "write_root": attempt(lambda: open("/anything", "w")),
        "write_input": attempt(lambda: open(DATA + "/anything", "w")),
        "write_tmp": attempt(lambda: open("/tmp/anything", "w")),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "socket": os.path.exists("/var/run/docker.sock"),
        "mounts": sorted(line.split()[1] for line in open("/proc/mounts") if "/mlcube_io" in line),
        "init": open("/proc/1/comm").read().strip(),
        "memory": int(open(next(p for p in ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max")
                                if os.path.exists(p))).read()),
    }
    print("FACTS " + json.dumps(facts), flush=True)
    for case in CASES: write(case)
"""


def test_isolation_as_the_model_sees_it(dataset: Path, tmp_path: Path) -> None:
    done = run_cube(dataset, make_cube(tmp_path / "c", INSPECT), f"--storage={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "s" / "logs").rglob("model-infer.log")).read_text()
    facts = json.loads(next(line for line in log.splitlines() if line.startswith("FACTS "))[6:])
    assert facts["uid"] == (os.getuid() or 65534)
    assert int(facts["caps"], 16) == 0 and facts["privileges"] == "1"
    assert facts["write_root"] == facts["write_input"] == 30 and facts["write_tmp"] == 0
    assert facts["interfaces"] == ["lo"] and facts["socket"] is False
    assert facts["mounts"] == ["/mlcube_io0", "/mlcube_io1"]
    assert facts["memory"] == 40960 << 20
    assert set(facts["environment"]) <= {
        "HOME",
        "HOSTNAME",
        "NVIDIA_VISIBLE_DEVICES",
        "LANG",
        "PATH",
        "PIP_CERT",
        "PYTHONUNBUFFERED",
        "USER",
        "LC_CTYPE",
    }
    outputs = list((tmp_path / "s").rglob("*"))
    assert all(path.lstat().st_uid == os.getuid() for path in outputs)


def test_arguments_equal_those_of_a_real_mlcube_run(dataset: Path, tmp_path: Path) -> None:
    """The same cube under the real `mlcube run` and under our runner sees the same words."""
    folder = make_cube(tmp_path / "c", "print('WORDS', sys.argv[1:], flush=True)\nfor c in CASES: write(c)")
    done = run_cube(dataset, folder, f"--storage={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "s" / "logs").rglob("model-infer.log")).read_text()
    ours = next(line for line in log.splitlines() if line.startswith("WORDS"))
    mlcube = Path(shutil.which("mlcube") or medperf_command()[0]).with_name("mlcube")
    command = [str(Path(medperf_command()[0]).with_name(mlcube.name)), "run", f"--mlcube={folder}/mlcube.yaml",
               "--task=infer", f"data_path={dataset}/data", f"output_path={tmp_path}/out"]  # fmt: skip
    theirs = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert theirs.returncode == 0, theirs.stderr[-1000:]
    assert ours in theirs.stdout.splitlines()


def wait_for_container(before: set[str]) -> str:
    for _ in range(600):
        if new := containers() - before:
            return new.pop()
        threading.Event().wait(0.05)
    raise AssertionError("no container was started")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_runner_ends_the_container(dataset: Path, tmp_path: Path, number: int) -> None:
    """Ctrl-C on a model that ignores every signal; upstream leaves the container up."""
    body = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nos.fork()\ntime.sleep(300)"
    folder = make_cube(tmp_path / "c", body)
    before = containers()
    command = medperf_command(f"--storage={tmp_path}/s", *DOCKER, "-d", dataset, "-m", folder)
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_container(before)
    threading.Event().wait(0.5)
    runner.send_signal(number)
    _, stderr = runner.communicate(timeout=60)
    assert runner.returncode == 130, stderr
    assert containers() == before
    assert not list((tmp_path / "s" / "results").iterdir()) and not list((tmp_path / "s" / "tmp").iterdir())


def test_containers_of_a_killed_runner_are_removed_by_the_next(dataset: Path, tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "c", "time.sleep(300)")
    before = containers()
    runner = subprocess.Popen(medperf_command(f"--storage={tmp_path}/s", *DOCKER, "-d", dataset, "-m", folder),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    orphan = wait_for_container(before)
    runner.kill()
    runner.wait()
    assert orphan in containers()
    done = run_cube(dataset, make_cube(tmp_path / "d"), f"--storage={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    assert containers() == before


def limited(tmp_path: Path, **limits: str) -> Path:
    """Benchmark 1 with other limits for infer."""
    content = yaml.safe_load((ROOT / "benchmarks" / "1-fets.yaml").read_text())
    content["cubes"] = {role: str((ROOT / "benchmarks" / path).resolve()) for role, path in content["cubes"].items()}
    content["limits"]["infer"].update(limits)
    (tmp_path / "limited.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "limited.yaml"


def test_memory_of_a_child_that_leaves_exit_code_0_is_seen(dataset: Path, tmp_path: Path) -> None:
    body = """
    import subprocess
    write(CASES[0])
    subprocess.run([sys.executable, "-c", "x = bytearray(1 << 30); x[::4096] = b'1' * (1 << 18)"])
    """
    folder = make_cube(tmp_path / "c", body)
    benchmark = limited(tmp_path, memory_mb=256)  # type: ignore[arg-type]
    done = medperf("--platform=docker", "test", "-b", benchmark, "-d", dataset, "-m", folder, "--json")
    assert done.returncode == 31, done.stderr
    document = json.loads(done.stdout)
    infer = next(task for task in document["tasks"] if task["task"] == "infer")
    assert (infer["exit_code"], infer["ended_by"]["name"]) == (0, "memory") and infer["peak_memory_mb"] > 200
    assert [case["status"] for case in document["cases"]] == ["ok", "out_of_memory", "out_of_memory"]


def test_deadline_takes_the_whole_tree(dataset: Path, tmp_path: Path) -> None:
    body = """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(CASES[0])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: time.sleep(1)
    while True: print("busy", flush=True); time.sleep(0.01)
    """
    before = containers()
    folder = make_cube(tmp_path / "c", body)
    benchmark = limited(tmp_path, per_case_s=1)  # type: ignore[arg-type]
    done = medperf("--platform=docker", "test", "-b", benchmark, "-d", dataset, "-m", folder, "--json")
    assert done.returncode == 30, done.stderr
    assert [case["status"] for case in json.loads(done.stdout)["cases"]] == ["ok", "timeout", "timeout"]
    assert containers() == before


def test_image_that_can_neither_be_built_nor_pulled(dataset: Path, tmp_path: Path) -> None:
    absent = make_cube(tmp_path / "a", image="localhost:1/nobody/nothing:1", dockerfile=False)
    done = run_cube(dataset, absent)
    assert done.returncode == 15 and "cannot be pulled" in done.stderr, done.stderr
    broken = make_cube(tmp_path / "b")
    (broken.parent / "project" / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo about to fail && exit 7\n")
    done = run_cube(dataset, broken)
    assert done.returncode == 15 and "cannot be built" in done.stderr and "about to fail" in done.stderr
    assert done.stderr.count("error:") == 1


def test_relative_entrypoint_is_explained(dataset: Path, tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "c")
    (folder.parent / "project" / "Dockerfile").write_text(f'FROM {BASE}\nENTRYPOINT ["nowhere/run.sh"]\n')
    done = run_cube(dataset, folder)
    assert done.returncode == 22 and "exit code 127" in done.stderr, done.stderr
    assert "absolute path in ENTRYPOINT" in done.stderr


def test_entrypoint_of_a_task_replaces_the_images(dataset: Path, tmp_path: Path) -> None:
    """mlcube's rule: with an entrypoint of its own a task's name is not among the arguments."""
    tasks = INFER.rstrip() + "\n    entrypoint: /usr/bin/python3 /project/mlcube.py own\n"
    folder = make_cube(
        tmp_path / "c", "print('WORDS', sys.argv[1:3], flush=True)\nfor c in CASES: write(c)", tasks=tasks
    )
    done = run_cube(dataset, folder, f"--storage={tmp_path}/s")
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "s" / "logs").rglob("model-infer.log")).read_text()
    assert "WORDS ['own', '--data_path=/mlcube_io0']" in log


def test_disk_full_while_writing_results(dataset: Path, tmp_path: Path) -> None:
    """A storage of 3 MB that the metrics cube fills up: one error, no results that look complete."""
    storage = tmp_path / "small"
    storage.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", storage]).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        shutil.copytree(ROOT / "mlcubes" / "metrics", tmp_path / "metrics")
        program = tmp_path / "metrics" / "project" / "mlcube.py"
        filler = """
import atexit, os, shutil, sys
def _fill():
    folder = next(os.path.dirname(word.split("=", 1)[1]) for word in sys.argv if word.startswith("--output_path="))
    with open(folder + "/filler", "wb") as file:
        file.write(bytes(max(shutil.disk_usage(folder).free - 12288, 0)))
atexit.register(_fill)
"""
        program.write_text(filler + program.read_text())
        benchmark = limited(tmp_path, output_mb=1)  # type: ignore[arg-type]
        done = medperf("--platform=process", "test", "-b", benchmark, "--allow-foreign-code", "-d", dataset, "-e",
                       tmp_path / "metrics", "-m", make_cube(tmp_path / "c"), f"--storage={storage}")  # fmt: skip
        assert done.returncode == 51, done.stderr
        assert "disk is full" in done.stderr and done.stderr.count("error:") == 1
        assert not list((storage / "results").rglob("*.*"))
    finally:
        subprocess.run(["umount", storage], check=True)
