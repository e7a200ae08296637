"""``medperf doctor``: whether the limits hold. They are tried, not asked for.

The probe runs through the same engine code as a submission does, so what is seen here is what holds for a submission.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval.cube import CubeManifest
from fedeval.doctor.finding import Finding, judge
from fedeval.doctor.probe import MARK
from fedeval.engine.base import Engine, ImageRecord, TaskCall, TaskOutcome, base_environment
from fedeval.invocation import Binding, Invocation
from fedeval.limits import Limits

PROBE_LIMITS = Limits(memory_mb=512, pids=64, shm_mb=48, tmp_mb=32, output_mb=16, log_mb=1)
"""Small, so that each one is quickly reached."""

MEMORY_PROBE_MB = 64
TIME_PROBE_S = 0.5
SLACK_S = 5.0
LOOK_S = 10.0

PROBE = Path(__file__).with_name("probe.py")
_OWN_NAMES = {
    "HOSTNAME", "PATH", "LC_CTYPE", "PWD", "SHLVL", "_", "PYTHONDONTWRITEBYTECODE", "container",
    "NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
}  # fmt: skip
"""What the engine and the runner set themselves; it may stand in this machine's environment too."""


@dataclass(frozen=True)
class Prober:
    """An engine and something with a Python in it that the engine can start.

    Attributes
    ----------
    engine : Engine
        Runs the probe.
    image : ImageRecord
        What is started.
    python : tuple of str
        The Python inside, with its flags; empty when the engine takes the one of this process.
    environment : frozenset of str
        Names of variables that the image itself brings.
    folder : Path
        Scratch folder in the storage.
    """

    engine: Engine
    image: ImageRecord
    python: tuple[str, ...]
    environment: frozenset[str]
    folder: Path

    def run(self, words: Sequence[str], limits: Limits, budget_s: float) -> tuple[TaskOutcome, dict[str, Any] | None]:
        """Run the probe once; how it ended, and what it said (None when it came to say nothing)."""
        data, out, project = (self.folder / name for name in ("data", "out", "project"))
        for folder in (data, out, project):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        (project / "mlcube.py").write_text(PROBE.read_text(encoding="utf-8"), encoding="utf-8")
        inside = [{"DATA": "/mlcube_io0", "OUT": "/mlcube_io1"}.get(word, word) for word in words]
        outside = [{"DATA": str(data), "OUT": str(out)}.get(word, word) for word in words]
        own = (Binding(data, "/mlcube_io0", True), Binding(out, "/mlcube_io1", False))
        invocation = Invocation(
            "doctor", "doctor", ("-c", PROBE.read_text(encoding="utf-8"), *inside), tuple(outside),
            own, (out,), self.python,
        )  # fmt: skip
        manifest = CubeManifest(
            self.folder, "doctor", self.image.reference, project, project / "Dockerfile", accelerator_count=0, tasks={}
        )
        log = self.folder / "probe.log"
        outcome = self.engine.run(TaskCall(manifest, self.image, invocation, limits, budget_s, log))
        return outcome, _said(log)


def _said(log: Path) -> dict[str, Any] | None:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    return None


def check_limits(prober: Prober) -> Iterator[Finding]:
    """Try memory, time and processes, and look at the isolation from inside."""
    strict = prober.engine.name == "docker"
    outcome, seen = prober.run(("look", "DATA", "OUT", str(PROBE_LIMITS.pids * 2)), PROBE_LIMITS, LOOK_S)
    if seen is None:
        last = outcome.last_lines[-1] if outcome.last_lines else "no output"
        yield judge(
            "limits", False, f"the probe in {prober.image.reference} ended with {outcome.exit_code}: {last}",
            "a probe that can look around", "make the cubes' images, then run doctor again: scripts/build_cubes",
        )  # fmt: skip
        return
    yield from _soften(_look(prober, seen), strict)
    yield from _soften(_try_memory(prober), strict)
    yield from _soften(_try_time(prober), strict=True)


def _soften(findings: Iterable[Finding], strict: bool) -> Iterator[Finding]:
    """What an engine without containers does not enforce is a warning: whoever chose it was told."""
    for found in findings:
        if found.state == "failed" and not strict:
            advice = "not enforced by this engine; run strangers' submissions with --platform=docker"
            found = Finding(found.name, "warning", found.measured, found.expected, advice)
        yield found


_ADVICE = "the engine ignores what the runner asks for: another engine or runtime is needed for strangers' submissions"


