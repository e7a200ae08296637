"""``medperf doctor``: this machine without its container engine. Storage, disk, memory, clock, sandboxes, libraries."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedeval.benchmark import Benchmark
from fedeval.doctor.finding import Finding, State, judge
from fedeval.doctor.limits import nearest_folder

RELEASED = datetime(2025, 1, 1, tzinfo=UTC)
"""No release is older, so no right clock shows less."""

IMAGE_MB = 1024
"""Room for one cube's image that is not here yet; they are well below it."""

_SPARE_MB = 64
_PARTS = ("data", "cubes", "results", "logs", "predictions", "tmp")
_TOOL_TIMEOUT_S = 10


def check_storage(storage: Path) -> Iterator[Finding]:
    """Writable, one file system, with hard links and locks; what is tried is removed again."""
    other = "choose another folder with --storage DIR or MEDPERF_STORAGE"
    base = nearest_folder(storage)
    blocked = next((path for path in (storage, *storage.parents) if path.exists() and not path.is_dir()), None)
    try:
        if blocked is not None:
            raise NotADirectoryError(20, f"{blocked.name} is a file")
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=base) as folder:
            first = Path(folder) / "first"
            with first.open("w") as file:
                file.write("written\n")
                file.flush()
                os.fsync(file.fileno())
            first.replace(Path(folder) / "renamed")
            tried = [_try_link(Path(folder)), _try_lock(Path(folder))]
    except OSError as err:
        yield judge("storage", False, f"{storage}: {err.strerror}", "a folder that can be written", other)
        return
    made = "writable" if storage.is_dir() else "writable; it will be made"
    yield Finding("storage", "ok", f"{storage}: {made}", "a folder that can be written")
    yield from tried
    devices = {part: (storage / part).stat().st_dev for part in _PARTS if (storage / part).is_dir()}
    elsewhere = [part for part, device in devices.items() if device != base.stat().st_dev]
    yield judge(
        "storage_file_system", not elsewhere, f"on another disk: {', '.join(elsewhere)}" if elsewhere else "one",
        "one file system, so that results appear whole", "move the whole storage instead: --storage DIR",
    )  # fmt: skip


def _try_link(folder: Path) -> Finding:
    try:
        os.link(folder / "renamed", folder / "linked")
        refused = ""
    except OSError as err:
        refused = f"refused: {err.strerror}"
    return judge(
        "storage_links", not refused, refused or "made", "hard links, so that cases need not be copied",
        "it works with copies: keep room for the data twice, or use a disk with hard links", "warning",
    )  # fmt: skip


def _try_lock(folder: Path) -> Finding:
    """A second exclusive lock on one file must be refused."""
    path = folder / "renamed"
    with path.open() as first, path.open() as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            measured = f"refused: {err.strerror}"
        else:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                measured = "two at once"
            except BlockingIOError:
                measured = "exclusive"
    return judge(
        "storage_locks", measured == "exclusive", measured, "exclusive locks (flock), so that two runs may share it",
        "mount the share with locks (NFS: without nolock), or use a local disk",
    )  # fmt: skip


def check_disk(benchmark: Benchmark, storage: Path, engine_root: Path | None, images_mb: int) -> Iterator[Finding]:
    """Free space against what the benchmark's tasks may leave, and against images that are not here yet.

    Parameters
    ----------
    engine_root : Path or None
        Where the engine keeps images; None when they would lie in the storage.
    images_mb : int
        Room for images that are not here yet, in MiB.
    """
    base = nearest_folder(storage)
    own = [benchmark.limits[part].output_mb for part in ("infer", "metrics")]
    needed, wished = sum(own) + _SPARE_MB, benchmark.limits["data_prep"].output_mb
    one_disk = engine_root is None or not engine_root.is_dir() or engine_root.stat().st_dev == base.stat().st_dev
    needed += images_mb if one_disk else 0
    free = shutil.disk_usage(base).free >> 20
    parts = f"outputs of a model {own[0]}, of metrics {own[1]}"
    parts += f", images {images_mb}" if one_disk and images_mb else ""
    yield judge(
        "disk_storage", free >= needed + wished, f"{free} MiB free",
        f"{needed} MiB ({parts}) and {wished} MiB while data are prepared",
        "free some space, or choose another disk with --storage DIR" if free < needed
        else "enough for data that are prepared; watch it while large data are prepared",
        "failed" if free < needed else "warning",
    )  # fmt: skip
    if not one_disk and engine_root is not None:
        free = shutil.disk_usage(engine_root).free >> 20
        yield judge(
            "disk_images", free >= images_mb, f"{free} MiB free at {engine_root}", f"{images_mb} MiB for images",
            "free some space: docker image prune, or move the engine's data-root",
        )  # fmt: skip


