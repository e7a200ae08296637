"""``medperf doctor``: an image made of nothing but this machine's Python, for an engine that has no image yet.

It holds the files that the probe loads, found by loading them once: the interpreter, some modules, some libraries;
about 50 MB, no registry, no Dockerfile.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

FLAGS = ("-I", "-S")
"""No site packages, no environment: what is loaded is the same inside."""

_LIST_FILES = """
import runpy, sys
runpy.run_path(sys.argv[1])
import pathlib, signal
names = {str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
packages = [place for module in list(sys.modules.values()) for place in getattr(module, "__path__", ())]
names |= {str(file) for place in packages for file in pathlib.Path(place).glob("*.py")}
names |= {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
print("\\n".join(sorted(names)))
"""


def list_files(probe: Path) -> list[Path]:
    """Files that this Python opens to run a program, besides the program.

    Raises
    ------
    subprocess.CalledProcessError
        It cannot be run here either.
    """
    command = [_interpreter(), *FLAGS, "-c", _LIST_FILES, str(probe)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    loaded = {Path(line) for line in done.stdout.splitlines() if line.startswith("/") and line != str(probe)}
    return sorted({Path(_interpreter()), *loaded, *_other_names(loaded)})


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _other_names(files: set[Path]) -> set[Path]:
    """Names under which the loader asks for libraries: links beside them, and the loader's own in /lib64 or /lib."""
    found = set()
    for file in files:
        if ".so" in file.name:
            places = {file.parent, Path("/lib64"), Path("/lib")}
            stem = file.name.split(".so")[0].split("-")[0]
            for place in places:
                links = place.glob(f"{stem}*.so*") if place.is_dir() else ()
                found |= {link for link in links if link.is_symlink() and link.resolve() == file.resolve()}
    return found


def build_archive(probe: Path) -> bytes:
    """A tar archive of `list_files`, each under every name it is asked for; folders of the machine that are links
    (``/lib``) stay links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for link in (Path("/bin"), Path("/lib"), Path("/lib64")):
            if link.is_symlink():
                archive.add(link, arcname=str(link).lstrip("/"))
        for file in list_files(probe):
            entry = tarfile.TarInfo(str(file.parent.resolve() / file.name).lstrip("/"))
            content = file.read_bytes()
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
