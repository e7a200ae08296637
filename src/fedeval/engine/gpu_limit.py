"""The limit of GPU memory around one task: watched through NVML, and given to CUDA MPS where a daemon runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache

from fedeval.engine.base import Breach, TaskCall
from fedeval.gpu import GpuWatch, find_mps_folder, mps_environment, present_gpus
from fedeval.log import LOGGER


@cache
def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return bool(present_gpus())


@contextlib.contextmanager
def watch_gpu(gpu: int | None = None) -> Iterator[GpuWatch | None]:
    """A watch on all GPUs, or on number `gpu` alone; None where there is no GPU."""
    if not has_gpu():
        yield None
        return
    uuids = [device.uuid for device in present_gpus() if device.index == gpu]
    with GpuWatch(uuids=uuids) as watch:
        yield watch
    for note in watch.notes:
        LOGGER.warning("GPU memory: %s", note)


def gpu_breach(watch: GpuWatch | None, call: TaskCall) -> Breach | None:
    """The breach of the GPU memory limit, if the highest value since the last look was above it."""
    mb, limit = (watch.look() if watch is not None else None), call.limits.gpu_memory_mb
    return Breach("gpu_memory", round(mb, 1), limit, "MiB") if mb is not None and mb > limit else None


def mps_settings(call: TaskCall) -> dict[str, str]:
    """Environment that lets CUDA itself refuse more memory, for a task without a container; empty without MPS."""
    if not call.manifest.accelerator_count or not has_gpu():
        return {}
    return mps_environment(call.limits.gpu_memory_mb, find_mps_folder(os.getuid()), call.manifest.accelerator_count)
