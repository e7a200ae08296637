"""``medperf doctor``: whether this machine can run a benchmark, and for each line that fails what to do."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import docker
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedeval.benchmark import Benchmark, resolve_benchmark
from fedeval.cube import CubeManifest, load_cube
from fedeval.doctor import certificates as doctor_certificates
from fedeval.doctor import engine as doctor_engine
from fedeval.doctor import host as doctor_host
from fedeval.doctor import limits as doctor_limits
from fedeval.doctor.engine import EngineFacts
from fedeval.doctor.finding import Finding, State, run_check
from fedeval.engine.base import ImageRecord
from fedeval.engine.docker_engine import DockerEngine
from fedeval.engine.process_engine import ProcessEngine
from fedeval.engine.singularity_engine import SingularityEngine
from fedeval.errors import DoctorError
from fedeval.options import Options, merge_options
from fedeval.summary import print_error
from fedeval.view import RunView

_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True)
class DoctorReport:
    """All findings about one machine for one benchmark.

    Attributes
    ----------
    benchmark : Benchmark
        What was asked for.
    platform : str
        Engine that was looked at.
    findings : tuple of Finding
        In a fixed order.
    """

    benchmark: Benchmark
    platform: str
    findings: tuple[Finding, ...]

    def count(self, state: State) -> int:
        """Number of findings in a state."""
        return sum(finding.state == state for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 when nothing failed (warnings allowed), else that of `DoctorError`."""
        return 0 if self.error is None else self.error.exit_code

    @property
    def error(self) -> DoctorError | None:
        """The one error that the command ends with; None when nothing failed."""
        failed = [found for found in self.findings if found.state == "failed"]
        if not failed:
            return None
        first = failed[0]
        return DoctorError(
            f"this machine cannot run benchmark {self.benchmark.id} ({self.benchmark.name})",
            f"failed: {', '.join(found.name for found in failed)}; {first.name}: {first.measured}; "
            f"expected {first.expected}", first.advice,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "schema": "fedeval.doctor/1",
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "fedeval_version": version("fedeval"),
            "benchmark": {"id": self.benchmark.id, "name": self.benchmark.name, "digest": self.benchmark.digest},
            "platform": self.platform,
            "findings": [finding.to_dict() for finding in self.findings],
            "summary": {state: self.count(state) for state in _STYLES},
            "exit_code": self.exit_code,
        }


@dataclass
class _Machine:
    """What the checks of one run share; filled from the engine's answer."""

    benchmark: Benchmark
    options: Options
    platform: str
    cubes: dict[str, CubeManifest] = field(default_factory=dict)
    client: docker.DockerClient | None = None
    facts: EngineFacts | None = None
    absent_images: int = 0


def run_doctor(benchmark: str, options: Options, view: RunView | None = None) -> DoctorReport:
    """Look at this machine; nothing that is tried is left behind, and no network address is asked for.

    Parameters
    ----------
    benchmark : str
        Number or file.
    options : Options
        Storage and platform; without a platform docker is looked at, because strangers' submissions need it.
    view : RunView, optional
        Shows the steps.

    Raises
    ------
    BenchmarkError
        The benchmark is unknown or broken: the one thing that is no finding.
    """
    view = view or RunView(quiet=True)
    machine = _Machine(resolve_benchmark(benchmark), options, options.platform or "docker")
    findings: list[Finding] = []
    stages: dict[str, Callable[[_Machine], Iterator[Finding]]] = {
        "benchmark and engine": _engine_stage, "limits, tried": _limits_stage, "this machine": _machine_stage,
    }  # fmt: skip
    try:
        for title, stage in stages.items():
            with view.step(f"doctor: {title}"):
                findings += stage(machine)
    finally:
        if machine.client is not None:
            machine.client.close()
    return DoctorReport(machine.benchmark, machine.platform, tuple(findings))


def _engine_stage(machine: _Machine) -> Iterator[Finding]:
    yield from run_check("cubes", lambda: _load_cubes(machine))
    if machine.platform != "docker":
        return
    yield from run_check("engine", lambda: _meet_engine(machine))
    if machine.client is not None:
        client = machine.client
        found = run_check("images", lambda: doctor_engine.check_images(client, machine.cubes))
        machine.absent_images = sum(finding.state != "ok" for finding in found)
        yield from found
    else:
        machine.absent_images = len(machine.cubes)


def _load_cubes(machine: _Machine) -> Finding:
    roles = {"data_prep": "data_prep", "model": "reference_model", "metrics": "metrics"}
    for role, key in roles.items():
        machine.cubes[role] = load_cube(machine.benchmark.cubes[key])
    return Finding("cubes", "ok", ", ".join(cube.name for cube in machine.cubes.values()), "three readable cubes")


def _meet_engine(machine: _Machine) -> Iterable[Finding]:
    try:
        client = doctor_engine.connect()
    except (docker.errors.DockerException, OSError):
        with DockerEngine() as engine:  # raises the error that a run would end with
            return [Finding("engine", "warning", f"docker {engine.version}: answered late", "an engine that answers")]
    machine.facts = doctor_engine.load_facts(client)
    machine.client = client
    return doctor_engine.check_engine(machine.facts)


def _limits_stage(machine: _Machine) -> Iterator[Finding]:
    if machine.platform == "docker" and machine.client is None:
        return
    yield from run_check("limits", lambda: _try_limits(machine))


