"""A child process in a group of its own, watched against the wall clock; what it started goes with it.

Also when the runner is killed: a guard, which is nothing but a shell that waits for the end of a pipe, then kills the
group. The child does not begin before the guard knows its group and its limits are set.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from fedeval.engine.base import TICK_S, Breach, LogTail, TaskCall, TaskOutcome, time_breach
from fedeval.engine.gpu_limit import gpu_breach, has_gpu, watch_gpu
from fedeval.errors import EngineFaultError
from fedeval.gpu import GpuWatch, in_process_tree
from fedeval.limits import Limits

_GATE = 'read -r go || exit 125; exec "$@" </dev/null'
"""Begins the command when the runner says so; ends when the runner is gone before that."""

_GUARD = 'read -r group || exit 0; read -r end; kill -9 "-$group"'
"""Gets the group on its input; the end of its input is the end of the runner."""


class ChildRunner:
    """Runs one child at a time; `stop` ends the one that runs."""

    def __init__(self) -> None:
        self._live: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

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
            with watch_gpu() as gpu:
                child = self._start(call, command, environment)
                if gpu is not None:
                    gpu.follow(in_process_tree(child.pid))
                started = time.monotonic()
                ended_by = _watch(child, call, tail, started, gpu)
        finally:
            self.stop()
            last_lines = tail.close()
        wall_s = round(time.monotonic() - started, 3)
        peak_gpu_mb = gpu.peak_mb if gpu is not None else None
        start_up_s = round(started - called, 3)
        return TaskOutcome(child.returncode, ended_by, start_up_s, wall_s, None, last_lines, peak_gpu_mb)

    def _start(self, call: TaskCall, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        where = f"{call.invocation.cube}, task {call.invocation.task}"
        if shutil.which(command[0]) is None:
            raise EngineFaultError(f"{where}: cannot start {command[0]}", "no program that may be run")
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                bufsize=0, cwd="/", start_new_session=True,
            )  # fmt: skip
            self._live = child = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, bufsize=0, env=dict(environment), cwd="/", start_new_session=True,
            )  # fmt: skip
            assert self._guard.stdin is not None and child.stdin is not None
            self._guard.stdin.write(f"{child.pid}\n".encode())
            _limit(child.pid, call.limits)
            child.stdin.write(b"go\n")
            child.stdin.close()
        except OSError as err:
            raise EngineFaultError(f"{where}: cannot start {command[0]}", str(err.strerror)) from err
        return child

    def stop(self) -> None:
        """End the child and everything in its group; then the guard, which has nothing left to do."""
        child, self._live = self._live, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        guard, self._guard = self._guard, None
        for process in (guard, child):
            if process is not None:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()


def _limit(pid: int, limits: Limits) -> None:
    """Limits of each single process: address space and size of a file; no core dumps. Children inherit them."""
    with contextlib.suppress(ProcessLookupError):
        for kind, value in (
            # Not with a GPU: CUDA reserves far more address space than it uses.
            *([] if has_gpu() else [(resource.RLIMIT_AS, limits.memory_mb << 20)]),
            (resource.RLIMIT_FSIZE, limits.output_mb << 20),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.prlimit(pid, kind, (value, value))


def _watch(
    child: subprocess.Popen[bytes], call: TaskCall, tail: LogTail, started: float, gpu: GpuWatch | None
) -> Breach | None:
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    while True:
        # Not reaped yet: its id stays its own until the group has been killed.
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        until = time.monotonic() + TICK_S
        while chunk := child.stdout.read(65536):
            tail.feed(chunk)
            if time.monotonic() > until:  # a flood of output must not keep the limits from being looked at
                break
        breach = call.on_tick()
        if ended or breach:
            return breach
        if breach := gpu_breach(gpu, call) or time_breach(call, started):
            return breach
        time.sleep(TICK_S if not chunk else 0)
