"""medperf doctor on machines where something is broken; each fault is made for real where this machine allows it."""

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from fedeval.benchmark import CHECKOUT, Benchmark, load_benchmark
from fedeval.doctor import engine as doctor_engine
from fedeval.doctor import host as doctor_host
from fedeval.doctor import limits as doctor_limits
from fedeval.doctor import run_doctor
from fedeval.doctor.certificates import check_bundles, host_bundle, load_bundle
from fedeval.doctor.finding import Finding, judge, run_check
from fedeval.doctor.gpu import check_gpus
from fedeval.doctor.probe import MARK
from fedeval.engine.base import Engine, ImageRecord, TaskCall, TaskOutcome
from fedeval.errors import EngineDownError, StorageError
from fedeval.gpu import present_gpus
from fedeval.limits import Limits
from fedeval.nvml import GpuDevice
from fedeval.options import merge_options

RUN = """
from fedeval import cli, doctor
if "doctor" not in {command.name for command in cli.app.registered_commands}:
    doctor.register(cli.app)
cli.main()
"""


def doctor(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", RUN, "doctor", *map(str, arguments)], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip


def modest_benchmark(folder: Path, **infer: float) -> Path:
    """Benchmark 1 with limits that any machine can give."""
    text = (CHECKOUT / "benchmarks" / "1-fets.yaml").read_text()
    text = text.replace("../mlcubes", str(CHECKOUT / "mlcubes")).split("limits:")[0]
    limits = {part: {"memory_mb": 256, "output_mb": 16} for part in ("data_prep", "metrics")}
    path = folder / "modest.yaml"
    path.write_text(f"{text}limits: {json.dumps({**limits, 'infer': {'memory_mb': 256, 'output_mb': 16, **infer}})}\n")
    return path


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return load_benchmark(CHECKOUT / "benchmarks" / "1-fets.yaml")


def by_name(findings: Iterable[Finding]) -> dict[str, Finding]:
    found = list(findings)
    names = [finding.name for finding in found]
    assert len(set(names)) == len(names), names
    for finding in found:
        assert finding.state in ("ok", "warning", "failed")
        assert finding.measured and finding.expected
        assert bool(finding.advice) == (finding.state != "ok"), finding
    return {finding.name: finding for finding in found}


# the command


def test_a_machine_that_lacks_nothing_ends_with_0(tmp_path: Path) -> None:
    done = doctor("-b", modest_benchmark(tmp_path), "--platform=process", f"--storage={tmp_path}/new", "--json")
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert set(document) == {"schema", "created", "fedeval_version", "benchmark", "platform", "findings", "summary",
                             "exit_code"}  # fmt: skip
    assert document["schema"] == "fedeval.doctor/1" and document["platform"] == "process"
    assert document["exit_code"] == document["summary"]["failed"] == 0
    states = [finding["state"] for finding in document["findings"]]
    assert document["summary"] == {state: states.count(state) for state in ("ok", "warning", "failed")}
    found = by_name(Finding(**finding) for finding in document["findings"])
    assert {"cubes", "limit_memory", "limit_time", "network", "storage", "memory", "clock", "gpu"} <= set(found)
    assert done.stderr == "" and not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name != "modest.yaml"]


def test_something_missing_ends_with_60_and_one_error(tmp_path: Path) -> None:
    path = modest_benchmark(tmp_path, memory_mb=1 << 30)
    done = doctor("-b", path, "--platform=process", f"--storage={tmp_path}/s", "--json")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 60
    assert done.stderr.count("error:") == 1 and "failed: memory" in done.stderr
    shown = doctor("-b", path, "--platform=process", f"--storage={tmp_path}/s")
    assert shown.returncode == 60 and "Traceback" not in shown.stderr
    for finding in json.loads(done.stdout)["findings"]:
        assert re.search(rf"{finding['name']} +│ (ok|warning|failed)", shown.stdout), finding
    assert "use a machine with more memory" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "code"), [(("-b", "999"), 10), (("--platform=podmanx",), 2), (("--unknown",), 2), (("-b", "/no"), 10)]
)
def test_wrong_arguments_are_errors_not_findings(arguments: Sequence[str], code: int) -> None:
    done = doctor(*arguments)
    assert done.returncode == code and done.stderr.count("error:") == 1 and done.stdout == ""


