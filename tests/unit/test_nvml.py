"""What is read from NVIDIA's library: lists without double counting, old and broken drivers, MIG, lost GPUs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedeval.gpu import GpuWatch
from fedeval.nvml import GpuReading, NvmlError, NvmlSession
from tests.fake_nvml import Card, FakeNvml


def test_a_process_in_several_lists_counts_once() -> None:
    """The driver gives all memory of a process in each list that it is in."""
    card = Card(compute={7: 1000, 8: 50, 9: 600}, graphics={7: 1000}, mps={8: 400, 9: None})
    (reading,) = NvmlSession(FakeNvml(card)).read()
    assert reading == GpuReading("GPU-0", 300, {7: 1000, 8: 400, 9: 600})


def test_an_old_driver_is_asked_with_the_second_version() -> None:
    (reading,) = NvmlSession(FakeNvml(Card(compute={7: 1000}), old_driver=True)).read()
    assert reading.processes == {7: 1000}


def test_a_driver_without_lists_is_told_from_one_with_empty_lists() -> None:
    assert NvmlSession(FakeNvml(Card(), blind=True)).read()[0].processes is None
    assert NvmlSession(FakeNvml(Card())).read()[0].processes == {}


def test_more_memory_than_the_card_has_is_no_figure() -> None:
    """Driver 535 changed the struct without a new version: old bindings read nonsense."""
    (reading,) = NvmlSession(FakeNvml(Card(compute={7: 16385, 8: None}))).read()
    assert reading.processes == {7: None, 8: None}


def test_mig_instances_stand_for_their_gpu() -> None:
    one, two = Card("MIG-1", 9856, 10, {7: 900}), Card("MIG-2", 9856, 20, {8: 800})
    api = FakeNvml(Card(compute={7: 900, 8: 800}, instances=[one, None, two]), Card("GPU-1"))
    assert [(reading.uuid, reading.processes) for reading in NvmlSession(api).read()] == [
        ("MIG-1", {7: 900}), ("MIG-2", {8: 800}), ("GPU-1", {}),
    ]  # fmt: skip


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    lost, well = Card("GPU-0", lost=True), Card("GPU-1", compute={7: 1})
    assert [reading.uuid for reading in NvmlSession(FakeNvml(lost, well)).read()] == ["GPU-1"]
    lost.lost = False
    session = NvmlSession(FakeNvml(lost, well))
    lost.lost = True
    assert [reading.uuid for reading in session.read()] == ["GPU-1"]
    well.lost = True
    with pytest.raises(NvmlError, match="GPU is lost"):
        session.read()


def test_no_gpu_that_answers_is_an_error_and_leaves_the_library_closed() -> None:
    api = FakeNvml(Card(lost=True))
    with pytest.raises(NvmlError, match="GPU is lost"):
        NvmlSession(api)
    assert api.open == 0


def test_without_the_binding_the_message_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlError, match="nvidia-ml-py"):
        NvmlSession()
    with GpuWatch() as watch:
        watch.follow(lambda pid: True)
        assert watch.look() is None and watch.peak_mb is None and watch.source is None
    assert watch.notes == ("GPU memory is not watched: the Python package nvidia-ml-py is not installed",)


FAKE_LIBRARY = r"""
#include <string.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strcpy(text, "580.1.2"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { strcpy(text, "GPU-c"); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strcpy(text, "Compiled"); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
  memory->total = 16ull << 30; memory->used = 3ull << 30; memory->free = 13ull << 30; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) { return 3; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *list) {
  if (*count < 2) { *count = 2; return 7; }
  *count = 2;
  list[0].pid = 41; list[0].used = 1536ull << 20;
  list[1].pid = 42; list[1].used = ~0ull;
  return 0; }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Process *list) {
  *count = 0; return 0; }
"""


def test_nvidias_binding_is_called_as_it_wants_to_be(tmp_path: Path) -> None:
    """The real `pynvml` on a library of this test's own: names, structs and error codes are the binding's."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "fake.c").write_text(FAKE_LIBRARY)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "libnvidia-ml.so.1"), str(tmp_path / "fake.c")], check=True
    )
    program = """
from fedeval.gpu import GpuWatch, present_gpus
from fedeval.nvml import NvmlSession
import time
print(present_gpus(), NvmlSession().read())
with GpuWatch() as watch:
    watch.follow(lambda pid: pid == 41)
    while watch.look() is None: time.sleep(0.01)
print(watch.peak_mb, watch.source)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "(GpuDevice(index=0, uuid='GPU-c', name='Compiled', memory_mb=16384.0, driver='580.1.2'),) "
        "[GpuReading(uuid='GPU-c', used_mb=3072.0, processes={41: 1536.0, 42: None})]",
        "1536.0 process",
    ], done.stderr
