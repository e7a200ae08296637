"""NVIDIA's management library as tests need it: what `pynvml` offers, over cards that a test describes."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from fedeval.nvml import MIB

Listed = dict[int, int | None]


@dataclass
class Card:
    """A GPU or MIG instance; memory in MiB."""

    uuid: str = "GPU-0"
    total: int = 16384
    used: int = 300
    compute: Listed = field(default_factory=dict)
    graphics: Listed = field(default_factory=dict)
    mps: Listed = field(default_factory=dict)
    instances: Sequence["Card | None"] = ()
    lost: bool = False


class FakeNvml:
    """Behaves as `pynvml`; `old_driver` knows only the second version of the lists, `blind` none."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards: Card, old_driver: bool = False, blind: bool = False) -> None:
        self.cards, self.old_driver, self.blind = cards, old_driver, blind
        self.hang: threading.Event | None = None
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.159.04"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return self._card(self.cards[index])

    def nvmlDeviceGetUUID(self, handle: object) -> str:
        return self._card(handle).uuid

    def nvmlDeviceGetName(self, handle: object) -> str:
        return "NVIDIA Test"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:
        if self.hang:
            self.hang.wait(30)
        return SimpleNamespace(total=self._card(handle).total * MIB, used=self._card(handle).used * MIB)

    def nvmlDeviceGetMigMode(self, handle: object) -> list[int]:
        if not self._card(handle).instances:
            raise self.NVMLError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: object) -> int:
        return len(self._card(handle).instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: object, index: int) -> object:
        instance = self._card(handle).instances[index]
        if instance is None:
            raise self.NVMLError("Not Found")
        return instance

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: object) -> list[SimpleNamespace]:
        return self._list(handle, self._card(handle).compute, 3)

    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: object) -> list[SimpleNamespace]:
        return self._list(handle, self._card(handle).compute, 2)

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: object) -> list[SimpleNamespace]:
        return self._list(handle, self._card(handle).graphics, 3)

    def nvmlDeviceGetMPSComputeRunningProcesses_v3(self, handle: object) -> list[SimpleNamespace]:
        return self._list(handle, self._card(handle).mps, 3)

    def _card(self, handle: object) -> Card:
        assert isinstance(handle, Card)
        if handle.lost:
            raise self.NVMLError("GPU is lost")
        return handle

    def _list(self, handle: object, listed: Listed, version: int) -> list[SimpleNamespace]:
        if self.blind or (self.old_driver and version == 3):
            raise self.NVMLError("Function Not Found")
        return [SimpleNamespace(pid=pid, usedGpuMemory=None if mb is None else mb * MIB) for pid, mb in listed.items()]