def test_no_engine_at_the_socket(tmp_path: Path) -> None:
    path = modest_benchmark(tmp_path)
    done = doctor("-b", path, f"--storage={tmp_path}/s", "--json", DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 60
    found = by_name(Finding(**finding) for finding in json.loads(done.stdout)["findings"])
    assert found["engine"].state == "failed" and "Docker does not answer" in found["engine"].measured
    assert "systemctl start docker" in found["engine"].advice
    assert not {"limits", "network", "image_model"} & set(found), "what was not tried must not be listed"
    assert found["storage"].state == "ok", "the other checks go on"


def test_an_engine_that_accepts_and_stays_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        server.bind("s")
        server.listen(8)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
        started = time.monotonic()
        with pytest.raises(EngineDownError, match="does not answer"):
            doctor_engine.connect(timeout_s=1)
        assert time.monotonic() - started < 5


def test_broken_cubes_are_a_finding(tmp_path: Path) -> None:
    path = modest_benchmark(tmp_path)
    path.write_text(path.read_text().replace("mlcubes/model/mlcube", "mlcubes/nothing"))
    options = merge_options({"storage": tmp_path / "s", "platform": "process"}, {})
    report = run_doctor(str(path), options)
    found = by_name(report.findings)
    assert found["cubes"].state == "failed" and report.exit_code == 60 and found["limit_time"].state == "ok"


def test_a_check_that_breaks_is_a_finding() -> None:
    def break_down() -> Finding:
        raise ZeroDivisionError("by \x1b[31mzero")

    def refuse() -> Finding:
        raise StorageError("the storage", "is gone", "look for it")

    (found,) = run_check("some", break_down)
    assert (found.name, found.state) == ("some", "failed") and "ZeroDivisionError" in found.measured
    assert "\x1b" not in found.measured
    (found,) = run_check("other", refuse)
    assert found.advice == "look for it" and "is gone" in found.measured
    assert "\x1b" not in judge("n", False, "\x1b[2J", "e", "a").measured


# storage and disk


def test_storage_is_fine_and_nothing_is_left(tmp_path: Path) -> None:
    for storage in (tmp_path, tmp_path / "not" / "yet"):
        found = by_name(doctor_host.check_storage(storage))
        assert set(found) == {"storage", "storage_links", "storage_locks", "storage_file_system"}
        assert {finding.state for finding in found.values()} == {"ok"}
        assert not list(tmp_path.iterdir())


def test_storage_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = doctor_host.check_storage(tmp_path / "file" / "s")
    assert found.state == "failed" and "file is a file" in found.measured and "--storage" in found.advice


def test_storage_that_cannot_be_written() -> None:
    (found,) = doctor_host.check_storage(Path("/proc/fedeval"))
    assert found.state == "failed" and found.measured.startswith("/proc/fedeval: ")


def test_storage_over_two_disks(tmp_path: Path) -> None:
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    (tmp_path / "results").symlink_to("/dev/shm")
    found = by_name(doctor_host.check_storage(tmp_path))["storage_file_system"]
    assert found.state == "failed" and found.measured == "on another disk: results"


def with_limits(benchmark: Benchmark, **parts: Limits) -> Benchmark:
    return dataclasses.replace(benchmark, limits={**benchmark.limits, **parts})


def test_disk_space(benchmark: Benchmark, tmp_path: Path) -> None:
    small = Limits(output_mb=1, memory_mb=1)
    modest = with_limits(benchmark, infer=small, metrics=small, data_prep=small)
    huge = Limits(output_mb=1 << 40)
    states = [
        [finding.state for finding in doctor_host.check_disk(chosen, tmp_path / "s", None, 0)]
        for chosen in (modest, with_limits(modest, data_prep=huge), with_limits(modest, infer=huge))
    ]
    assert states == [["ok"], ["warning"], ["failed"]]
    (found,) = doctor_host.check_disk(modest, tmp_path, None, 1 << 40)
    assert found.state == "failed" and "images" in found.expected


def test_disk_of_the_engine(benchmark: Benchmark, tmp_path: Path) -> None:
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    small = Limits(output_mb=1)
    modest = with_limits(benchmark, infer=small, metrics=small, data_prep=small)
    found = by_name(doctor_host.check_disk(modest, tmp_path, Path("/dev/shm"), 1 << 40))
    assert (found["disk_storage"].state, found["disk_images"].state) == ("ok", "failed")


# memory, clock, inotify, sandboxes, libraries


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "engine_mb", "state"),
    [(65536, 60000, None, "ok"), (65536, 20000, None, "warning"), (32768, 30000, None, "failed"),
     (65536, 60000, 8192, "failed")],
)  # fmt: skip
def test_memory(
    benchmark: Benchmark, tmp_path: Path, total_mb: int, free_mb: int, engine_mb: int | None, state: str
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:  {total_mb << 10} kB\nMemFree: 1 kB\nMemAvailable:  {free_mb << 10} kB\n")
    found = doctor_host.check_memory(benchmark, engine_mb and engine_mb << 20, meminfo)
    assert found.state == state and "40960 MiB, the limit of infer" in found.expected


def test_cores(benchmark: Benchmark) -> None:
    wanting = with_limits(benchmark, infer=Limits(cpus=1e6))
    assert doctor_host.check_cpus(benchmark, None).state == "ok"
    assert doctor_host.check_cpus(wanting, None).state == doctor_host.check_cpus(wanting, 64).state == "failed"


def test_clock() -> None:
    assert doctor_host.check_clock(span_s=0.05).state == "ok"
    found = doctor_host.check_clock(now=0.0, span_s=0.0)
    assert found.state == "failed" and "1970" in found.measured and "timedatectl" in found.advice


@pytest.mark.parametrize(("shift_s", "state"), [(0, "ok"), (-20, "warning"), (20, "warning"), (7200, "failed")])
def test_clock_of_the_engine(shift_s: float, state: str) -> None:
    now = time.time()
    for form in ("{}Z", "{}.123456789Z", "{}+00:00", "{}.123456789+00:00"):
        stated = form.format(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now + shift_s)))
        found = doctor_engine._check_engine_clock(stated, now, now + 0.01)
        assert found.state == state, stated


