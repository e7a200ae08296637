"""The watch over GPU memory on a real NVIDIA GPU: a program allocates through the CUDA driver, the watch sees it.

Needs Python, pytest, nvidia-ml-py and a GPU; nothing of a container engine and no CUDA library beyond the driver's.
On a bare GPU machine: ``PYTHONPATH=src python3 -m pytest --noconftest -p no:randomly -s tests/unit/test_gpu_real.py``
prints the figures too.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ctypes.util import find_library

import pytest

from fedeval.gpu import BUSY_SHARE, INTERVAL_S, UNMATCHED_LOOKS, GpuWatch, in_process_tree, present_gpus
from fedeval.nvml import NvmlSession

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None and find_library("cuda") is None, reason="no NVIDIA GPU"),
]

ALLOCATED_MB = 1536
CONTEXT_MB = 1500
"""No CUDA context is larger than this."""

# Commands on its input: a number allocates so many MiB, "free" gives the last back; each answer is a time.
PROGRAM = """
import ctypes, sys, time
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        sys.exit(f"{name}: CUDA error {code}")
device, context, blocks = ctypes.c_int(), ctypes.c_void_p(), []
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxSetCurrent", context)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "free":
        call("cuMemFree_v2", blocks.pop())
    else:
        block = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(block), ctypes.c_size_t(int(line) << 20))
        blocks.append(block)
    print(time.monotonic(), flush=True)
"""
STARTER = (
    "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]], start_new_session=True))"
)


class Program:
    """A CUDA program of another process; `do` gives it a command and returns when it was done (`time.monotonic`)."""

    def __init__(self, *command: str) -> None:
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_ready(self) -> None:
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"

    def do(self, command: object) -> float:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write(f"{command}\n")
        self.child.stdin.flush()
        return float(self.child.stdout.readline())

    def end(self) -> None:
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


@pytest.fixture
def cuda() -> Iterator[Callable[..., Program]]:
    """Starts CUDA programs; none outlives the test."""
    started: list[Program] = []

    def start(*command: str) -> Program:
        started.append(Program(*(command or (sys.executable, "-c", PROGRAM))))
        return started[-1]

    yield start
    for program in started:
        program.end()


def seen_at(watch: GpuWatch, at_least_mb: float, timeout_s: float = 10) -> float:
    """When `at_least_mb` was first seen, looking as often as an engine does or more (`time.monotonic`)."""
    end = time.monotonic() + timeout_s
    while (watch.look() or 0) < at_least_mb:
        assert time.monotonic() < end, f"only {watch.peak_mb} MiB seen, {watch.source}, {watch.notes}"
        time.sleep(0.002)
    return time.monotonic()


def used_mb() -> list[float]:
    session = NvmlSession()
    try:
        return [reading.used_mb for reading in session.read()]
    finally:
        session.close()


def test_gpus_are_those_that_nvidia_smi_lists() -> None:
    fields = "index,uuid,name,memory.total,driver_version"
    shown = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    devices = present_gpus()
    print("\n", devices)
    listed = [tuple(line.split(", ")) for line in shown.stdout.splitlines()]
    assert devices and len(devices) == len(listed)
    for device, (index, uuid, name, total, driver) in zip(devices, listed, strict=True):
        assert (str(device.index), device.uuid, device.name, device.driver) == (index, uuid, name, driver)
        assert device.memory_mb == pytest.approx(float(total), abs=1)


def test_an_allocation_is_seen_within_a_second_and_with_its_size(cuda: Callable[..., Program]) -> None:
    """The peak is the allocation and the process's CUDA context."""
    with GpuWatch() as watch:
        program = cuda()
        watch.follow(in_process_tree(program.child.pid))
        program.wait_ready()
        time.sleep(2 * UNMATCHED_LOOKS * INTERVAL_S)  # so that an estimate, too, has begun
        context_mb = watch.look() or 0.0
        delays = []
        for round_ in range(10):
            allocated = program.do(ALLOCATED_MB)
            delays.append(seen_at(watch, context_mb + ALLOCATED_MB - 64) - allocated)
            program.do("free")
            time.sleep((3 + round_ / 10) * INTERVAL_S)  # at all moments between two looks
            watch.look()
    print(
        f"\nsource {watch.source}, notes {watch.notes}; context {context_mb:.1f} MiB, peak {watch.peak_mb} MiB for "
        f"{ALLOCATED_MB} MiB allocated; seen after {min(delays) * 1e3:.0f} to {max(delays) * 1e3:.0f} ms "
        f"(median of 10: {sorted(delays)[5] * 1e3:.0f} ms)"
    )
    assert max(delays) < 1
    assert watch.peak_mb is not None
    assert ALLOCATED_MB <= watch.peak_mb <= ALLOCATED_MB + CONTEXT_MB
    assert watch.peak_mb == pytest.approx(context_mb + ALLOCATED_MB, abs=64)


