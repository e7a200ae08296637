"""A stranger's output in a log: capped, harmless on a terminal, its end remembered."""

from pathlib import Path

import pytest

from fedeval.engine.base import LAST_LINES, LogTail

MARKER = "\n[output above the limit was not kept]\n"


def keep(path: Path, *chunks: bytes, limit: int = 1 << 20) -> tuple[str, tuple[str, ...]]:
    tail = LogTail(path, limit)
    for chunk in chunks:
        tail.feed(chunk)
    lines = tail.close()
    return path.read_text(encoding="utf-8"), lines


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        ("größer 日本\n".encode(), "größer 日本\n"),
        (b"\x1b[31mred\x1b]0;title\x07\n", r"\x1b[31mred\x1b]0;title\x07" + "\n"),
        (b" 10%\r 20%\r\ndone\n", " 10%\n 20%\ndone\n"),
        (b"\xff\xfe bytes \x00\n", r"\xff\xfe bytes \x00" + "\n"),
        ("a\u202eb \u2066c \x9b1m d\u2028e\n".encode(), r"a\u202eb \u2066c \x9b1m d\u2028e" + "\n"),
    ],
)
def test_what_acts_on_a_terminal_is_shown_instead(tmp_path: Path, output: bytes, kept: str) -> None:
    assert keep(tmp_path / "log", output)[0] == kept
    assert keep(tmp_path / "log", *(output[i : i + 1] for i in range(len(output))))[0].replace("\n\n", "\n") == kept


def test_the_end_is_remembered_past_the_limit(tmp_path: Path) -> None:
    text, lines = keep(tmp_path / "log", b"first\n" * 100, b"x" * 5000, b"\n", b"the last\nwithout end", limit=60)
    assert text == "first\n" * 10 + MARKER
    assert lines[-2:] == ("the last", "without end") and len(lines) == LAST_LINES


def test_one_endless_line(tmp_path: Path) -> None:
    text, lines = keep(tmp_path / "log", *[b"y" * 100000] * 50, limit=1000)
    assert text == "y" * 1000 + MARKER
    assert len(lines) == 1 and lines[0].endswith("...") and len(lines[0]) == 300


def test_lines_are_safe_to_show(tmp_path: Path) -> None:
    _, lines = keep(tmp_path / "log", b"\x1b[2Jone\rtwo\n\n   \n\xfferror: forged\n")
    assert lines == (r"\x1b[2Jone", "two", "\ufffderror: forged")