@pytest.mark.parametrize(
    ("info", "name", "state"),
    [({"MemoryLimit": True, "PidsLimit": True, "SwapLimit": True}, "cgroup", "ok"),
     ({"MemoryLimit": True, "PidsLimit": False, "SwapLimit": True}, "cgroup", "failed"),
     ({"MemoryLimit": True, "PidsLimit": True, "SwapLimit": False}, "cgroup_swap", "warning")],
)  # fmt: skip
def test_cgroups_that_the_engine_tells_of(info: dict[str, Any], name: str, state: str) -> None:
    assert by_name(doctor_engine._check_cgroups(info))[name].state == state


def test_inotify(tmp_path: Path) -> None:
    assert doctor_host.check_inotify(tmp_path).name == "inotify"
    if sys.platform == "linux":
        assert "watches allowed" in doctor_host.check_inotify(tmp_path / "not" / "yet").measured


def test_sandboxes_matter_only_to_the_engine_that_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    states = {
        platform: {found.name: found.state for found in doctor_host.check_sandboxes(platform)}
        for platform in ("docker", "process", "singularity")
    }
    assert states["docker"] == {"bubblewrap": "ok", "apptainer": "ok"}
    assert states["process"] == {"bubblewrap": "warning", "apptainer": "ok"}
    assert states["singularity"] == {"bubblewrap": "ok", "apptainer": "failed", "user_namespaces": "failed"}


def test_bubblewrap_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(doctor_host.check_sandboxes("process"))["bubblewrap"]
    assert found.state == "warning" and "No permissions" in found.measured


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SimpleITK" in doctor_host.extra_requirements("cubes")
    assert {"libraries_toy", "libraries_cubes"} == set(by_name(doctor_host.check_libraries("process")))
    monkeypatch.setattr(doctor_host, "extra_requirements", lambda extra: ["numpy", "no-such-distribution"])
    found = by_name(doctor_host.check_libraries("process"))
    assert found["libraries_cubes"].state == "failed" and found["libraries_toy"].state == "warning"
    assert found["libraries_cubes"].measured == "missing: no-such-distribution"


# certificates


