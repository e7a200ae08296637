"""GPUs: which there are, and how much of their memory a task uses. A GPU's memory has no cgroup of its own before
Linux 6.14, so it is watched through NVML: the engine ends a task that is seen above its limit.

What is seen: all memory of each process on the GPU, its CUDA context included, about ten times a second. What is not
seen: a peak shorter than that between two looks. Where CUDA MPS is at hand, `mps_environment` makes the allocation
itself fail at the limit; a hostile program can undo that, so the watch is there in any case.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fedeval.log import LOGGER
from fedeval.nvml import GpuDevice, GpuReading, NvmlApi, NvmlError, NvmlSession

INTERVAL_S = 0.1
"""Shortest time between two looks at the GPUs."""

BUSY_SHARE = 0.2
"""Looking takes at most this share of a core: a driver that answers slowly is asked less often."""

STALE_S = 5.0
"""A driver that is silent for so long is hung; what it said last is no answer any more."""

UNMATCHED_LOOKS = 10
"""So many looks in a row must show use by nobody that can be named, before it is taken for the task's."""

NOISE_MB = 64.0
"""A GPU's own bookkeeping comes and goes by so much."""

PROC = Path("/proc")
MPS_FOLDER = Path("/tmp/nvidia-mps")
MPS_INSIDE = "/run/nvidia-mps"
"""Where a container finds the pipes of the MPS control daemon."""

Owner = Callable[[int], bool]
"""Whether a process of this machine belongs to the task."""


def in_container(container_id: str, proc: Path = PROC) -> Owner:
    """Processes of a container, told by their cgroup: a container cannot leave it, and it holds the full id.

    Parameters
    ----------
    container_id : str
        Full id, as the engine gives it.
    proc : Path
        Where the process table is.

    Raises
    ------
    ValueError
        The id is too short to be one; it would take strangers for the container's.
    """
    if not re.fullmatch(r"[0-9a-f]{12,}", container_id):
        raise ValueError(f"{container_id!r} is no container id")

    def owns(pid: int) -> bool:
        try:
            return container_id in (proc / str(pid) / "cgroup").read_text()
        except OSError:  # ended meanwhile
            return False

    return owns