def _look(prober: Prober, seen: Mapping[str, Any]) -> Iterator[Finding]:
    limits = PROBE_LIMITS
    count = seen["processes"]
    found = f"refused at {count}" if count else f"{2 * limits.pids} started"
    yield judge(
        "limit_processes", count is not None and count <= limits.pids, f"{found} under a limit of {limits.pids}",
        "a fork above the limit is refused", _ADVICE,
    )  # fmt: skip
    yield judge("network", seen["interfaces"] == ["lo"], ", ".join(seen["interfaces"]), "only lo", _ADVICE)
    sealed = seen["root_read_only"] and not seen["writable"]
    found = "read-only" if sealed else f"writable: {', '.join(seen['writable']) or 'parts of it'}"
    yield judge("root_filesystem", sealed, found, "read-only", _ADVICE)
    found = f"NoNewPrivs {seen['no_new_privileges']}"
    yield judge("no_new_privileges", seen["no_new_privileges"] == "1", found, "NoNewPrivs 1", _ADVICE)
    none = int(seen["capabilities"] or "1", 16) == 0
    yield judge("capabilities", none, f"CapEff {seen['capabilities']}", "none", _ADVICE)
    yield judge(
        "seccomp", seen["seccomp"] == "2", f"mode {seen['seccomp']}", "mode 2 (a filter)",
        "run the engine with its default seccomp profile, on a kernel with CONFIG_SECCOMP_FILTER",
    )  # fmt: skip
    yield judge("user", seen["uid"] != 0, f"uid {seen['uid']}, gid {seen['gid']}", "not root", _ADVICE)
    init = "init" in str(seen["first_process"]) or str(seen["first_process"]) in ("tini", "catatonit", "bwrap")
    yield judge("init", init, f"process 1 is {seen['first_process']}", "an init that reaps orphans", _ADVICE, "warning")
    yield from _look_at_folders(prober, seen)


def _look_at_folders(prober: Prober, seen: Mapping[str, Any]) -> Iterator[Finding]:
    for name, key, size in (("tmp", "tmp_mb", PROBE_LIMITS.tmp_mb), ("shared_memory", "shm_mb", PROBE_LIMITS.shm_mb)):
        good = seen[key] is not None and seen[key] <= size * 1.01
        yield judge(name, good, f"{seen[key]} MiB of {size}", "a size of its own", _ADVICE)
    yield judge("inputs", not seen["inputs_writable"], "writable" if seen["inputs_writable"] else "read-only",
                "read-only", _ADVICE)  # fmt: skip
    back = (prober.folder / "out" / "seen-from-inside").is_file()
    yield judge(
        "outputs", bool(seen["outputs_writable"] and back),
        "written inside, seen outside" if back else "what was written inside is not seen here",
        "the engine works on this machine's storage",
        "the storage must lie on a disk that the engine shares: choose one with --storage, or a local engine",
    )  # fmt: skip
    own = {*prober.environment, *base_environment(""), *_OWN_NAMES}
    foreign = [
        name for name in seen["environment"]
        if name not in own and (name in os.environ or "proxy" in name.lower())
    ]  # fmt: skip
    yield judge(
        "environment", not foreign, f"from outside: {', '.join(foreign)}" if foreign else "nothing from outside",
        "nothing of this machine's environment",
        "remove 'proxies' from the docker client's config.json for this user" if any("proxy" in name.lower()
        for name in foreign) else _ADVICE,
    )  # fmt: skip
    yield judge("engine_socket", not seen["sockets"], ", ".join(seen["sockets"]) or "not to be seen",
                "not to be seen", _ADVICE)  # fmt: skip


def _try_memory(prober: Prober) -> Iterator[Finding]:
    limits = Limits(memory_mb=MEMORY_PROBE_MB, pids=64, shm_mb=8, tmp_mb=8, log_mb=1)
    outcome, said = prober.run(("memory", str(4 * MEMORY_PROBE_MB)), limits, LOOK_S)
    by_kernel = outcome.ended_by is not None and outcome.ended_by.name == "memory"
    refused = prober.engine.name != "docker" and said is None and outcome.exit_code != 0
    taken = f"{4 * MEMORY_PROBE_MB} MiB taken under a limit of {MEMORY_PROBE_MB}"
    measured = (
        f"ended at {MEMORY_PROBE_MB} MiB after {outcome.wall_s:.1f} s" if by_kernel
        else f"refused at {MEMORY_PROBE_MB} MiB, in each process alone" if refused
        else taken if said else f"exit code {outcome.exit_code}, not marked as out of memory"
    )  # fmt: skip
    yield judge("limit_memory", by_kernel or refused, measured, "the kernel ends it at the limit", _ADVICE)


def _try_time(prober: Prober) -> Iterator[Finding]:
    outcome, _ = prober.run(("stay", "30"), PROBE_LIMITS, TIME_PROBE_S)
    late = outcome.ended_by is not None and outcome.ended_by.name == "time"
    yield judge(
        "limit_time", late and outcome.wall_s < TIME_PROBE_S + SLACK_S,
        f"gone {outcome.wall_s - TIME_PROBE_S:.2f} s after the limit" if late else f"exit code {outcome.exit_code}",
        f"gone within {SLACK_S:g} s, whatever signals it ignores", "the engine is overloaded: look at its log",
    )  # fmt: skip


@contextmanager
def probe_folder(storage: Path) -> Iterator[Path]:
    """A scratch folder on the storage's disk that is gone afterwards; elsewhere where that cannot be written."""
    base = nearest_folder(storage)
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=base if os.access(base, os.W_OK) else None) as folder:
        yield Path(folder)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
