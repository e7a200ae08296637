"""bubblewrap around the process engine's child: namespaces without a network, read-only data, nothing else in sight."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fedeval.engine.base import TaskCall
from fedeval.log import LOGGER, show_safe

_NAMESPACES = ("--unshare-all", "--die-with-parent", "--cap-drop", "ALL")

_PROGRAMS = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime",
    "/sys/devices/system/cpu",
)  # fmt: skip
"""All that a task sees of the host besides the Python that runs it: no data, wherever a site keeps them."""


@cache
def find_bubblewrap() -> str | None:
    """The program, when it is installed and this machine lets it make namespaces; it is tried once."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    attempt = [program, *_NAMESPACES, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true"]
    done = subprocess.run(attempt, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        LOGGER.warning("bubblewrap cannot be used here: %s", show_safe(done.stderr.strip()))
        return None
    return program


def sandbox_command(call: TaskCall, hidden: Sequence[Path]) -> list[str]:
    """What goes before the command: the host's programs read-only, then the task's own mounts; nothing else is there.

    Parameters
    ----------
    call : TaskCall
        Its cube's code, inputs and outputs are bound at their own paths.
    hidden : sequence of Path
        Folders of the host that the task must not see: home, storage (labels lie there), /tmp, /run; they are there,
        and empty.
    """
    program = find_bubblewrap()
    if program is None:
        return []
    command = [program, *_NAMESPACES]
    for place in _PROGRAMS:
        command += ["--ro-bind-try", place, place]
    command += ["--dev", "/dev", "--proc", "/proc", *_gpu_devices(call)]
    command += ["--size", str(call.limits.shm_mb << 20), "--tmpfs", "/dev/shm"]
    for folder in (*hidden, Path("/var/tmp")):
        if folder.is_dir():
            command += ["--size", str(call.limits.tmp_mb << 20), "--tmpfs", str(folder)]
    needed = [Path(sys.prefix), Path(sys.base_prefix), call.manifest.build_context]
    for path in dict.fromkeys(needed):
        command += ["--ro-bind", str(path), str(path)]
    for binding in call.invocation.bindings:
        kind = "--ro-bind" if binding.read_only else "--bind"
        command += [kind, str(binding.host), str(binding.host)]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]


def _gpu_devices(call: TaskCall) -> list[str]:
    """Devices of NVIDIA's driver, for a cube that asks for a GPU."""
    devices = sorted(Path("/dev").glob("nvidia*")) if call.manifest.accelerator_count else []
    bound = [word for device in devices for word in ("--dev-bind-try", str(device), str(device))]
    return [*bound, "--ro-bind", "/sys", "/sys"] if devices else []