AUTHORITY = """[ca]
default_ca = own
[own]
new_certs_dir = .
database = index.txt
default_md = sha256
policy = any
rand_serial = yes
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[authority]
basicConstraints = critical,CA:TRUE
[leaf]
basicConstraints = critical,CA:FALSE
"""


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with")


def make_certificate(folder: Path, name: str, ends: str = "20991231235959Z", kind: str = "authority") -> str:
    """A self-signed certificate, by the openssl command."""
    (folder / "ca.cnf").write_text(AUTHORITY)
    (folder / "index.txt").write_text("")
    request = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
               f"/O=Test/CN={name}", "-keyout", "key.pem", "-out", "request.pem"]  # fmt: skip
    sign = ["ca", "-batch", "-notext", "-selfsign", "-config", "ca.cnf", "-keyfile", "key.pem", "-in", "request.pem",
            "-out", "out.pem", "-extensions", kind, "-startdate", "20200101000000Z", "-enddate", ends]  # fmt: skip
    for command in (request, sign):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return (folder / "out.pem").read_text()


def check_file(path: Path) -> Finding:
    (found,) = check_bundles({"PIP_CERT": str(path), "SSL_CERT_FILE": str(path)})
    assert found.measured.startswith("PIP_CERT SSL_CERT_FILE: ")
    return found


