"""Whose process it is that the driver names: real processes, sessions, orphans and namespaces; cgroups from files."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedeval.gpu import in_container, in_process_tree

CONTAINER = "0123456789abcdef" * 4


@contextlib.contextmanager
def tree(code: str, pids: int, own_session: bool = True) -> Iterator[list[int]]:
    """Run a program that prints process ids and sleeps; its own id, then those. They are killed afterwards."""
    child = subprocess.Popen(
        [sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True, start_new_session=own_session
    )
    assert child.stdout is not None
    found = [child.pid, *(int(child.stdout.readline()) for _ in range(pids))]
    try:
        yield found
    finally:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()


IN_SESSIONS_OF_THEIR_OWN = """
import os, time
for generation in range(3):
    if os.fork():
        time.sleep(60)
    os.setsid()
    print(os.getpid())
time.sleep(60)
"""
ORPHAN = """
import os, time
if not os.fork():
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    os.setpgid(0, 0)
    while os.getppid() == parent: time.sleep(0.01)
    print(os.getpid())
time.sleep(60)
"""


@pytest.mark.parametrize("own_session", [True, False])
def test_descendants_count_also_in_sessions_of_their_own(own_session: bool) -> None:
    with tree(IN_SESSIONS_OF_THEIR_OWN, 3, own_session) as pids:
        owns = in_process_tree(pids[0])
        assert len(pids) == 4 and all(owns(pid) for pid in pids)
        assert not owns(os.getpid()) and not owns(os.getppid()) and not owns(1) and not owns(2**22 + 1)
        assert not in_process_tree(pids[2])(pids[1])


def test_an_orphan_is_found_by_its_session() -> None:
    """Its parent is gone and it has a process group of its own."""
    with tree(ORPHAN, 1) as (leader, orphan):
        assert in_process_tree(leader)(orphan)


def test_an_orphan_is_found_by_its_group() -> None:
    """A task that leads a process group in another's session."""
    code = ORPHAN.replace("os.setpgid(0, 0)", "pass").replace("import os, time", "import os, time; os.setpgid(0, 0)")
    with tree(code, 1, own_session=False) as (leader, orphan):
        assert in_process_tree(leader)(orphan)


@pytest.mark.parametrize(
    "path", ["4:memory:/docker/{}", "0::/system.slice/docker-{}.scope", "0::/user.slice/libpod-{}.scope/container"]
)
def test_processes_of_a_container_are_told_by_their_cgroup(tmp_path: Path, path: str) -> None:
    for pid, container in ((10, CONTAINER), (11, CONTAINER[::-1])):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text("9:name=systemd:/\n" + path.format(container) + "\n")
    owns = in_container(CONTAINER, tmp_path)
    assert owns(10) and not owns(11) and not owns(12)


@pytest.mark.parametrize("text", ["", "docker", "0123", "../../etc"])
def test_what_is_no_container_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no container id"):
        in_container(text)


def named(argument: str) -> int | None:
    """Process id, on this machine, of the ``sleep`` with this argument."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == f"sleep\0{argument}\0".encode():
                return int(folder.name)
    return None


def test_a_process_namespace_keeps_those_who_try_to_get_away() -> None:
    """Own session and no parents left, which in the open would be lost: in bubblewrap's namespace it stays below."""
    bwrap = ["bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "--die-with-parent"]
    if shutil.which("bwrap") is None or subprocess.run([*bwrap, "true"], capture_output=True).returncode:
        pytest.skip("bubblewrap does not work here")
    argument = f"60.{os.getpid()}"
    child = subprocess.Popen([*bwrap, "sh", "-c", f"(setsid sleep {argument} &); sleep 60"], start_new_session=True)
    try:
        end = time.monotonic() + 20
        while (escaped := named(argument)) is None and time.monotonic() < end:
            time.sleep(0.01)
        assert escaped is not None
        assert os.getsid(escaped) != child.pid
        assert in_process_tree(child.pid)(escaped)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
