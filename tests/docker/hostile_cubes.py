"""The hostile corpus as data: what each submission tries, its program, and how it must end.

`tests/docker/test_hostile.py` runs every one of them in real containers; `docs/hostile.md` holds the same table, kept
equal by `tests/unit/test_hostile_page.py`. Network attempts aim only at listeners that the test itself opens, on the
host's loopback or in a network namespace of its own. Words between @ are filled in by the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.docker.hostile_programs import (
    BURGLAR,
    GZIP,
    HEADERS,
    NETWORK,
    PICKLES,
    SURVIVOR,
    TERMINAL,
    TMP,
)

LIMITS: Mapping[str, float] = {
    "per_case_s": 60, "memory_mb": 256, "pids": 100, "tmp_mb": 16, "shm_mb": 16, "output_mb": 32, "output_files": 2000,
    "log_mb": 1,
}  # fmt: skip
"""Limits of the corpus, small so that bombs need not be big; else those of benchmark 1."""


@dataclass(frozen=True)
class HostileCube:
    """One submission.

    Attributes
    ----------
    name : str
        Folder of the cube.
    tries, happened : str
        For people: what it tries, and what came of it.
    body : str
        Its program, after `cube_factory.PROGRAM` and `hostile_programs.PRELUDE`.
    states : tuple of str
        ``status`` or ``status: reason`` of the three cases, in order.
    exit_code : int
        What `medperf test` ends with, and what run.json records.
    facts : mapping
        What the program finds out itself and prints.
    queue : str
        ``main``, ``short`` (1 s a case), ``per_case`` or ``small_disk`` (a storage of 256 MiB).
    dockerfile : str
        More lines for its Dockerfile.
    """

    name: str
    tries: str
    happened: str
    body: str
    states: tuple[str, str, str] = ("ok", "ok", "ok")
    exit_code: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    queue: str = "main"
    dockerfile: str = ""


CORPUS = (
    HostileCube(
        "network",
        "connects to listeners of the test: on the host's loopback by address and by name, in another network "
        "namespace, on an abstract socket, on a socket left among the images; tries the engine's socket and a raw one",
        "No listener was reached; only `lo` is there. Sockets, pipes and devices among prepared images are not given "
        "to a model.",
        NETWORK,
        facts={
            "address": "ECONNREFUSED", "name": "no such name", "namespace": "ECONNREFUSED", "abstract": "ECONNREFUSED",
            "in_data": "ENOENT", "engine": "ENOENT", "raw": "EPERM", "interfaces": ["lo"],
        },
    ),
    HostileCube(
        "burglar",
        "searches the whole file system for the references, by name and by content; looks for other processes and for "
        "the runner's environment; writes to, renames, links and re-labels inputs; makes devices; leaves its output "
        "folder; mounts; becomes root; writes kernel settings; kills the init process",
        "No reference was found, nobody else was seen, every attempt was refused or without effect, the images are "
        "unchanged. It did see where the storage lies (below).",
        BURGLAR,
        facts={
            "references": [], "processes": [], "secret": False, "inputs": ["EROFS"], "link_of_an_input": "EXDEV",
            "device": "EPERM", "memory_device": "EPERM", "above": "EROFS", "mount": "EPERM", "namespaces": "EPERM",
            "root": "EPERM", "kernel": "EROFS", "killed_init": "done",
            "storage": True,
        },
    ),
    HostileCube(
        "peeker",
        "with `--per-case`: looks for other cases' images and results, and leaves notes for its next container",
        "Each container saw one case, an empty output folder and an empty `/tmp`.",
        """
        tell(cases=len(CASES), outputs=os.listdir(OUT), temporary=os.listdir("/tmp") + os.listdir("/dev/shm"))
        for path in (f"{OUT}/.note", "/tmp/note", "/dev/shm/note"): open(path, "w").close()
        for case in CASES: write(case)
        """,
        facts={"cases": 1, "outputs": [], "temporary": []},
        queue="per_case",
    ),
    HostileCube(
        "fork-bomb",
        "forks without end, in every process it has",
        "The kernel refused above `pids`; the time limit ended all of them.",
        """
        write(CASES[0])
        started = 0
        try:
            while os.fork():
                started += 1
        except OSError as error:
            tell(refused=errno.errorcode[error.errno], above=started > 100)
        while True:
            attempt(os.fork)
            time.sleep(0.02)
        """,
        ("ok", "timeout: time", "timeout: time"), 30, {"refused": "EAGAIN", "above": False}, "short",
    ),
    HostileCube(
        "memory-bomb",
        "takes memory without end",
        "Killed at the limit; what was finished before is scored.",
        "write(CASES[0])\nx = []\nwhile True: x.append(b'1' * (8 << 20))",
        ("ok", "out_of_memory: memory", "out_of_memory: memory"), 31,
    ),
    HostileCube(
        "tmp-bomb",
        "fills `/tmp`, `/var/tmp`, `/dev/shm`, a folder that its image declares with VOLUME, its code's folder and `/`",
        "Each has its own size or is read-only. As the engine makes it, a VOLUME is disk without a limit: here it is a "
        "tmpfs.",
        TMP,
        facts={"filled": {
            "/tmp": ["ENOSPC", 16], "/var/tmp": ["ENOSPC", 16], "/dev/shm": ["ENOSPC", 16], "/scratch": ["ENOSPC", 16],
            "/project": ["EROFS", 0], "/": ["EROFS", 0],
        }},
        dockerfile="RUN mkdir -m 777 /scratch\nVOLUME /scratch",
    ),
    HostileCube(
        "disk-bomb",
        "writes file after file into its output folder",
        "Killed at `output_mb`; what was finished before is scored.",
        """
        write(CASES[0])
        for number in range(250):
            with open(f"{OUT}/.{number}", "wb") as file: os.posix_fallocate(file.fileno(), 0, 16 << 20)
            time.sleep(0.02)
        time.sleep(60)
        """,
        ("ok", "crashed: output_size", "crashed: output_size"), 32,
    ),
    HostileCube(
        "hidden-disk-bomb",
        "writes without end to a file that it has deleted, which no folder shows",
        "Killed when most of the disk's free space was gone; the space came back with its end.",
        """
        write(CASES[0])
        file = open(f"{OUT}/hidden", "wb", 0)
        os.unlink(file.name)
        try:
            while True: file.write(bytes(4 << 20))
        except OSError:
            time.sleep(60)
        """,
        ("ok", "crashed: output_size", "crashed: output_size"), 32, queue="small_disk",
    ),
    HostileCube(
        "file-bomb",
        "makes thousands of files, with newlines, escape sequences and HTML in their names",
        "Killed at `output_files`; no name was shown or kept.",
        """
        write(CASES[0])
        for number in range(5000): open(f"{OUT}/@EVIL@{number}\\n", "w").close()
        time.sleep(60)
        """,
        ("ok", "crashed: output_files", "crashed: output_files"), 32,
    ),
    HostileCube(
        "deep-folders",
        "nests 1200 folders in each other, the innermost locked, far below the longest path that can be opened",
        "Measured, handed over and removed level by level.",
        """
        for case in CASES: write(case)
        os.chdir(OUT)
        for _ in range(1200):
            os.mkdir("a folder in a folder")
            os.chdir("a folder in a folder")
        os.mkdir("locked", 0)
        """,
    ),
    HostileCube(
        "log-bomb",
        "prints 200 MB",
        "Two copies, the engine's and ours, end at `log_mb`; nothing else came of it.",
        """
        for case in CASES: write(case)
        for _ in range(200): os.write(1, (b"x" * 99 + b"\\n") * 10000)
        """,
    ),
    HostileCube(
        "terminal",
        "prints escape sequences, HTML, invalid UTF-8, 5 MB without a newline and forged errors; names files like "
        "that, and with `..` and backslashes; exits with 3",
        "Shown as text, with escapes made visible, in the log, on the terminal and in the report.",
        TERMINAL,
        ("ok", "crashed: exit code 3", "crashed: exit code 3"), 22,
    ),
    HostileCube(
        "immortal",
        "ignores every signal, starts a daemon of its own by a double fork, and never ends",
        "Killed at the time limit with everything it had started.",
        """
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
        write(CASES[0])
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
        open("/proc/self/comm", "w").write("@MARK@")
        while True: time.sleep(0.1)
        """,
        ("ok", "timeout: time", "timeout: time"), 30, queue="short",
    ),
    HostileCube(
        "survivor",
        "ends well but leaves a daemon that keeps swapping a prediction for another, to change it while it is checked",
        "The daemon was gone before anything was checked; one whole prediction was checked, scored and kept.",
        SURVIVOR,
    ),
    HostileCube(
        "links",
        "predictions that are a symbolic link to `/etc/passwd`, one to the reference, and a file with a second name",
        "Refused without being followed.",
        """
        os.symlink("/etc/passwd", place(CASES[0]))
        os.symlink(f"@LABELS@/{CASES[1]}_final_seg.nii.gz", place(CASES[1]))
        write(CASES[2])
        os.link(place(CASES[2]), f"{OUT}/second")
        """,
        ("invalid: not_a_regular_file",) * 3, 41,
    ),
    HostileCube(
        "no-files",
        "predictions that are a folder, a pipe and a socket",
        "Refused without waiting for them.",
        """
        os.mkdir(place(CASES[0]))
        os.mkfifo(place(CASES[1]))
        socket.socket(socket.AF_UNIX).bind(place(CASES[2]))
        """,
        ("invalid: not_a_regular_file",) * 3, 41,
    ),
    HostileCube(
        "headers",
        "NIfTI headers that announce 281 TB, an extension of 2 GB with 4 GB to fill it, and voxels after 3 GB",
        "Only the header was read, or as many bytes as the reference's grid needs.",
        HEADERS,
        ("invalid: wrong_shape", "invalid: too_long", "invalid: not_a_nifti"), 42,
    ),
    HostileCube(
        "gzip-bombs",
        "a good mask with 4 GiB of zeros after it in a small file; 200,000 gzip members in one; a file of 4 TiB with "
        "nothing but holes",
        "Refused after as many bytes as the reference's grid needs; the third was not copied at all.",
        GZIP,
        ("invalid: too_long", "invalid: not_a_nifti", "invalid: too_long"), 41,
    ),
    HostileCube(
        "pickles",
        "a pickle and a numpy array of objects that run a command when they are loaded, named like predictions; and "
        "only a `.pkl`",
        "Nothing was loaded; the command did not run.",
        PICKLES,
        ("invalid: not_a_nifti", "invalid: not_a_nifti", "missing: missing"), 41,
    ),
    HostileCube(
        "nothing", "exits with 0 and has written nothing", "Every case is missing, with the official penalty.",
        "pass", ("missing: missing",) * 3, 40,
    ),
    HostileCube(
        "honest", "nothing: the last of the queue, to see that the others did no harm", "Scored.",
        "for case in CASES: write(case)",
    ),
)  # fmt: skip


def table_lines() -> list[str]:
    """The corpus as lines of a Markdown table."""
    lines = ["| submission | what it tries | exit | the three cases | what happened |", "|---|---|---|---|---|"]
    for cube in CORPUS:
        states = dict.fromkeys(cube.states)
        shown = ", ".join(f"{cube.states.count(state)} x `{state}`" for state in states)
        lines.append(f"| {cube.name} | {cube.tries} | {cube.exit_code} | {shown} | {cube.happened} |")
    return lines