def in_process_tree(leader: int, proc: Path = PROC) -> Owner:
    """Processes started by `leader`: of its session or process group, or descended from it.

    A process that opened a session of its own *and* lost its parents is not found, unless a process-id namespace
    (bubblewrap, apptainer) keeps it below the leader.
    """

    def owns(pid: int) -> bool:
        for _ in range(64):
            try:
                fields = (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                return False
            parent, group, session = int(fields[1]), int(fields[2]), int(fields[3])
            if leader in (pid, group, session):
                return True
            if parent <= 1:
                return False
            pid = parent
        return False

    return owns


class GpuWatch:
    """Watches how much memory a task uses on the GPUs of this machine. A context manager: open it before the task
    starts, say with `follow` whose processes are the task's, and `look` as often as you like.

    A thread of its own asks the driver, because a hung driver blocks whoever asks it, and that must not be the one who
    keeps the wall clock. On a machine without an NVIDIA GPU it does nothing, and `look` returns None.

    Parameters
    ----------
    api : NvmlApi, optional
        A stand-in for `pynvml`.
    uuids : collection of str
        GPUs or MIG instances that the task was given; empty for all.
    interval_s : float
        Time between two looks at the GPUs.
    proc : Path
        Where the process table is.

    Attributes
    ----------
    peak_mb : float or None
        Highest figure so far: MiB on the one GPU where the task used most; None where nothing is known.
    source : str or None
        ``process``: the driver named the task's processes. ``estimate``: it did not name them, or not their memory (in
        a process namespace that is not the machine's, or in some virtual machines); then the growth on the GPU since
        the start stands for the task's use, which is too much where others began to use it meanwhile, and too little
        where they stopped. None: no use seen.
    """

    def __init__(
        self, api: NvmlApi | None = None, uuids: Collection[str] = (), interval_s: float = INTERVAL_S, proc: Path = PROC
    ) -> None:
        self._api, self._uuids, self._interval_s, self._proc = api, frozenset(uuids), interval_s, proc
        self._owner: Owner | None = None
        self._before: dict[str, GpuReading] = {}
        self._unmatched: dict[str, int] = {}
        self._latest: float | None = None
        self._highest: float | None = None
        self._polled = 0.0
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.peak_mb: float | None = None
        self.source: str | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)
        self._thread.start()
        if not self._ready.wait(STALE_S):
            self._say(f"the GPU driver did not answer within {STALE_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STALE_S)  # one that hangs in the driver is left behind; it is a daemon

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures has to know, each said once."""
        return tuple(self._said)

    def follow(self, owner: Owner) -> None:
        """From now on count what processes of `owner` use; the memory in use until now is the others'."""
        self._owner = owner

    def look(self) -> float | None:
        """Highest memory in MiB, on the GPU where the task uses most, since the look before; None: nothing known."""
        if self._polled and time.monotonic() - self._polled > STALE_S and not self._stop.is_set():
            self._say(f"the GPU driver has not answered for {STALE_S:g} s: GPU memory is not watched")
            return None
        with self._lock:
            seen, self._highest = self._highest, None
            return self._latest if seen is None else seen

    def take(self, readings: list[GpuReading]) -> None:
        """Take one look at all GPUs into account; the thread does this about every `interval_s`."""
        readings = [reading for reading in readings if not self._uuids or reading.uuid in self._uuids]
        self._polled = time.monotonic()
        owner = self._owner
        if owner is None:
            self._before = {reading.uuid: reading for reading in readings}
            return
        mb = round(max((self._share(reading, owner) for reading in readings), default=0.0), 1)
        with self._lock:
            self._latest = mb
            self._highest = max(mb, self._highest or 0.0)
            self.peak_mb = max(mb, self.peak_mb or 0.0)

    def _run(self) -> None:
        try:
            session = NvmlSession(self._api)
        except NvmlError as err:
            self._say(f"GPU memory is not watched: {err}")
            self._ready.set()
            return
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    self.take(session.read())
                except NvmlError as err:
                    self._say(str(err))
                self._ready.set()
                self._stop.wait(max(self._interval_s, (time.monotonic() - began) * (1 / BUSY_SHARE - 1)))
        finally:
            session.close()

    def _share(self, reading: GpuReading, owner: Owner) -> float:
        """The task's memory on one GPU, in MiB."""
        processes = reading.processes or {}
        mine = [mb for pid, mb in processes.items() if owner(pid)]
        named = [mb for mb in mine if mb is not None]
        if mine and len(named) == len(mine):
            self._unmatched.pop(reading.uuid, None)
            self.source = self.source or "process"
            return sum(named)
        before = self._before.setdefault(reading.uuid, reading)
        grown = max(reading.used_mb - before.used_mb, 0.0)
        if mine:
            return self._estimate(max(grown, sum(named)), "the driver does not tell how much memory a process uses")
        known = before.processes or {}
        new = {pid: mb for pid, mb in processes.items() if pid not in known and not (self._proc / str(pid)).exists()}
        if not new and (processes or grown < NOISE_MB):
            self._unmatched.pop(reading.uuid, None)
            return 0.0
        self._unmatched[reading.uuid] = self._unmatched.get(reading.uuid, 0) + 1
        if self._unmatched[reading.uuid] < UNMATCHED_LOOKS:
            return 0.0
        figures = [mb for mb in new.values() if mb is not None]
        whole = bool(new) and len(figures) == len(new)
        return self._estimate(sum(figures) if whole else grown, "the driver does not name the processes on the GPU")

    def _estimate(self, mb: float, why: str) -> float:
        self.source = "estimate"
        self._say(f"{why}: GPU memory is estimated by its growth since the start, other programs' included")
        return mb

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.append(text)
            LOGGER.log(logging.WARNING if has_nvidia_driver(self._proc) else logging.INFO, "%s", text)


def has_nvidia_driver(proc: Path = PROC) -> bool:
    """Whether the kernel has NVIDIA's driver loaded."""
    return (proc / "driver/nvidia/version").exists()


def present_gpus(api: NvmlApi | None = None, proc: Path = PROC, timeout_s: float = 10.0) -> tuple[GpuDevice, ...]:
    """The NVIDIA GPUs of this machine, empty where there are none.

    NVML is asked; where it is not there or does not answer within `timeout_s`, the kernel's driver is, which knows no
    memory sizes.
    """
    answers: queue.SimpleQueue[tuple[GpuDevice, ...] | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            session = NvmlSession(api)
            try:
                answers.put(session.devices())
            finally:
                session.close()
        except NvmlError as err:
            LOGGER.info("%s", err)
            answers.put(None)

    threading.Thread(target=ask, name="gpu-list", daemon=True).start()
    try:
        found = answers.get(timeout=timeout_s)
    except queue.Empty:
        LOGGER.warning("the GPU driver did not answer within %g s", timeout_s)
        found = None
    return _gpus_of_kernel(proc) if found is None else found


def _gpus_of_kernel(proc: Path) -> tuple[GpuDevice, ...]:
    if not has_nvidia_driver(proc):
        return ()
    version = re.search(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s", (proc / "driver/nvidia/version").read_text())
    devices = []
    for index, file in enumerate(sorted((proc / "driver/nvidia/gpus").glob("*/information"))):
        text = file.read_text(errors="replace")
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
        uuid = fields.get("GPU UUID", "")
        devices.append(
            GpuDevice(index, "" if "?" in uuid else uuid, fields.get("Model", ""), None, version[1] if version else "")
        )
    return tuple(devices)


def find_mps_folder(uid: int, environment: Mapping[str, str] = os.environ, proc: Path = PROC) -> Path | None:
    """Folder with the pipes of a CUDA MPS control daemon that serves user `uid`; None where there is none.

    ``CUDA_MPS_PIPE_DIRECTORY``, else ``/tmp/nvidia-mps``. The daemon must be alive, and root's or this user's.
    """
    folder = Path(environment.get("CUDA_MPS_PIPE_DIRECTORY") or MPS_FOLDER)
    try:
        pid = int((folder / "nvidia-cuda-mps-control.pid").read_text())
        # The kernel keeps 15 characters of a program's name.
        alive = (proc / str(pid) / "comm").read_text().startswith("nvidia-cuda-mps")
        owner = (folder / "control").stat().st_uid
    except (OSError, ValueError):
        return None
    return folder if alive and owner in (0, uid) else None


def mps_environment(limit_mb: int, folder: Path | str | None, gpus: int = 1) -> dict[str, str]:
    """Environment with which CUDA refuses allocations above a limit, through an MPS control daemon.

    Parameters
    ----------
    limit_mb : int
        Device memory of one process on each GPU, in MiB.
    folder : Path or str or None
        Folder of the daemon's pipes as the program sees it (`find_mps_folder`, or `MPS_INSIDE` in a container that has
        it mounted there); None, no daemon: nothing is set.
    gpus : int
        GPUs that the program sees.

    Notes
    -----
    A program can drop the variables, and each process has the limit for itself: `GpuWatch` stays the one that decides.
    """
    if folder is None:
        return {}
    limit = ",".join(f"{index}={limit_mb}M" for index in range(gpus))
    return {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": limit}
