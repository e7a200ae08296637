"""The NVIDIA driver's management library: which GPUs there are, and who uses how much of their memory.

Only reading, through NVIDIA's own binding (distribution ``nvidia-ml-py``, module ``pynvml``), which is imported when it
is first needed. Nothing else of fedeval is imported here, so that it runs on a bare GPU machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

MIB = 2**20
_KINDS = ("Compute", "MPSCompute", "Graphics")
# Drivers before 510 know only the second version of the process lists.
_LIST_VERSIONS = (3, 2)


class NvmlError(Exception):
    """The library is not there, or does not answer; the text says which."""


class Memory(Protocol):
    """What `pynvml.nvmlDeviceGetMemoryInfo` returns, in bytes."""

    total: int
    used: int


class NvmlApi(Protocol):
    """The functions of `pynvml` that are used; tests give a fake.

    The process lists (``nvmlDeviceGet{Compute,MPSCompute,Graphics}RunningProcesses_v{3,2}``) are looked up by name,
    because not every version of the binding has all of them. They return objects with ``pid`` and ``usedGpuMemory``
    (bytes, or None where the driver does not tell).
    """

    @property
    def NVMLError(self) -> type[Exception]: ...
    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetUUID(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object, /) -> Memory: ...
    def nvmlDeviceGetMigMode(self, handle: object, /) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: object, /) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: object, index: int, /) -> object: ...


@dataclass(frozen=True)
class GpuDevice:
    """A GPU of this machine.

    Attributes
    ----------
    index : int
        Its number, as ``nvidia-smi`` counts.
    uuid : str
        ``GPU-...``; empty where only the kernel was asked and it does not tell.
    name : str
        Model.
    memory_mb : float or None
        All of its memory in MiB; None where only the kernel was asked.
    driver : str
        Version of the driver, empty where unknown.
    """

    index: int
    uuid: str
    name: str
    memory_mb: float | None
    driver: str


@dataclass(frozen=True)
class GpuReading:
    """Memory of one GPU, or of one MIG instance of it, at one moment.

    Attributes
    ----------
    uuid : str
        Of the GPU or of the MIG instance.
    used_mb : float
        In use in all, in MiB.
    processes : mapping of int to float or None, or None
        Process id to its memory in MiB, context included; a value is None where the driver does not tell, the mapping
        where it does not list processes at all.
    """

    uuid: str
    used_mb: float
    processes: Mapping[int, float | None] | None


class NvmlSession:
    """The library, opened; `close` it.

    Parameters
    ----------
    api : NvmlApi, optional
        A stand-in for `pynvml`.

    Raises
    ------
    NvmlError
        On construction: no binding, no driver, or no GPU answers.
    """

    def __init__(self, api: NvmlApi | None = None) -> None:
        self._api = api or _load_binding()
        try:
            self._api.nvmlInit()
        except self._api.NVMLError as err:
            raise NvmlError(f"NVML cannot be opened: {err}") from err
        try:
            self._gpus = self._list_gpus()
            self._units = [unit for _, handle in self._gpus for unit in self._list_units(handle)]
        except self._api.NVMLError as err:
            self.close()
            raise NvmlError(f"NVML does not list its GPUs: {err}") from err

    def close(self) -> None:
        """Give the library back; the driver unloads when nobody uses it."""
        try:
            self._api.nvmlShutdown()
        except self._api.NVMLError:
            return

    def devices(self) -> tuple[GpuDevice, ...]:
        """All GPUs that answer.

        Raises
        ------
        NvmlError
            One stopped answering.
        """
        api = self._api
        try:
            driver = _text(api.nvmlSystemGetDriverVersion())
            return tuple(
                GpuDevice(
                    index, _text(api.nvmlDeviceGetUUID(handle)), _text(api.nvmlDeviceGetName(handle)),
                    round(api.nvmlDeviceGetMemoryInfo(handle).total / MIB, 1), driver,
                )
                for index, handle in self._gpus
            )  # fmt: skip
        except api.NVMLError as err:
            raise NvmlError(f"a GPU does not answer: {err}") from err

    def read(self) -> list[GpuReading]:
        """Memory of every GPU that answers, or of its MIG instances where MIG is on.

        Raises
        ------
        NvmlError
            None answers any more.
        """
        readings, last = [], None
        for uuid, handle in self._units:
            try:
                readings.append(self._read_unit(uuid, handle))
            except self._api.NVMLError as err:
                last = err
        if last is not None and not readings:
            raise NvmlError(f"the GPUs stopped answering: {last}") from last
        return readings

    def _list_gpus(self) -> list[tuple[int, object]]:
        found, last = [], None
        for index in range(self._api.nvmlDeviceGetCount()):
            try:
                found.append((index, self._api.nvmlDeviceGetHandleByIndex(index)))
            except self._api.NVMLError as err:  # one that fell off the bus must not hide the others
                last = err
        if last is not None and not found:
            raise last
        return found

    def _list_units(self, gpu: object) -> list[tuple[str, object]]:
        """The GPU itself, or its MIG instances: with MIG on, the GPU's own lists are only for privileged users."""
        api = self._api
        try:
            instances = api.nvmlDeviceGetMaxMigDeviceCount(gpu) if api.nvmlDeviceGetMigMode(gpu)[0] else 0
        except api.NVMLError:  # not a card that can do MIG
            instances = 0
        handles = []
        for index in range(instances):
            try:
                handles.append(api.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
            except api.NVMLError:  # a number that is not taken
                continue
        return [(_text(api.nvmlDeviceGetUUID(handle)), handle) for handle in handles or [gpu]]

    def _read_unit(self, uuid: str, handle: object) -> GpuReading:
        memory = self._api.nvmlDeviceGetMemoryInfo(handle)
        lists = [self._list_processes(kind, handle) for kind in _KINDS]
        if lists[0] is None:
            return GpuReading(uuid, memory.used / MIB, None)
        processes: dict[int, float | None] = {}
        for listed in lists:
            for pid, used in (listed or {}).items():
                # More than there is: the struct of another driver version was read. That is no figure.
                mb = None if used is None or used > memory.total else used / MIB
                known = processes.get(pid)
                # One process may be in several lists, each time with all of its memory.
                processes[pid] = mb if known is None else max(known, mb or 0.0)
        return GpuReading(uuid, memory.used / MIB, processes)

    def _list_processes(self, kind: str, handle: object) -> dict[int, int | None] | None:
        for version in _LIST_VERSIONS:
            call = getattr(self._api, f"nvmlDeviceGet{kind}RunningProcesses_v{version}", None)
            if call is None:
                continue
            try:
                return {int(process.pid): process.usedGpuMemory for process in call(handle)}
            except self._api.NVMLError:  # not in this driver, not for this card, or not for this user
                continue
        return None


def _load_binding() -> NvmlApi:
    try:
        return cast(NvmlApi, importlib.import_module("pynvml"))
    except ImportError as err:
        raise NvmlError("the Python package nvidia-ml-py is not installed") from err


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
