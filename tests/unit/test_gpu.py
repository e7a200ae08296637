"""The watch over GPU memory: whose processes are counted, what is said where the driver does not tell.

The driver is a fake here (tests with a real one: test_gpu_real.py); processes are real.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from fedeval import gpu
from fedeval.gpu import GpuWatch, find_mps_folder, in_process_tree, mps_environment, present_gpus
from fedeval.nvml import NvmlSession
from tests.fake_nvml import Card, FakeNvml, Listed


@pytest.fixture
def children() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs in sessions of their own, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(list(command), stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def until(condition: Callable[[], object], timeout_s: float = 20) -> bool:
    """Wait for a condition; whether it came true."""
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(condition())


def watch_one(api: FakeNvml, *mine: int, uuids: Collection[str] = ()) -> tuple[GpuWatch, Callable[[], None]]:
    """A watch that was opened before the start and follows `mine`, and a function that makes it look once."""
    session, watch = NvmlSession(api), GpuWatch(api, uuids)
    watch.take(session.read())
    watch.follow(lambda pid: pid in mine)
    return watch, lambda: watch.take(session.read())


# The watch


def test_the_tasks_processes_are_added_up_on_each_gpu() -> None:
    first, second = Card("GPU-0", compute={5: 8000}), Card("GPU-1")
    watch, look = watch_one(FakeNvml(first, second), 7, 8, 9)
    look()
    assert watch.look() == 0
    first.compute |= {7: 700, 8: 800}
    second.compute |= {9: 1400}
    look()
    assert (watch.look(), watch.peak_mb, watch.source, watch.notes) == (1500, 1500, "process", ())


def test_only_the_gpus_that_the_task_was_given() -> None:
    first, second = Card("GPU-0"), Card("GPU-1")
    watch, look = watch_one(FakeNvml(first, second), 7, uuids=["GPU-1"])
    first.compute[7], second.compute[7] = 900, 300
    look()
    assert watch.look() == 300


def test_a_peak_between_two_looks_of_the_engine_is_not_lost() -> None:
    card = Card()
    watch, look = watch_one(FakeNvml(card), 7)
    for mb in (100, 12000, 50):
        card.compute[7] = mb
        look()
    assert watch.look() == 12000
    look()
    assert (watch.look(), watch.peak_mb) == (50, 12000)


def test_before_the_start_nothing_is_counted() -> None:
    api = FakeNvml(Card(compute={7: 5000}))
    watch = GpuWatch(api)
    watch.take(NvmlSession(api).read())
    assert watch.look() is None and watch.peak_mb is None


def test_without_figures_the_growth_stands_for_the_use() -> None:
    card = Card(used=300, compute={5: None})
    watch, look = watch_one(FakeNvml(card), 7)
    card.used, card.compute[7] = 2300, None
    look()
    assert (watch.look(), watch.source) == (2000, "estimate")
    look()
    assert watch.look() == 2000
    assert len(watch.notes) == 1 and "does not tell" in watch.notes[0]
    card.used = 100  # another program stopped: never below nothing
    look()
    assert watch.look() == 0


def test_one_process_with_a_figure_and_one_without() -> None:
    card = Card(used=0)
    watch, look = watch_one(FakeNvml(card), 7, 8)
    card.used, card.compute = 1000, {7: 1400, 8: None}
    look()
    assert watch.look() == 1400


@pytest.mark.parametrize("compute", [{}, {2**22 + 5: None}])
@pytest.mark.parametrize("blind", [False, True])
def test_growth_that_nobody_is_named_for_counts_after_a_while(compute: Listed, blind: bool) -> None:
    """In some virtual machines the driver lists nothing, or processes that are not of this machine."""
    card = Card(used=300)
    watch, look = watch_one(FakeNvml(card, blind=blind), 7)
    card.used, card.compute = 1300, compute
    for _ in range(gpu.UNMATCHED_LOOKS - 1):
        look()
    assert watch.look() == 0
    look()
    assert (watch.look(), watch.source) == (1000, "estimate")
    assert "does not name" in watch.notes[0]


def test_foreign_processes_with_figures_are_better_than_the_growth() -> None:
    """Numbers of another process namespace: those that were there before are others', and others grow too."""
    old, new = 2**22 + 5, 2**22 + 6
    card = Card(used=5000, compute={old: 4700})
    watch, look = watch_one(FakeNvml(card), 7)
    card.used, card.compute = 9000, {old: 7000, new: 1500}
    for _ in range(gpu.UNMATCHED_LOOKS):
        look()
    assert (watch.look(), watch.source) == (1500, "estimate")


def test_others_on_the_gpu_never_count() -> None:
    """A process that is somebody else's, by name: its growth is not the task's."""
    card = Card(used=300)
    watch, look = watch_one(FakeNvml(card), 7)
    card.used, card.compute = 15000, {os.getpid(): 14000}
    for _ in range(gpu.UNMATCHED_LOOKS * 2):
        look()
    assert (watch.look(), watch.source, watch.notes) == (0, None, ())


def test_a_dying_process_is_no_stranger_yet() -> None:
    card = Card()
    watch, look = watch_one(FakeNvml(card), 7)
    for _ in range(5):
        card.compute = {2**22 + 5: 3000}
        for _ in range(gpu.UNMATCHED_LOOKS - 1):
            look()
        card.compute = {}
        look()
    assert watch.peak_mb == 0


