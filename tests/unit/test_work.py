"""The work folder: one runner at a time, a journal all or nothing, nothing stale in it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fedeval.errors import InputError, InterruptedRunError, StorageError
from fedeval.store import Store
from fedeval.work import CaseRecord, Journal, WorkFolder, link_tree, open_work

KEY = "0123456789abcdef" * 4


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s")


def work_folders(store: Store) -> list[Path]:
    return sorted((store.root / "predictions").iterdir())


def note(text: str) -> None:
    """Nobody listens."""


def open_folder(store: Store, key: str = KEY, resume: bool = True) -> AbstractContextManager[WorkFolder]:
    return open_work(store, key, resume, note, threading.Event())


def test_goes_when_all_is_well_and_stays_when_not(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), open_folder(store) as work:
        work.save_journal(Journal({"a": CaseRecord("a", "ok", None, "", 1.5)}, {"a": 1.5}, 12.0))
        raise ZeroDivisionError
    assert len(work_folders(store)) == 1
    with open_folder(store) as work:
        journal = work.load_journal()
        assert journal.resumed and journal.cases == {"a": CaseRecord("a", "ok", None, "", 1.5)}
        assert (journal.walls, journal.latest_end) == ({"a": 1.5}, 12.0)
    assert work_folders(store) == []


def test_without_resume_it_is_empty(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), open_folder(store) as work:
        work.save_journal(Journal({"a": CaseRecord("a", "ok", None, "", 1.5)}))
        work.accepted.mkdir()
        (work.accepted / "a.nii.gz").touch()
        raise ZeroDivisionError
    with open_folder(store, resume=False) as work:
        assert not work.load_journal().resumed and not work.accepted.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"cases": {}}', '{"cases": {"a": {}}, "walls": {}, "latest_end": null}',
     '{"cases": {"a": 3}, "walls": {}, "latest_end": null}', '{"cases": {}, "walls": 3, "latest_end": null}', "\xff"],
)  # fmt: skip
def test_a_journal_that_cannot_be_read_is_none(store: Store, text: str) -> None:
    with open_folder(store) as work:
        (work.folder / "journal.json").write_text(text, encoding="latin-1")
        journal = work.load_journal()
        assert (journal.cases, journal.resumed) == ({}, False)


def begin(work: WorkFolder, data: Path, *cases: str) -> None:
    work.begin_attempt(data, cases, [f"{case}.nii.gz" for case in cases])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for case in ("a", "b c"):
        (tmp_path / "data" / case / "sub").mkdir(parents=True)
        (tmp_path / "data" / case / f"{case}.nii.gz").write_text(case)
        (tmp_path / "data" / case / "sub" / "more").write_text("more")
    return tmp_path / "data"


def test_an_attempt_sees_its_cases_alone_and_nothing_of_the_one_before(store: Store, data: Path) -> None:
    with open_folder(store) as work:
        begin(work, data, "a", "b c")
        assert (work.inputs / "b c" / "sub" / "more").read_text() == "more"
        (work.found / "a.nii.gz").write_text("old")
        (work.accepted / "a.nii.gz").write_text("half copied when the runner was killed")
        (work.accepted / "b c.nii.gz").write_text("complete, of a case that is not done again")
        begin(work, data, "a")
        assert [path.name for path in work.inputs.iterdir()] == ["a"] and not list(work.found.iterdir())
        assert [path.name for path in work.accepted.iterdir()] == ["b c.nii.gz"]


def test_predictions_are_on_the_disk_before_the_journal_says_so(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not leave a journal that speaks of files without content."""
    synced: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with open_folder(store) as work:
        begin(work, data, "a", "b c")
        (work.accepted / "a.nii.gz").write_text("mask")
        work.keep_accepted(["a.nii.gz", "b c.nii.gz"])
        work.save_journal(Journal())
        assert synced == ["a.nii.gz", "accepted", ".journal.json.partial"]


def test_inputs_of_an_attempt_take_no_space(store: Store, data: Path) -> None:
    with open_folder(store) as work:
        begin(work, data, "a")
        assert (work.inputs / "a" / "a.nii.gz").samefile(data / "a" / "a.nii.gz")


def test_across_file_systems_inputs_are_copied(store: Store, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with open_folder(store) as work:
        begin(work, data, "a")
        assert (work.inputs / "a" / "a.nii.gz").read_text() == "a"


def test_a_case_that_is_gone_and_a_link_are_faults_of_the_site(store: Store, data: Path) -> None:
    with open_folder(store) as work:
        with pytest.raises(InputError, match="case x are gone"):
            begin(work, data, "x")
        (data / "a" / "t1").symlink_to(data / "a" / "a.nii.gz")
        with pytest.raises(InputError, match="symbolic link"):
            begin(work, data, "a")


def test_sockets_and_pipes_are_left_out(data: Path, tmp_path: Path) -> None:
    os.mkfifo(data / "a" / "pipe")
    link_tree(data / "a", tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["a.nii.gz", "sub"]


@pytest.fixture
def other_runner(store: Store) -> Iterator[threading.Event]:
    """Somebody else has the folder until the event is set."""
    held, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with open_folder(store):
            held.set()
            give_back.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    yield give_back
    give_back.set()
    thread.join()


def test_a_second_runner_waits_and_says_so_once(store: Store, other_runner: threading.Event) -> None:
    notes: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with open_work(store, KEY, True, notes.append, threading.Event()) as work:
            assert not work.load_journal().resumed
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.7)
    other_runner.set()
    assert entered.wait(60)
    thread.join()
    assert notes == ["  another runner works on the same run: waiting for it"]
    assert work_folders(store) == []


def test_waiting_can_be_stopped(store: Store, other_runner: threading.Event) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(InterruptedRunError), open_work(store, KEY, True, note, stop):
        raise AssertionError("two at the same time")


def test_other_runs_do_not_wait(store: Store, other_runner: threading.Event) -> None:
    with open_folder(store, "f" * 64) as work:
        assert work.folder.name == ".work-" + "f" * 24


def test_many_runners_one_after_the_other(store: Store) -> None:
    """Each removes the folder under the feet of those who wait; never two inside."""
    inside, most, entered = 0, 0, 0

    def run() -> None:
        nonlocal inside, most, entered
        for _ in range(8):
            with open_folder(store):
                inside += 1
                most, entered = max(most, inside), entered + 1
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, 48) and work_folders(store) == []


def test_work_that_nobody_came_back_to_is_removed_after_a_month(store: Store) -> None:
    for key in ("old", "new"):
        with pytest.raises(ZeroDivisionError), open_folder(store, key):
            raise ZeroDivisionError
    old = time.time() - 40 * 86400
    os.utime(store.root / "predictions" / ".work-old", (old, old))
    with open_folder(store):
        pass
    assert [path.name for path in work_folders(store)] == [".work-new"]


def test_old_work_that_somebody_has_open_stays(store: Store, other_runner: threading.Event) -> None:
    (folder,) = work_folders(store)
    old = time.time() - 40 * 86400
    os.utime(folder, (old, old))
    with open_folder(store, "another"):
        assert folder.is_dir()


def test_a_folder_that_cannot_be_made(store: Store) -> None:
    (store.root / "predictions").rmdir()
    (store.root / "predictions").touch()
    with pytest.raises(StorageError), open_folder(store):
        pass
