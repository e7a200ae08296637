"""One container from its start to its end, by the engine's own state and over lost connections."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from fedeval.engine.base import TICK_S, Breach, LogTail, TaskCall, TaskOutcome, time_breach
from fedeval.engine.gpu_limit import gpu_breach, watch_gpu
from fedeval.errors import EngineFaultError, FedevalError, GpuMissingError, ImageError
from fedeval.gpu import GpuWatch, in_container
from fedeval.log import LOGGER, show_safe

ENGINE_FAULTS = (APIError, requests.exceptions.RequestException, DockerException)
"""What the engine's client raises when the engine, not the container, fails."""

_RECONNECT_S = 60.0


def watch_container(
    api: docker.APIClient, container: str, call: TaskCall, called: float, gpu: int | None = None
) -> TaskOutcome:
    """Start a container that was created, watch it, and end it when a limit bites.

    Parameters
    ----------
    api : docker.APIClient
        Connection to the engine.
    container : str
        Id of the created container.
    call : TaskCall
        Limits, budget and log file.
    called : float
        `time.monotonic()` when the task was asked for.
    gpu : int, optional
        Watch this GPU alone.

    Raises
    ------
    EngineFaultError
        The engine went away and took the container with it: a fault of the platform.
    ImageError, GpuMissingError
        The container cannot be started.
    """
    tail = LogTail(call.log_file, call.limits.log_mb << 20)
    try:
        stream = api.attach(container, stream=True, stdout=True, stderr=True)  # before the start, so nothing is missed
        with watch_gpu(gpu) as gpu_watch:
            if gpu_watch is not None:
                gpu_watch.follow(in_container(container))
            try:
                api.start(container)
            except APIError as err:
                raise start_error(call, err) from err
            started = time.monotonic()
            pump = threading.Thread(target=_pump, args=(container, stream, tail), daemon=True)
            pump.start()
            end = _End(api, container)
            peak = PeakMemory(container)
            ended_by = _wait_for_end(api, container, call, started, end, peak, gpu_watch)
        wall_s = time.monotonic() - started
        state = api.inspect_container(container)["State"]
        pump.join(timeout=10)
    finally:
        last_lines = tail.close()
    LOGGER.info("container %s: exit %s, oom %s", container[:12], state.get("ExitCode"), state.get("OOMKilled"))
    if ended_by is None and state.get("OOMKilled"):  # also when only a child was killed and the exit code is 0
        ended_by = Breach("memory", peak.mb or call.limits.memory_mb, call.limits.memory_mb, "MiB")
    exit_code = int(state.get("ExitCode", -1))
    if ended_by is None and (end.by_engine or (end.connection_lost and exit_code)):
        raise EngineFaultError(
            f"the engine was restarted, or ended the container, during {call.invocation.cube}, task "
            f"{call.invocation.task}",
            f"container ended from outside with {exit_code}; expected it to end by itself",
            "run the same command again: it continues; this is not counted against the submission",
        )
    peak_gpu_mb = gpu_watch.peak_mb if gpu_watch is not None else None
    start_up_s = round(started - called, 3)
    return TaskOutcome(exit_code, ended_by, start_up_s, round(wall_s, 3), peak.mb, last_lines, peak_gpu_mb)


def _wait_for_end(
    api: docker.APIClient, container: str, call: TaskCall, started: float, end: _End, peak: PeakMemory,
    gpu: GpuWatch | None,
) -> Breach | None:  # fmt: skip
    """Tick until the container has ended; the breach that ended it, if one did."""
    while not end.event.wait(TICK_S):
        peak.look()
        if breach := call.on_tick() or gpu_breach(gpu, call) or time_breach(call, started):
            kill_container(api, container)
            if not end.event.wait(30):
                LOGGER.error("container %s outlives its kill", container[:12])
            return breach
    return call.on_tick()


def kill_container(api: docker.APIClient, container: str) -> None:
    """End everything in a container at once; asked again while the engine does not answer."""
    for _ in range(10):
        try:
            api.kill(container)
            return
        except NotFound:
            return
        except APIError as err:
            LOGGER.warning("kill of %s: %s", container[:12], show_safe(str(err)))
            if err.status_code == 409:  # not running any more
                return
        except ENGINE_FAULTS as err:
            LOGGER.warning("kill of %s: %s", container[:12], show_safe(str(err)))
        time.sleep(0.2)