def _try_limits(machine: _Machine) -> list[Finding]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(doctor_limits.probe_folder(machine.options.storage))
        if machine.platform == "singularity":
            return _about_singularity(machine.options.storage)
        if machine.platform == "process":
            process = stack.enter_context(ProcessEngine(folder, machine.options.storage))
            image = ImageRecord("doctor", "sha256:" + "0" * 64, "checkout")
            prober = doctor_limits.Prober(process, image, (), frozenset(), folder)
        else:
            assert machine.client is not None
            engine = stack.enter_context(DockerEngine())
            names = doctor_engine.probe_images(machine.cubes)
            prober = stack.enter_context(doctor_engine.open_prober(machine.client, engine, names, folder))
        return list(doctor_limits.check_limits(prober))


def _about_singularity(storage: Path) -> list[Finding]:
    """Conversion takes a minute or more, so the limits are not tried there: what the engine says of itself."""
    with SingularityEngine(storage / "cubes") as engine:
        lacking = ", ".join(engine.not_enforced)
        return [
            Finding("engine", "ok", f"{engine.name} {engine.version}", "apptainer or singularity"),
            Finding("limits", "warning", f"not enforced: {lacking}" if lacking else "not tried", "limits that hold",
                    "run strangers' submissions with --platform=docker, or below a batch system's own limits"),
        ]  # fmt: skip


def _machine_stage(machine: _Machine) -> Iterator[Finding]:
    benchmark, storage, facts = machine.benchmark, machine.options.storage, machine.facts
    info: Mapping[str, Any] = facts.info if facts else {}
    client = machine.client
    root = facts.root if facts else None
    checks: dict[str, Callable[[], Finding | Iterable[Finding]]] = {
        "storage": lambda: doctor_host.check_storage(storage),
        "disk_storage": lambda: doctor_host.check_disk(benchmark, storage, root, _images_mb(machine)),
        "memory": lambda: doctor_host.check_memory(benchmark, info.get("MemTotal")),
        "cpus": lambda: doctor_host.check_cpus(benchmark, info.get("NCPU")),
        "gpu": lambda: _look_for_gpus(benchmark, facts, machine.options.require_gpu),
        "ca_bundle": lambda: doctor_certificates.check_bundles(os.environ),
        "clock": doctor_host.check_clock,
        "inotify": lambda: doctor_host.check_inotify(storage),
        "sandboxes": lambda: doctor_host.check_sandboxes(machine.platform),
        "libraries": lambda: doctor_host.check_libraries(machine.platform),
    }
    if client is not None:
        checks["ca_image"] = lambda: doctor_certificates.check_image_bundle(client, os.environ)
    for name, check in checks.items():
        yield from run_check(name, check)


def _images_mb(machine: _Machine) -> int:
    """Room for images: those to come and one more on docker, all of them as SIF files; the process engine has none."""
    count = {"docker": machine.absent_images + 1, "singularity": len(machine.cubes)}.get(machine.platform, 0)
    return count * doctor_host.IMAGE_MB


def _look_for_gpus(benchmark: Benchmark, facts: EngineFacts | None, require: bool) -> Iterable[Finding]:
    from fedeval.doctor.gpu import check_gpus
    from fedeval.gpu import present_gpus

    return check_gpus(benchmark, present_gpus(timeout_s=5), facts.runtimes if facts else None, require)


def print_report(report: DoctorReport) -> None:
    """A table on stdout, then one sentence."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    title = f"doctor: benchmark {report.benchmark.id} ({report.benchmark.name}) with --platform={report.platform}"
    table = Table(title=Text(title), title_justify="left")
    for header, ratio in (("check", 4), ("state", 2), ("measured", 8), ("expected", 8), ("what to do", 9)):
        table.add_column(header, ratio=ratio, overflow="fold")
    for found in report.findings:
        state = Text(found.state, style=_STYLES[found.state])
        table.add_row(Text(found.name), state, Text(found.measured), Text(found.expected), Text(found.advice))
    console.print(table)
    print(f"{report.count('ok')} ok, {report.count('warning')} warnings, {report.count('failed')} failed")


def doctor_command(
    context: typer.Context,
    benchmark: Annotated[str, typer.Option("-b", "--benchmark", help="Number, or a benchmark file.")] = "1",
    platform: Annotated[str | None, typer.Option("--platform", help="docker, singularity or process.")] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Default ~/.medperf, or MEDPERF_STORAGE.")] = None,
    require_gpu: Annotated[bool | None, typer.Option("--require-gpu", help="A machine without a GPU fails.")] = None,
    json_: Annotated[bool | None, typer.Option("--json", help="One JSON document on stdout.")] = None,
) -> int:
    """Say whether this machine can run a benchmark, and what to do where it cannot; exit code 60 where it cannot."""
    own = {"platform": platform, "storage": storage, "require_gpu": require_gpu, "json": json_}
    options = merge_options({**(context.obj or {}), **{key: value for key, value in own.items() if value is not None}})
    report = run_doctor(benchmark, options, RunView(quiet=options.json))
    if options.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print_report(report)
    if report.error is not None:
        print_error(report.error)
    return report.exit_code


def register(app: typer.Typer) -> None:
    """Add the command ``doctor``."""
    app.command("doctor")(doctor_command)