def test_a_task_above_its_limit_is_seen_and_ended(children: Callable[..., subprocess.Popen[str]]) -> None:
    """As the engines do it: the real watch with its thread, a real process, a driver that names it."""
    card = Card()
    api = FakeNvml(card)
    with GpuWatch(api, interval_s=0.01) as watch:
        child = children("sleep", "60")
        watch.follow(in_process_tree(child.pid))
        card.compute[child.pid] = 1000
        assert until(lambda: watch.look() == 1000)
        card.compute[child.pid] = 12000
        assert until(lambda: (watch.look() or 0) > 11264)
        child.kill()
        child.wait()
    assert watch.peak_mb == 12000
    assert api.open == 0


def test_a_driver_that_hangs_from_the_start_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STALE_S", 0.2)
    api = FakeNvml(Card())
    api.hang = threading.Event()
    began = time.monotonic()
    try:
        with GpuWatch(api) as watch:
            watch.follow(lambda pid: True)
            assert watch.look() is None
        assert time.monotonic() - began < 20
        assert "did not answer" in watch.notes[0]
        assert present_gpus(api, proc=Path("/nonexistent"), timeout_s=0.1) == ()
    finally:
        api.hang.set()
    assert until(lambda: api.open == 0)


def test_a_driver_that_hangs_later_is_said_and_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STALE_S", 0.2)
    api = FakeNvml(Card(compute={7: 500}))
    hang = threading.Event()
    try:
        with GpuWatch(api, interval_s=0.01) as watch:
            watch.follow(lambda pid: pid == 7)
            assert until(lambda: watch.look() == 500)
            api.hang = hang
            assert until(lambda: watch.look() is None)
        assert "not watched" in watch.notes[0]
        assert watch.peak_mb == 500
    finally:
        hang.set()
    assert until(lambda: api.open == 0)


def test_a_gpu_lost_on_the_way_is_noted() -> None:
    card = Card(compute={7: 500})
    api = FakeNvml(card)
    with GpuWatch(api, interval_s=0.01) as watch:
        watch.follow(lambda pid: pid == 7)
        assert until(lambda: watch.look() == 500)
        card.lost = True
        assert until(lambda: watch.notes)
    assert watch.notes == ("the GPUs stopped answering: GPU is lost",)


# Which GPUs


def kernel_driver(folder: Path) -> Path:
    """A process file system as NVIDIA's kernel module fills it."""
    card = folder / "driver/nvidia/gpus/0000:3b:00.0"
    card.mkdir(parents=True)
    (folder / "driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs)\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    (card / "information").write_text(
        "Model: \t\t NVIDIA A30\nIRQ:   \t\t 77\nGPU UUID: \t GPU-11\nDevice Minor: \t 0\n"
    )
    return folder


def test_gpus_with_name_memory_and_driver() -> None:
    first, second = present_gpus(FakeNvml(Card(total=24576), Card("GPU-1")), proc=Path("/nonexistent"))
    assert (first.index, first.uuid, first.name, first.memory_mb) == (0, "GPU-0", "NVIDIA Test", 24576)
    assert (second.index, second.uuid, second.driver) == (1, "GPU-1", "580.159.04")


def test_without_the_library_the_kernel_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert present_gpus(proc=tmp_path) == ()
    (device,) = present_gpus(proc=kernel_driver(tmp_path))
    assert (device.uuid, device.name, device.memory_mb, device.driver) == ("GPU-11", "NVIDIA A30", None, "580.159.04")


# CUDA MPS


@pytest.fixture
def mps_folder(tmp_path: Path, children: Callable[..., subprocess.Popen[str]]) -> Path:
    """Pipes of a control daemon: a real process of that name."""
    program = shutil.copy(str(shutil.which("sleep")), tmp_path / "nvidia-cuda-mps-control")
    daemon = children(str(program), "60")
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    (pipes / "nvidia-cuda-mps-control.pid").write_text(f"{daemon.pid}\n")
    (pipes / "control").touch()
    assert until(lambda: Path(f"/proc/{daemon.pid}/comm").read_text() == "nvidia-cuda-mps\n")
    return pipes


def test_a_live_mps_daemon_gets_the_limit(mps_folder: Path) -> None:
    found = find_mps_folder(os.getuid(), {"CUDA_MPS_PIPE_DIRECTORY": str(mps_folder)})
    assert found == mps_folder
    assert mps_environment(11264, found) == {
        "CUDA_MPS_PIPE_DIRECTORY": str(mps_folder),
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=11264M",
    }
    assert mps_environment(100, gpu.MPS_INSIDE, 2)["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=100M,1=100M"


def test_no_daemon_no_environment(mps_folder: Path, tmp_path: Path) -> None:
    assert mps_environment(11264, None) == {}
    assert find_mps_folder(0, {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "none")}) is None
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(mps_folder)}
    (mps_folder / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))  # a number that was given anew
    assert find_mps_folder(os.getuid(), environment) is None
    (mps_folder / "nvidia-cuda-mps-control.pid").write_text("")
    assert find_mps_folder(os.getuid(), environment) is None


def test_a_daemon_of_another_user_is_not_asked(mps_folder: Path) -> None:
    if os.getuid() == 0:
        os.chown(mps_folder / "control", 4711, 4711)
    owner = (mps_folder / "control").stat().st_uid
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(mps_folder)}
    assert find_mps_folder(owner + 1, environment) is None
    assert find_mps_folder(owner, environment) == mps_folder