class _End:
    """Waits in a thread for the end of a container; knows whether the engine was lost, or ended it."""

    def __init__(self, api: docker.APIClient, container: str) -> None:
        self.event = threading.Event()
        self.connection_lost = False
        self.by_engine = False
        self._api, self._container = api, container
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        silent_since: float | None = None
        while silent_since is None or time.monotonic() - silent_since < _RECONNECT_S:
            try:
                if self.connection_lost:
                    if not self._api.inspect_container(self._container)["State"]["Running"]:
                        break
                    # It outlived the loss, or only the waiting took too long: how it ends is its own doing.
                    silent_since, self.connection_lost = None, False
                exit_code = int(self._api.wait(self._container, timeout=3600)["StatusCode"])
                self.by_engine = _was_told_to_end(self._api, self._container, exit_code)
                break
            except NotFound:
                break
            except ENGINE_FAULTS:
                self.connection_lost = True
                silent_since = silent_since or time.monotonic()
            time.sleep(0.5)
        self.event.set()


def _was_told_to_end(api: docker.APIClient, container: str, exit_code: int) -> bool:
    """Whether the engine sent the container a signal, as it does when it shuts down; nothing inside can cause that."""
    state = api.inspect_container(container)["State"]
    if state.get("OOMKilled"):
        return False
    # By the engine's clock, which may be another than ours. The event comes a few milliseconds before or after the end.
    until = datetime.fromisoformat(str(state["FinishedAt"])).timestamp() + (0.3 if exit_code > 128 else 0.02)
    wanted = {"container": container, "event": "kill"}
    with contextlib.closing(api.events(since=1, until=f"{until:.6f}", filters=wanted)) as told:  # type: ignore[call-overload]
        return any(event.strip() for event in told)


def _pump(container: str, stream: Iterator[bytes], tail: LogTail) -> None:
    """Copy the container's output; a lost stream costs only the log, never the run."""
    try:
        for chunk in stream:
            tail.feed(chunk)
    except (*ENGINE_FAULTS, OSError, ValueError) as err:
        LOGGER.warning("the log stream of %s ended early: %s", container[:12], show_safe(str(err)))


def check_gone(container: str) -> None:
    """Make sure, by the kernel's own word, that nothing of a removed container runs: its cgroup is gone.

    Raises
    ------
    EngineFaultError
        It is still there after ten seconds.
    """
    places = [file.parent for file in PeakMemory(container).files]
    for _ in range(200):
        if not any(place.exists() for place in places):
            return
        time.sleep(0.05)
    raise EngineFaultError(
        f"container {container[:12]} was removed but its processes are still there", "its cgroup exists; expected none",
        "restart the engine, then run the same command again",
    )  # fmt: skip


class PeakMemory:
    """Highest memory of a container's cgroup, readable only while it exists."""

    def __init__(self, container: str) -> None:
        v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        scope = Path("system.slice") / f"docker-{container}.scope"
        below = Path("docker") / container
        self.files = [v1 / place / "memory.max_usage_in_bytes" for place in (below, scope)]
        self.files += [v2 / place / "memory.peak" for place in (below, scope)]
        self.mb: float | None = None

    def look(self) -> None:
        """Read it once more; the first file that answers is kept."""
        for file in self.files:
            try:
                self.mb = round(int(file.read_text()) / 2**20, 1)
            except (OSError, ValueError):
                continue
            self.files = [file]
            return


def start_error(call: TaskCall, err: APIError) -> FedevalError:
    """The engine refuses the container for what the image says of itself: no fault of the platform."""
    what = f"cube {call.invocation.cube}, task {call.invocation.task}: the container cannot start"
    found = show_safe(str(err.explanation or err), 300)
    if "device driver" in found:
        return GpuMissingError(what, found, "install the NVIDIA container toolkit, or set accelerator_count: 0")
    return ImageError(what, found, "check ENTRYPOINT of the image: an absolute path to a program that all may run")
