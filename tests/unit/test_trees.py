"""Folders that a stranger filled: any depth, any names, locked, moved meanwhile; links lead nowhere."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedeval.trees import give_tree, measure_tree, remove_tree, walk_tree

NOBODY = 65534


def nest(top: Path, depth: int) -> None:
    """Folders far below the longest path that can be opened by name (4096 characters)."""
    with contextlib.chdir(top):
        for _ in range(depth):
            os.mkdir("a folder")  # noqa: PTH102
            os.chdir("a folder")
        Path("file").write_bytes(bytes(10000))


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may look into every folder: these tests are about others."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the ordinary user, whom pytest's private folders above let pass."""
    folder = tmp_path / "own"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        for above in (tmp_path, *tmp_path.parents[:3]):
            above.chmod(above.stat().st_mode | 0o011)
    return folder


def test_depth_beyond_all_paths(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 1100)
    size, entries = measure_tree(top, 1 << 40, 1 << 40)
    assert entries == 1101 and size >= 10000
    assert len([entry for entry in walk_tree(top) if entry.left]) == 1100
    give_tree(top, os.getuid(), os.getgid())
    remove_tree(top)
    assert not top.exists()


def test_counting_ends_above_the_maximum(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}\n\x1b[31m").write_bytes(bytes(4096))
    assert measure_tree(tmp_path, 1 << 40, 10)[1] == 11
    assert measure_tree(tmp_path, 40960, 1000)[0] in range(40961, 60000)
    assert measure_tree(tmp_path / "absent", 1, 1) == (0, 0)


def test_links_and_holes_count_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "big").write_bytes(bytes(1 << 20))
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "outside")
    with (top / "holes").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(top / "pipe")
    size, entries = measure_tree(top, 1 << 50, 100)
    assert size < 1 << 16 and entries == 3
    give_tree(top, os.getuid(), os.getgid())
    remove_tree(top)
    assert not top.exists() and (tmp_path / "outside" / "big").is_file()


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_locked_folders_hide_nothing_and_can_go(own: Path, mode: int) -> None:
    with ordinary_user():
        locked = own / "top" / "locked"
        (locked / "inner").mkdir(parents=True)
        (locked / "inner" / "file").write_bytes(bytes(1 << 16))
        (locked / "inner").chmod(mode)
        locked.chmod(mode)
        (own / "top").chmod(mode)
        size, entries = measure_tree(own / "top", 1 << 40, 100)
        assert entries == 3 and size >= 1 << 16
        remove_tree(own / "top")
        assert not (own / "top").exists()


def test_a_link_put_in_place_of_a_locked_folder_is_not_opened_up(own: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").touch()
    with ordinary_user():
        (own / "link").symlink_to(secret)
        assert measure_tree(own, 1 << 40, 100)[1] == 1
    assert secret.stat().st_mode & 0o777 == 0o700


def test_a_tree_moved_meanwhile_ends_the_walk(tmp_path: Path) -> None:
    """Climbing with .. must not lead out of the tree."""
    (tmp_path / "outside").mkdir()
    top = tmp_path / "top"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "z").mkdir()
    seen = []
    for entry in walk_tree(top):
        seen.append(entry.name)
        if entry.name == "c" and not entry.left:
            shutil.move(top / "a" / "b", tmp_path / "outside" / "b")
    assert "outside" not in seen and set(seen) <= {"a", "b", "c", "z"}


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    nest(tmp_path, 20)
    before = len(list(Path("/proc/self/fd").iterdir()))
    measure_tree(tmp_path, 1 << 40, 5)
    list(walk_tree(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
