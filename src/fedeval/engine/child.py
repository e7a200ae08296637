"""A child process in a group of its own, watched against the wall clock; what it started goes with it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from fedeval.engine.base import TICK_S, Breach, LogTail, TaskCall, TaskOutcome, time_breach
from fedeval.errors import EngineFaultError
from fedeval.limits import Limits


class ChildRunner:
    """Runs one child at a time; `stop` ends the one that runs."""

    def __init__(self) -> None:
        self._live: subprocess.Popen[bytes] | None = None

    def run(self, call: TaskCall, command: Sequence[str], environment: Mapping[str, str]) -> TaskOutcome:
        """Run a command for a task; its output goes to the task's log.

        Raises
        ------
        EngineFaultError
            The program cannot be started.
        """
        called = time.monotonic()
        tail = LogTail(call.log_file, call.limits.log_mb << 20)
        try:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                env=dict(environment), cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as err:
            tail.close()
            raise EngineFaultError(
                f"{call.invocation.cube}, task {call.invocation.task}: cannot start {command[0]}", str(err.strerror)
            ) from err
        self._live, started = child, time.monotonic()
        _limit(child.pid, call.limits)
        try:
            ended_by = _watch(child, call, tail, started)
        finally:
            self.stop()
        wall = time.monotonic() - started
        return TaskOutcome(child.returncode, ended_by, round(started - called, 3), round(wall, 3), None, tail.close())

    def stop(self) -> None:
        """End the child and everything in its group."""
        child, self._live = self._live, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _limit(pid: int, limits: Limits) -> None:
    """Limits of each single process: address space and size of a file; no core dumps. Children inherit them."""
    with contextlib.suppress(ProcessLookupError):
        for kind, value in (
            (resource.RLIMIT_AS, limits.memory_mb << 20),
            (resource.RLIMIT_FSIZE, limits.output_mb << 20),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.prlimit(pid, kind, (value, value))


def _watch(child: subprocess.Popen[bytes], call: TaskCall, tail: LogTail, started: float) -> Breach | None:
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    while True:
        running = child.poll() is None
        while chunk := child.stdout.read(65536):
            tail.feed(chunk)
            if late := time_breach(call, started):
                return late
        breach = call.on_tick()
        if not running:
            return None
        if breach := breach or time_breach(call, started):
            return breach
        time.sleep(TICK_S)
