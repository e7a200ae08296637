"""medperf doctor with a real engine: limits tried in real containers, nothing left behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest

from fedeval.doctor import certificates as doctor_certificates
from fedeval.doctor import engine as doctor_engine
from fedeval.doctor.certificates import check_image_bundle
from fedeval.doctor.finding import Finding
from tests.cube_factory import BASE, ROOT

pytestmark = pytest.mark.docker

RUN = """
from fedeval import cli, doctor
if "doctor" not in {command.name for command in cli.app.registered_commands}:
    doctor.register(cli.app)
cli.main()
"""

TRIED = {
    "limit_memory", "limit_processes", "limit_time", "network", "root_filesystem", "no_new_privileges", "capabilities",
    "seccomp", "user", "init", "tmp", "shared_memory", "inputs", "outputs", "environment", "engine_socket",
}  # fmt: skip


def modest_benchmark(folder: Path, cubes: Path = ROOT / "mlcubes") -> Path:
    """Benchmark 1 with limits that any machine can give."""
    text = (ROOT / "benchmarks" / "1-fets.yaml").read_text().replace("../mlcubes", str(cubes)).split("limits:")[0]
    limits = {part: {"memory_mb": 256, "output_mb": 16} for part in ("data_prep", "infer", "metrics")}
    path = folder / "modest.yaml"
    path.write_text(f"{text}limits: {json.dumps(limits)}\n")
    return path


def what_is_there() -> list[str]:
    """Containers of the doctor and images it made."""
    found = []
    for command in (["ps", "-aq", "--filter", "name=fedeval-doctor"], ["ps", "-aq", "--filter", "name=fedeval-ca"],
                    ["images", "-q", "fedeval-doctor"]):  # fmt: skip
        found += subprocess.run(["docker", *command], capture_output=True, text=True).stdout.split()
    return found


def look(benchmark: Path, storage: Path, **environment: str) -> tuple[int, dict[str, Finding]]:
    """Exit code and findings of the command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, "doctor", "-b", str(benchmark), "--json", "--platform=docker",
         f"--storage={storage}"], capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode and "Traceback" not in done.stderr
    assert "secret" not in done.stdout + done.stderr
    return done.returncode, {finding["name"]: Finding(**finding) for finding in document["findings"]}


def test_limits_hold_on_this_engine_and_nothing_is_left(tmp_path: Path) -> None:
    started = time.monotonic()
    code, found = look(modest_benchmark(tmp_path), tmp_path / "s")
    print(f"doctor took {time.monotonic() - started:.1f} s")
    assert code == 0, [finding for finding in found.values() if finding.state == "failed"]
    assert set(found) >= TRIED | {"engine", "cgroup", "clock_engine", "image_model", "ca_bundle", "ca_image"}
    assert {name: found[name].state for name in TRIED} == dict.fromkeys(TRIED, "ok")
    server = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True)
    assert server.stdout.strip() in found["engine"].measured
    assert found["limit_memory"].measured.startswith("ended at 64 MiB")
    assert not what_is_there() and [path.name for path in tmp_path.iterdir()] == ["modest.yaml"]


def test_benchmark_1_is_held_against_the_memory_of_this_engine(tmp_path: Path) -> None:
    shown = subprocess.run(["docker", "info", "-f", "{{.MemTotal}}"], capture_output=True, text=True)
    code, found = look(ROOT / "benchmarks" / "1-fets.yaml", tmp_path)
    total_mb = int(shown.stdout) >> 20
    assert (found["memory"].state == "failed") == (total_mb < 40960)
    assert code == (60 if "failed" in {finding.state for finding in found.values()} else 0)


def test_without_any_image_one_is_made_and_removed(tmp_path: Path) -> None:
    """An image of nothing but this machine's Python."""
    cubes = tmp_path / "mlcubes"
    for role in ("data_prep", "model", "metrics"):
        manifest = (ROOT / "mlcubes" / role / "mlcube" / "mlcube.yaml").read_text()
        (cubes / role / "mlcube").mkdir(parents=True)
        (cubes / role / "mlcube" / "mlcube.yaml").write_text(manifest.replace("fedeval/fets", "fedeval-test/not-here"))
    _, found = look(modest_benchmark(tmp_path, cubes), tmp_path / "s", FEDEVAL_BASE_IMAGE="fedeval-test/not-here:1")
    assert [found[f"image_{role}"].state for role in ("data_prep", "model", "metrics")] == ["warning"] * 3
    assert {name: found[name].state for name in TRIED} == dict.fromkeys(TRIED, "ok")
    assert found["ca_image"].state == "ok" and "nothing to compare" in found["ca_image"].measured
    assert not what_is_there()


def test_an_authority_that_the_base_image_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = doctor_engine.connect()
    try:
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        text = doctor_certificates._read_from_image(client, str(client.images.get(BASE).id), bundle)
        end = "-----END CERTIFICATE-----\n"
        first, rest = text.split(end, 1)
        (tmp_path / "all.pem").write_text(text)
        assert check_image_bundle(client, {"FEDEVAL_CA_BUNDLE": str(tmp_path / "all.pem")}).state == "ok"
        monkeypatch.setattr(doctor_certificates, "_read_from_image", lambda *arguments: rest)
        found = check_image_bundle(client, {"FEDEVAL_CA_BUNDLE": str(tmp_path / "all.pem")})
        assert found.state == "warning" and "lacks 1 of" in found.measured
        assert "FEDEVAL_REBUILD_BASE=1 scripts/base_image" in found.advice and first.startswith("-----BEGIN")
        monkeypatch.undo()
        monkeypatch.setattr(doctor_certificates, "SYSTEM_BUNDLES", ("/nothing",))
        image = check_image_bundle(client, {"FEDEVAL_CA_BUNDLE": str(tmp_path / "all.pem"), "FEDEVAL_BASE_IMAGE": BASE})
        assert image.state == "ok", "the image names its own bundle"
    finally:
        client.close()
    assert not what_is_there()


def test_an_image_with_another_bundle(tmp_path: Path) -> None:
    """A base image whose bundle is cut to its first half, built for real."""
    tag = f"fedeval-test/half-bundle:{os.getpid()}"
    halve = (
        'RUN ["/usr/bin/python3", "-c", "from pathlib import Path as P; f = P(\'/etc/ssl/certs/ca-certificates.crt\'); '
        "e = '-----END CERTIFICATE-----'; b = f.read_text().split(e); "
        'f.write_text(e.join(b[:len(b) // 2]) + e + chr(10))"]'
    )
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\n{halve}\n")
    done = subprocess.run(["docker", "build", "-q", "-t", tag, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    client = docker.from_env()
    try:
        text = doctor_certificates._read_from_image(client, BASE, "/etc/ssl/certs/ca-certificates.crt")
        (tmp_path / "all.pem").write_text(text)
        found = check_image_bundle(client, {"FEDEVAL_CA_BUNDLE": str(tmp_path / "all.pem"), "FEDEVAL_BASE_IMAGE": tag})
        assert found.state == "warning" and f"{tag} lacks " in found.measured
    finally:
        client.images.remove(tag, force=True)
        client.close()


def test_proxies_of_the_docker_client_reach_no_submission(tmp_path: Path) -> None:
    """Either the runner keeps them out, or doctor says so: `config.json` puts them into every container."""
    (tmp_path / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": "http://u:secret@[::1]:9"}}})
    )
    _, found = look(modest_benchmark(tmp_path), tmp_path / "s", DOCKER_CONFIG=str(tmp_path))
    environment = found["environment"]
    assert environment.state == "ok" or ("HTTP_PROXY" in environment.measured and "config.json" in environment.advice)
