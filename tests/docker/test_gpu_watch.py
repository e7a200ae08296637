"""Whose GPU memory it is, with a real container; the driver is a fake that names processes as the host does."""

import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from fedeval.gpu import GpuWatch, in_container
from fedeval.nvml import NvmlSession
from tests.fake_nvml import Card, FakeNvml

pytestmark = pytest.mark.docker


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def processes(container: str) -> list[int]:
    return [int(line.split()[0]) for line in docker("top", container, "-eo", "pid,args").splitlines()[1:]]


@pytest.fixture
def container() -> Iterator[str]:
    """A locked-down container in which a process of a session of its own lost its parent; its full id."""
    made = docker(
        "run", "-d", "--network=none", "--cap-drop=ALL", "--user=65534:65534", "--init", "fedeval-base:bookworm",
        "sh", "-c", "(setsid sleep 61 &) ; exec sleep 60",
    )  # fmt: skip
    yield made
    docker("rm", "-f", made)


def test_every_process_of_a_container_is_its_own_and_no_other(container: str) -> None:
    owns = in_container(container)
    (state,) = json.loads(docker("inspect", container))
    pids, end = processes(container), time.monotonic() + 20
    while len(pids) < 3 and time.monotonic() < end:  # the second sleep may be still on its way
        pids = processes(container)
    assert len(pids) == 3 and state["State"]["Pid"] in pids
    assert all(owns(pid) for pid in pids)
    assert not owns(os.getpid()) and not owns(1)

    card = Card(compute={os.getpid(): 9000})
    api = FakeNvml(card)
    session, watch = NvmlSession(api), GpuWatch(api)
    watch.take(session.read())
    watch.follow(owns)
    card.compute |= dict.fromkeys(pids[1:], 700)
    watch.take(session.read())
    assert (watch.look(), watch.source) == (1400, "process")