def check_memory(benchmark: Benchmark, engine_bytes: int | None, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory against the largest limit; a smaller machine would end submissions that the benchmark allows."""
    found = {
        match.group(1): int(match.group(2)) >> 10
        for match in re.finditer(r"^(\w+):\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    }
    part, limits = max(benchmark.limits.items(), key=lambda item: item[1].memory_mb)
    total, free = found["MemTotal"], found["MemAvailable"]
    if engine_bytes:
        total = min(total, engine_bytes >> 20)
    state: State = "failed" if total < limits.memory_mb else "warning"
    advice = (
        "use a machine with more memory: here a submission ends that the benchmark allows; toy cases can be tested"
        if state == "failed" else "end other programs before a run"
    )  # fmt: skip
    return judge(
        "memory", min(total, free) >= limits.memory_mb, f"{total} MiB, {free} MiB of it free",
        f"{limits.memory_mb} MiB, the limit of {part}", advice, state,
    )  # fmt: skip


def check_cpus(benchmark: Benchmark, engine_cpus: int | None) -> Finding:
    """Cores against the largest share that a limit grants."""
    here = engine_cpus or os.cpu_count() or 1
    wanted = max((limits.cpus or 1 for limits in benchmark.limits.values()), default=1)
    return judge("cpus", here >= wanted, str(here), f"{wanted:g} or more", "use a machine with more cores")


def check_clock(now: float | None = None, span_s: float = 0.25) -> Finding:
    """The wall clock: not before the first release, and running as fast as the monotonic one."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(span_s)
    drift_s = (time.time() - wall) - (time.monotonic() - steady)
    shown = datetime.fromtimestamp(wall if now is None else now, UTC)
    sane, even = shown >= RELEASED, abs(drift_s) < 0.02
    return judge(
        "clock", sane and even, f"{shown:%Y-%m-%d %H:%M} UTC, {abs(drift_s) * 1000:.1f} ms apart in {span_s:g} s",
        f"a date after {RELEASED:%Y-%m-%d}, even steps",
        "set the clock: timedatectl set-ntp true" if not sane else "something steps the clock: look at chrony or ntpd",
        "warning" if sane else "failed",
    )  # fmt: skip


def check_inotify(storage: Path) -> Finding:
    """Watches tell when a model opens a case; without them only the loading time is unknown."""
    expected = "one watch a case, 1024 or more"
    advice = "sysctl fs.inotify.max_user_watches=65536 fs.inotify.max_user_instances=512; without: loading time unknown"
    try:
        from inotify_simple import INotify, flags

        most = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
        with contextlib.closing(INotify()) as watcher:
            watcher.add_watch(str(nearest_folder(storage)), flags.OPEN)
    except (ImportError, OSError, ValueError) as err:
        return judge("inotify", False, f"{type(err).__name__}: {err}", expected, advice, "warning")
    return judge("inotify", most >= 1024, f"{most} watches allowed, one made", expected, advice, "warning")


def check_sandboxes(platform: str) -> Iterator[Finding]:
    """Bubblewrap and apptainer; only what the chosen engine needs can be more than ``ok``."""
    yield _check_bubblewrap(platform == "process")
    program = shutil.which("apptainer") or shutil.which("singularity")
    needed = platform == "singularity"
    expected = "apptainer or singularity" if needed else "needed only for --platform=singularity"
    code, text = _ask(program, "--version") if program else (127, "not installed")
    yield judge("apptainer", code == 0 or not needed, text, expected, "install apptainer, or use --platform=docker")
    if needed:
        code, text = _ask(shutil.which("unshare"), "--user", "--map-root-user", "true")
        yield judge(
            "user_namespaces", code == 0, "usable" if code == 0 else text, "usable by this user",
            "sysctl user.max_user_namespaces=15000 (Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)",
        )  # fmt: skip


def _check_bubblewrap(needed: bool) -> Finding:
    expected = "usable, so that the process engine isolates" if needed else "needed only for --platform=process"
    program = shutil.which("bwrap")
    if program is None:
        text = "not installed"
        return judge("bubblewrap", not needed, text, expected, "apt-get install bubblewrap", "warning")
    code, text = _ask(program, "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-all", "--die-with-parent", "true")
    advice = "allow user namespaces: sysctl user.max_user_namespaces=15000"
    measured = "usable" if code == 0 else text
    return judge("bubblewrap", code == 0 or not needed, measured, expected, advice, "warning")


def _ask(program: str | None, *arguments: str) -> tuple[int, str]:
    """Exit code and last line of a program that should answer at once."""
    if program is None:
        return 127, "not installed"
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        return 126, type(err).__name__
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return done.returncode, lines[-1] if lines else f"exit code {done.returncode}"


def check_libraries(platform: str) -> Iterator[Finding]:
    """Libraries of the extras: toy data for `medperf test`, the cubes' own for the process engine."""
    for extra, needed in (("toy", False), ("cubes", platform == "process")):
        missing = [name for name in extra_requirements(extra) if not _is_installed(name)]
        yield judge(
            f"libraries_{extra}", not missing, f"missing: {', '.join(missing)}" if missing else "complete",
            "those of the cubes, for --platform=process" if extra == "cubes" else "those of the toy-data generator",
            f"pip install 'fedeval[{extra}]'", "failed" if needed else "warning",
        )  # fmt: skip
        if platform != "process":
            return


def extra_requirements(extra: str) -> list[str]:
    """Names of the distributions that an extra of this package asks for."""
    wanted = importlib.metadata.requires("fedeval") or []
    return sorted(
        re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted if re.search(rf"extra == ['\"]{extra}['\"]", line)
    )


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