def test_a_limit_below_the_allocation_ends_the_program_and_its_memory_is_back(cuda: Callable[..., Program]) -> None:
    before = max(used_mb())
    limit_mb = ALLOCATED_MB / 2 + CONTEXT_MB
    with GpuWatch() as watch:
        program = cuda()
        watch.follow(in_process_tree(program.child.pid))
        program.wait_ready()
        for _ in range(2):
            program.do(ALLOCATED_MB)
        seen_at(watch, limit_mb)
        assert max(used_mb()) >= before + 2 * ALLOCATED_MB - 64
        killed = time.monotonic()
        os.killpg(program.child.pid, signal.SIGKILL)
        assert program.child.wait(10) == -signal.SIGKILL
        while max(used_mb()) > before + 64:
            assert time.monotonic() < killed + 10, f"{before} MiB before, {used_mb()} after"
        print(f"\nmemory back {(time.monotonic() - killed) * 1e3:.0f} ms after the kill")
        watch.look()
        time.sleep(5 * INTERVAL_S)
        watch.look()
        assert watch.look() == pytest.approx(0, abs=64)
    assert (watch.peak_mb or 0) > limit_mb


def test_a_grandchild_in_a_session_of_its_own_counts(cuda: Callable[..., Program]) -> None:
    with GpuWatch() as watch:
        program = cuda(sys.executable, "-c", STARTER, PROGRAM)
        watch.follow(in_process_tree(program.child.pid))
        program.wait_ready()
        program.do(ALLOCATED_MB)
        seen_at(watch, ALLOCATED_MB)


def test_what_others_use_is_not_counted(cuda: Callable[..., Program]) -> None:
    with GpuWatch() as watch:
        other, mine = cuda(), cuda()
        watch.follow(in_process_tree(mine.child.pid))
        other.wait_ready()
        mine.wait_ready()
        other.do(4 * ALLOCATED_MB)
        mine.do(ALLOCATED_MB)
        seen_at(watch, ALLOCATED_MB)
        time.sleep(2 * UNMATCHED_LOOKS * INTERVAL_S)
        if watch.source != "process":
            pytest.skip(f"the driver here does not tell whose memory it is: {watch.notes}")
    assert watch.peak_mb is not None and watch.peak_mb <= ALLOCATED_MB + CONTEXT_MB


def test_looking_takes_a_bounded_share_of_a_core(cuda: Callable[..., Program]) -> None:
    """Prints what one look costs beside a run of nvidia-smi, and the share of a core that the watch takes."""
    program = cuda()
    program.wait_ready()
    session = NvmlSession()
    began = time.perf_counter()
    for _ in range(100):
        session.read()
    look_s = (time.perf_counter() - began) / 100
    session.close()
    began = time.perf_counter()
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]
    subprocess.run(query, capture_output=True, check=True)
    smi_s = time.perf_counter() - began
    began, cpu = time.perf_counter(), time.process_time()
    with GpuWatch() as watch:
        watch.follow(in_process_tree(program.child.pid))
        opened_s = time.perf_counter() - began
        time.sleep(3)
        share = (time.process_time() - cpu) / (time.perf_counter() - began)
    print(
        f"\none look {look_s * 1e3:.2f} ms; nvidia-smi {smi_s * 1e3:.0f} ms, {smi_s / look_s:.0f} times as long; "
        f"opening {opened_s * 1e3:.0f} ms; {share:.1%} of a core while watching"
    )
    assert watch.peak_mb is not None
    assert share < 2 * BUSY_SHARE
