"""The storage: complete things under their final names, all else in tmp/, where what dead runners left is removed."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedeval.errors import DiskFullError, StorageError
from fedeval.store import Store, check_space, digest_of, digest_tree, folder_name, storing, write_text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s")


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_scratch_goes_also_after_an_error_and_stays_when_asked(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.scratch("a") as folder:
        fill(folder / "deep", file="x")
        (folder / "deep").chmod(0)
        raise ZeroDivisionError
    assert not list((store.root / "tmp").iterdir())
    with store.scratch("a", keep=True) as folder:
        pass
    assert folder.is_dir()


def test_leftovers_of_a_killed_runner_go_and_those_of_a_living_one_stay(store: Store) -> None:
    make = (
        "import sys; from pathlib import Path; from fedeval.store import Store\n"
        "scratch = Store(Path(sys.argv[1])).scratch('model-infer'); (scratch.__enter__() / 'file').touch()\n"
        "print('made', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", make, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()
    with store.scratch("mine") as mine:
        Store(store.root)
        assert len(list((store.root / "tmp").iterdir())) == 2
        other.kill()
        other.wait()
        Store(store.root)
        assert list((store.root / "tmp").iterdir()) == [mine]
    other.stdin.close()
    other.stdout.close()


def test_a_reused_process_id_is_no_alibi(store: Store) -> None:
    with store.scratch("model-infer") as mine:
        dead = mine.name.rsplit("-", 1)[0].rsplit(".", 1)[0]
        elsewhere = dead.replace("model-infer-", "model-infer-1")  # a runner in another pid namespace
        for name in (f"{dead}.1-abcdefgh", f"{elsewhere}.1-abcdefgh", "not ours"):
            (store.root / "tmp" / name).mkdir()
        Store(store.root)
        left = {path.name for path in (store.root / "tmp").iterdir()}
        assert left == {mine.name, f"{elsewhere}.1-abcdefgh", "not ours"}


def test_publish_replaces_in_one_step(store: Store) -> None:
    final = store.root / "results" / "b" / "m" / "d"
    for text in ("old", "new"):
        with store.scratch("results") as scratch:
            store.publish(fill(scratch / "run", results=text), final)
    assert (final / "results").read_text() == "new" and not list((store.root / "tmp").iterdir())


def test_publish_keeps_what_is_addressed_by_its_content(store: Store) -> None:
    final = store.root / "data" / "toy"
    for text in ("old", "new"):
        with store.scratch("toy") as scratch:
            store.publish(fill(scratch / "raw", file=text), final, keep_existing=True)
    assert (final / "file").read_text() == "old"


def test_publish_under_contention_always_leaves_one_complete_folder(store: Store) -> None:
    """Six writers and a reader: whoever looks sees one complete folder, or for an instant none, never a mixture."""
    final, seen, ended = store.root / "results" / "x", set(), threading.Event()
    errors: list[Exception] = []

    def write(number: int) -> None:
        for turn in range(10):
            with store.scratch("results") as scratch:
                text = f"{number}.{turn}"
                try:
                    store.publish(fill(scratch / "run", one=text, two=text), final)
                except StorageError as err:  # allowed by its contract, never a mixture
                    errors.append(err)

    def read() -> None:
        while not ended.is_set():
            try:
                handle = os.open(final, os.O_RDONLY)
            except FileNotFoundError:
                continue
            names = tuple(sorted(entry.name for entry in os.scandir(handle)))
            with contextlib.suppress(FileNotFoundError):  # replaced meanwhile: what was seen had the name no more
                if os.path.samestat(os.fstat(handle), final.stat()):
                    seen.add(names)
            os.close(handle)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    reader = threading.Thread(target=read)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert (final / "one").read_text() == (final / "two").read_text()
    assert seen == {("one", "two")}
    assert not list((store.root / "tmp").iterdir())
    assert len(errors) < 20


def test_text_is_written_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "run.json"
    write_text(target, "first")

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFullError) as caught:
        write_text(target, "second")
    assert target.read_text() == "first" and [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert "run.json" in caught.value.what and "--storage" in caught.value.next_step


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, DiskFullError, 51), (errno.EDQUOT, DiskFullError, 51), (errno.EROFS, StorageError, 50)],
)
def test_refusals_of_the_system_are_one_clear_error(number: int, kind: type[StorageError], code: int) -> None:
    with pytest.raises(kind) as caught, storing("writing results", Path("/somewhere")):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == code and "writing results" in caught.value.what


def test_space_is_asked_for(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(DiskFullError) as caught:
        check_space(tmp_path, 1 << 60)
    assert f"expected {1 << 40} MiB" in caught.value.found


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/x"])
def test_a_storage_that_cannot_be_made(place: str) -> None:
    with pytest.raises(StorageError, match="opening the storage"):
        Store(Path(place))


def test_digests_depend_on_names_and_bytes_alone(tmp_path: Path) -> None:
    one = digest_tree(fill(tmp_path / "1", a="x", b="y"))
    os.utime(tmp_path / "1" / "a", (1, 1))
    assert digest_tree(tmp_path / "1") == one == digest_tree(fill(tmp_path / "2", b="y", a="x"))
    others = [
        fill(tmp_path / "3", a="x", b="z"),
        fill(tmp_path / "4", a="x", c="y"),
        fill(tmp_path / "5", a="xy", b=""),
    ]
    assert len({one, *map(digest_tree, others)}) == 4
    assert digest_of("a", ["b"]) != digest_of("a", "b") != digest_of("ab")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model", "model"),
        ("a b/../c", "a-b-..-c"),
        ("..", "unnamed"),
        ("\x1b[31m", "31m"),
        ("", "unnamed"),
        ("ä" * 99, "unnamed"),
    ],
)
def test_folder_names_are_harmless(text: str, expected: str) -> None:
    assert folder_name(text) == expected
    assert "/" not in folder_name(text) and folder_name("x" * 200) == "x" * 60
