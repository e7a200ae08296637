"""docs/hostile.md holds the corpus as it is run: same submissions, same ends, same limits."""

import re
from pathlib import Path

from fedeval import errors
from fedeval.predictions import REASONS
from tests.cube_factory import ROOT
from tests.docker.hostile_cubes import CORPUS, LIMITS, table_lines

PAGE = (ROOT / "docs" / "hostile.md").read_text(encoding="utf-8")


def test_the_table_is_the_corpus() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert table == table_lines()


def test_limits_of_the_corpus() -> None:
    shown = dict(re.findall(r"`(\w+)` (\d+)", PAGE.split("*Exit*")[0]))
    assert shown == {name: f"{value:g}" for name, value in LIMITS.items()}


def test_every_end_is_known() -> None:
    """States, reasons and exit codes are the runner's own."""
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    limits = {"time", "memory", "output_size", "output_files"}
    for cube in CORPUS:
        assert cube.exit_code in codes | {0}
        for state in cube.states:
            status, _, reason = state.partition(": ")
            assert status in {"ok", "missing", "invalid", "timeout", "crashed", "out_of_memory"}
            assert reason in {*REASONS, *limits, "exit code 3", ""}


def test_files_named_on_the_page_are_there() -> None:
    for name in re.findall(r"`(tests/\S+\.py)`", PAGE):
        assert (ROOT / name).is_file()
    for name in re.findall(r"\]\((\w+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).is_file()
    assert Path(ROOT / "docs" / "hostile.md").stat().st_size < 1 << 20
