"""Cubes for tests: a manifest, a program that needs nothing but Python, and a Dockerfile on the local base image."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent, indent

ROOT = Path(__file__).resolve().parents[1]
BASE = "fedeval-base:bookworm"

INFER = """
  infer:
    parameters:
      inputs: {data_path: data/}
      outputs: {output_path: {type: directory, default: predictions/}}
"""

PROGRAM = '''
import gzip, os, struct, sys, time
arguments = dict(word[2:].split("=", 1) for word in sys.argv[2:])
DATA, OUT = arguments["data_path"], arguments["output_path"]
CASES = sorted(os.listdir(DATA))

def header(case):
    """The 352 header bytes of a case's t1, turned into a uint8 mask's."""
    with gzip.open(f"{DATA}/{case}/{case}_brain_t1.nii.gz") as file:
        head = bytearray(file.read(352))
    struct.pack_into("<hh", head, 70, 2, 8)          # datatype uint8, bitpix
    struct.pack_into("<f", head, 108, 352.0)         # vox_offset
    struct.pack_into("<ff", head, 112, 1.0, 0.0)     # scl_slope, scl_inter
    return head

def shape(head):
    return struct.unpack_from("<8h", head, 40)[1:4]

def write(case, head=None, voxels=None, name=None):
    """A mask: by default one small box of label 4 in label 2."""
    head = header(case) if head is None else head
    x, y, z = shape(head)
    if voxels is None:
        voxels = bytearray(x * y * z)
        for k in range(z // 2, z // 2 + 4):
            for j in range(y // 2, y // 2 + 6):
                start = (k * y + j) * x + x // 2
                voxels[start:start + 6] = bytes([2, 4, 4, 4, 1, 2])
    path = f"{OUT}/{name or case + '.nii.gz'}"
    with gzip.GzipFile(path, "wb", 1, mtime=0) as file:
        file.write(bytes(head) + bytes(voxels))

'''


def make_cube(
    folder: Path,
    body: str = "for case in CASES: write(case)",
    *,
    tasks: str = INFER,
    program: str = PROGRAM,
    docker_keys: Mapping[str, str] | None = None,
    image: str | None = None,
    dockerfile: bool = True,
    extra: str = "",
) -> Path:
    """A cube at ``folder/mlcube`` and ``folder/project``; returns the folder of mlcube.yaml."""
    code = program + dedent(body)
    tag = image or f"fedeval-test/cube:{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    (folder / "mlcube" / "workspace").mkdir(parents=True)
    (folder / "project").mkdir()
    keys = "".join(f"  {key}: {value}\n" for key, value in (docker_keys or {}).items())
    (folder / "mlcube" / "mlcube.yaml").write_text(
        f'name: test cube\nplatform: {{accelerator_count: 0}}\ndocker:\n  image: "{tag}"\n'
        f"  build_context: ../project\n  build_file: Dockerfile\n{keys}"
        f"tasks:\n{indent(dedent(tasks).strip(), '  ')}\n{extra}"
    )
    (folder / "project" / "mlcube.py").write_text(code)
    if dockerfile:
        (folder / "project" / "Dockerfile").write_text(
            f'FROM {BASE}\nCOPY mlcube.py /project/mlcube.py\nENTRYPOINT ["/usr/bin/python3", "/project/mlcube.py"]\n'
        )
    return folder / "mlcube"


def medperf(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 300, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as people do, in a process of its own."""
    return subprocess.run(
        medperf_command(*arguments), capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout,
        cwd=cwd, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def medperf_command(*arguments: str | Path) -> Sequence[str]:
    """The command line of this checkout."""
    return [sys.executable, "-m", "fedeval.cli", *map(str, arguments)]
