"""What ``medperf doctor`` runs inside a task's isolation, to see what is really enforced there.

Stands alone: nothing but Python's standard library, so that any image with a Python can run it. Reaches for no
network address, writes nothing outside the folders it was given, and ends what it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

MARK = "fedeval-doctor:"
"""Begins the one line of output that is read."""


def look_around(data: str, out: str, most_processes: int) -> dict[str, Any]:
    """Everything that can be seen from inside.

    Parameters
    ----------
    data, out : str
        An input folder, which must not be writable, and an output folder, which must be.
    most_processes : int
        Where to stop asking for more processes; sizes in the result are MiB.
    """
    status = read_status("/proc/self/status")
    return {
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "root_read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "writable": [folder for folder in ("/", "/etc", "/usr", "/var/lib") if os.access(folder, os.W_OK)],
        "inputs_writable": can_write(Path(data)),
        "outputs_writable": can_write(Path(out), keep="seen-from-inside"),
        "no_new_privileges": status.get("NoNewPrivs"),
        "capabilities": status.get("CapEff"),
        "seccomp": status.get("Seccomp"),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "first_process": read_text("/proc/1/comm"),
        "tmp_mb": size_mb("/tmp"),
        "shm_mb": size_mb("/dev/shm"),
        "environment": sorted(os.environ),
        "sockets": [path for path in ("/var/run/docker.sock", "/run/docker.sock") if Path(path).exists()],
        "processes": count_processes(most_processes),
    }


def read_text(path: str) -> str:
    """Content of a small file; empty when it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def read_status(path: str) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    pairs = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    return {key: value.strip() for key, value in pairs}


def can_write(folder: Path, keep: str = "") -> bool:
    """Whether a file can be made in a folder; it is removed again unless it has a name to keep."""
    path = folder / (keep or f".fedeval-doctor-{os.getpid()}")
    try:
        path.write_text("written\n")
    except OSError:
        return False
    if not keep:
        path.unlink()
    return True


def size_mb(folder: str) -> float | None:
    """Size of the file system a folder lies on."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return round(found.f_blocks * found.f_frsize / 2**20, 1)


def count_processes(most: int) -> int | None:
    """How many processes were alive when the next one was refused; None when `most` could be started."""
    children: list[int] = []
    try:
        for _ in range(most):
            try:
                child = os.fork()
            except OSError:
                return len([entry for entry in Path("/proc").iterdir() if entry.name.isdigit()])
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
        return None
    finally:
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def take_memory(megabytes: int) -> None:
    """Take memory and touch every page; the kernel is expected to end this."""
    kept = []
    for _ in range(megabytes):
        kept.append(bytearray(b"x" * 2**20))
    print(MARK + json.dumps({"taken_mb": len(kept)}), flush=True)


def stay(seconds: float) -> None:
    """Stay on, whatever polite signals come."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print(MARK + "{}", flush=True)
    time.sleep(seconds)


def main() -> None:
    """``look DATA OUT MOST_PROCESSES``, ``memory MIB`` or ``stay SECONDS``."""
    action, words = sys.argv[1], sys.argv[2:]
    if action == "look":
        print(MARK + json.dumps(look_around(words[0], words[1], int(words[2]))), flush=True)
    elif action == "memory":
        take_memory(int(words[0]))
    else:
        stay(float(words[0]))


if __name__ == "__main__":
    main()