@needs_openssl
def test_bundle_states(tmp_path: Path) -> None:
    good, old = make_certificate(tmp_path, "Good Proxy"), make_certificate(tmp_path, "Old Proxy", "20240101000000Z")
    leaf = make_certificate(tmp_path, "Leaf", kind="leaf")
    contents = {
        "good": (good, "ok", "1 certificates"),
        "expired": (old, "failed", "1 expired (e.g. Old Proxy)"),
        "mixed": (good + old, "warning", "2 certificates, 1 expired"),
        "public": (good * 25 + old, "ok", "26 certificates, 1 expired"),
        "leaf": (leaf, "failed", "no certificate authority in it"),
        "both": (good + leaf, "ok", "1 certificates"),
        "empty": ("", "failed", "no certificate in it"),
        "broken": (good.replace("MII", "???", 1).replace("MIIB", "????"), "failed", "is no certificate"),
        "cut": (good[: len(good) // 2], "failed", "no certificate in it"),
    }
    for name, (text, state, measured) in contents.items():
        (tmp_path / name).write_text(text)
        found = check_file(tmp_path / name)
        assert found.state == state and measured in found.measured, (name, found)
    missing = check_file(tmp_path / "nothing")
    assert missing.state == "failed" and "No such file" in missing.measured and "PIP_CERT" in missing.advice


def test_no_bundle_is_fine() -> None:
    (found,) = check_bundles({"HTTPS_PROXY": "http://user:secret@localhost:1"})
    assert found.state == "ok" and "a proxy is set" in found.measured and "secret" not in found.measured


def test_which_bundle_goes_into_the_base_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert host_bundle({"FEDEVAL_CA_BUNDLE": str(tmp_path / "a"), "PIP_CERT": "/nothing"}) == tmp_path / "a"
    assert host_bundle({"FEDEVAL_CA_BUNDLE": "/nothing", "PIP_CERT": str(tmp_path / "a")}) == tmp_path / "a"


@needs_openssl
def test_certificates_are_told_apart_by_content(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "same"), make_certificate(tmp_path, "same")
    found = load_bundle(first + second + first)
    assert len({certificate.fingerprint for certificate in found}) == 2
    assert {certificate.subject for certificate in found} == {"same"}


# GPUs


def test_a_driver_without_its_library(benchmark: Benchmark, tmp_path: Path) -> None:
    """The kernel's driver is there, NVML is not: a fake /proc, read by the real code."""
    card = tmp_path / "driver" / "nvidia" / "gpus" / "0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA A100\nGPU UUID: \t GPU-1\n")
    (tmp_path / "driver" / "nvidia" / "version").write_text("NVRM version: NVIDIA x86_64 Kernel  535.104.05  Sat\n")

    class Broken:
        class NVMLError(Exception):
            pass

        def nvmlInit(self) -> None:
            raise self.NVMLError("Driver/library version mismatch")

    devices = present_gpus(cast(Any, Broken()), tmp_path)
    assert len(devices) == 1
    found = by_name(check_gpus(benchmark, devices, {"runc", "nvidia"}))
    assert found["gpu_0"].state == "failed" and "nvidia-smi" in found["gpu_0"].advice
    assert "535.104.05" in found["gpu_0"].measured


def test_gpus(benchmark: Benchmark) -> None:
    large, small = GpuDevice(0, "GPU-1", "A", 24000.0, "535"), GpuDevice(1, "GPU-2", "B", 8000.0, "535")
    found = by_name(check_gpus(benchmark, [large, small], {"runc"}))
    assert [found[name].state for name in ("gpu_0", "gpu_1", "gpu_runtime")] == ["ok", "failed", "failed"]
    for runtimes in ({"runc", "nvidia"}, {"cdi"}, {"nvidia-container-runtime-hook"}):
        assert by_name(check_gpus(benchmark, [large], runtimes))["gpu_runtime"].state == "ok"
    assert set(by_name(check_gpus(benchmark, [large], None))) == {"gpu_0"}, "no containers, no runtime"
    states = [by_name(check_gpus(benchmark, [], None, require))["gpu"].state for require in (False, True)]
    assert states == ["warning", "failed"]


# limits


class LooseEngine:
    """An engine that runs the probe and enforces nothing but time."""

    name = "docker"
    version = "0"
    not_enforced: tuple[str, ...] = ()

    def run(self, call: TaskCall) -> TaskOutcome:
        program = call.manifest.build_context / "mlcube.py"
        command = [sys.executable, str(program), *call.invocation.host_arguments]
        environment = {**os.environ, "HTTP_PROXY": "http://user:secret@localhost:1"}
        try:
            done = subprocess.run(command, capture_output=True, env=environment, timeout=call.budget_s)
        except subprocess.TimeoutExpired:
            return TaskOutcome(0, None, 0, 0, None, ())
        call.log_file.write_bytes(done.stdout)
        return TaskOutcome(done.returncode, None, 0, 0, None, ())


def test_an_engine_that_enforces_nothing_is_found_out(tmp_path: Path) -> None:
    prober = doctor_limits.Prober(
        cast(Engine, LooseEngine()), ImageRecord("i", "sha256:0", "present"), (), frozenset(), tmp_path
    )
    found = by_name(doctor_limits.check_limits(prober))
    for name in ("limit_memory", "limit_processes", "limit_time", "network", "environment", "tmp", "shared_memory"):
        assert found[name].state == "failed", found[name]
    if os.getuid() == 0:
        for name in ("user", "root_filesystem", "capabilities", "inputs"):
            assert found[name].state == "failed", found[name]
    assert "HTTP_PROXY" in found["environment"].measured and "config.json" in found["environment"].advice
    assert "secret" not in str(found) and found["outputs"].state == "ok"


class SilentEngine(LooseEngine):
    """An engine in whose image no Python can be started."""

    def run(self, call: TaskCall) -> TaskOutcome:
        call.log_file.write_text(f"not {MARK}\n")
        return TaskOutcome(127, None, 0, 0, None, ("python3: not found",))


def test_a_probe_that_cannot_start_is_told(tmp_path: Path) -> None:
    prober = doctor_limits.Prober(
        cast(Engine, SilentEngine()), ImageRecord("i", "sha256:0", "present"), (), frozenset(), tmp_path
    )
    (found,) = doctor_limits.check_limits(prober)
    assert found.state == "failed" and "python3: not found" in found.measured


def test_the_process_engine_is_tried_for_real(tmp_path: Path) -> None:
    options = merge_options({"storage": tmp_path / "s", "platform": "process"}, {})
    report = run_doctor(str(modest_benchmark(tmp_path)), options)
    found = by_name(report.findings)
    assert found["limit_time"].state == "ok" and found["environment"].state == "ok"
    for name in ("limit_memory", "limit_processes", "network", "seccomp"):
        assert found[name].state in ("ok", "warning"), "whoever chose it was told"
    if doctor_host._check_bubblewrap(True).state == "ok":
        for name in ("network", "root_filesystem", "inputs", "tmp", "no_new_privileges"):
            assert found[name].state == "ok", found[name]
