"""Builds the native kernel: ``python -m metrics_cube.build [FOLDER]``.

The library lands beside this file (or in FOLDER), under a name that git ignores. It needs a C compiler and nothing
else; where there is none the cube works without it, slower and with the same bits.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from metrics_cube.kernel_sources import LIBRARY, SOURCES, compute_source_digest

# No contraction to fused multiply-add: it would round other than numpy does. No -march: images move between machines.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra")


def run_build(library: Path = LIBRARY) -> Path:
    """Compile the kernel.

    Parameters
    ----------
    library : Path
        Where the library goes; it appears whole, by renaming.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    FileNotFoundError
        If there is no C compiler.
    subprocess.CalledProcessError
        If it fails; its message is on stderr.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise FileNotFoundError("found no C compiler (cc, gcc, clang); next: install one, or go without the kernel")
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".kernel.") as folder:
        built = Path(folder) / library.name
        define = f'-DSOURCE_DIGEST="{compute_source_digest()}"'
        command = [*compiler.split(), *FLAGS, define, "-o", str(built), str(SOURCES / "kernel.c"), "-lm"]
        subprocess.run(command, check=True)
        built.replace(library)
    return library


def main() -> int:
    """Build, and say in one line what happened."""
    library = Path(sys.argv[1]) / LIBRARY.name if len(sys.argv) > 1 else LIBRARY
    try:
        print(f"built {run_build(library)}")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"native kernel not built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
