"""Site files: the quick and the strict reader agree, keys are text, and every bad input has one clear error."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.errors import InputError
from ranking.plain_yaml import MAX_DEPTH, PlainYamlError, load_plain_yaml
from ranking.read import load_site_files
from ranking.regular_yaml import SiteValues, read_regular_yaml
from ranking.rules import load_rule, read_number
from ranking.tables import build_study

METRICS = tuple(metric.name for metric in load_rule().metrics)


def format_site(cases: dict[str, dict[str, dict[str, object] | None]]) -> str:
    """A site file as PyYAML writes it."""
    return yaml.safe_dump(cases, sort_keys=False)


def fill(dice: float = 0.5, distance: float = 9.0) -> dict[str, object]:
    """Six metrics."""
    return {name: dice if name.startswith("Dice") else distance for name in METRICS}


def load_text(folder: Path, text: str, name: str = "a.yaml") -> SiteValues:
    """Read one site file by the program's way."""
    (folder / name).write_text(text, encoding="utf-8")
    return load_site_files(folder, load_rule())[0].content


def check_error(folder: Path, *parts: str) -> None:
    """Reading the folder must fail with a message that has all parts."""
    with pytest.raises(InputError) as caught:
        build_study(load_site_files(folder, load_rule()), load_rule())
    for part in parts:
        assert part in str(caught.value)


names = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
numbers = st.one_of(st.floats(width=64), st.none(), st.integers(-5, 5), st.sampled_from([1e-05, 1e22, 374.0]))


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(names, st.dictionaries(names, st.none(), min_size=1), min_size=1, max_size=4), st.data())
def test_quick_reader_agrees_with_pyyaml(shape: dict[str, dict[str, None]], data: st.DataObject) -> None:
    """Whatever the quick reader accepts of PyYAML's own output, it reads as PyYAML wrote it."""
    cases = {
        case: {name: {metric: data.draw(numbers) for metric in METRICS} for name in submissions}
        for case, submissions in shape.items()
    }
    content = read_regular_yaml(yaml.safe_dump(cases, sort_keys=False), METRICS)
    if content is None:
        return  # left to the strict reader
    assert content.cases == list(cases)
    for row, case in enumerate(content.cases):
        for column, name in enumerate(content.submissions):
            assert content.stated[row, column].all() == (name in cases[case])
            for number, metric in enumerate(METRICS):
                value = cases[case].get(name, {}).get(metric)
                expected = math.nan if value is None else float(value)
                assert np.array_equal(content.values[row, column, number], expected, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, st.dictionaries(names, st.none(), min_size=1), min_size=1, max_size=4), st.data())
def test_strict_reader_agrees_with_the_quick_one(
    tmp_path_factory: pytest.TempPathFactory, shape: dict[str, dict[str, None]], data: st.DataObject
) -> None:
    cases = {
        case: {name: {metric: data.draw(numbers) for metric in METRICS} for name in submissions}
        for case, submissions in shape.items()
    }
    block = yaml.safe_dump(cases, sort_keys=False)
    flow = yaml.safe_dump(cases, sort_keys=False, default_flow_style=True)  # never regular
    folder = tmp_path_factory.mktemp("flow")
    quick, strict = read_regular_yaml(block, METRICS), load_text(folder, flow)
    if quick is not None:
        assert (quick.cases, quick.submissions) == (strict.cases, strict.submissions)
        assert np.array_equal(quick.values, strict.values, equal_nan=True)
        assert np.array_equal(quick.stated, strict.stated)


def test_ordinary_files_are_read_quickly() -> None:
    text = format_site({str(case): {"u-net": fill(), "nnU.Net v2": fill(0.1)} for case in range(3)})
    assert read_regular_yaml(text, METRICS) is not None
    assert read_regular_yaml("---\n# made by x\n" + text, METRICS) is not None
    assert read_regular_yaml(text.replace("0.5", "null", 1).replace("0.5", "", 1), METRICS) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Dice_ET: 0.5", "Dice_ET: 0.5 # why"),
        ("Dice_ET: 0.5", "Dice_ET: 010"),
        ("Dice_ET: 0.5", "Dice_ET:0.5"),
        ("Dice_ET: 0.5", "Dice_ET: '0.5'"),
        ("Dice_ET: 0.5", "Dice_ET: 1_0"),
        ("Dice_ET: 0.5", "Dice_ET: infinity"),
        ("Dice_ET: 0.5", "Dice_ET: 0.5\n    Dice_ET: 0.6"),
        ("  b:", "  a:"),
        ("'1':", "'0':"),
        ("  b:", " b:"),
    ],
)
def test_irregular_files_are_left_to_the_strict_reader(old: str, new: str) -> None:
    text = format_site({str(case): {"a": fill(), "b": fill()} for case in range(2)})
    assert old in text
    assert read_regular_yaml(text, METRICS) is not None
    assert read_regular_yaml(text.replace(old, new, 1), METRICS) is None


def test_keys_are_text(tmp_path: Path) -> None:
    cells = "".join(f"    {name}: 1\n" for name in METRICS)
    text = "".join(
        f"{case}:\n" + "".join(f"  {name}:\n{cells}" for name in ("no", "10", "1e3")) for case in ("001", "010")
    )
    quick = load_text(tmp_path, text)
    strict = load_text(tmp_path, text + "# not regular\n")
    for content in (quick, strict):
        assert content.cases == ["001", "010"]
        assert content.submissions == ["no", "10", "1e3"]


def test_names_that_mangle_to_the_same_stay_apart(tmp_path: Path) -> None:
    content = load_text(tmp_path, format_site({"0": {name: fill() for name in ("u-net", "u.net", "u net")}}))
    assert content.submissions == ["u-net", "u.net", "u net"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-05", 1e-05),
        ("-0.0", -0.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("+3", 3.0),
        ("1E3", 1000.0),
        ("1e999", math.inf),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
    ],
)
def test_numbers(text: str, expected: float) -> None:
    assert read_number(text) == expected


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL", ".nan", ".NaN", "NaN", "nan"])
def test_missing_values(text: str) -> None:
    number = read_number(text)
    assert number is not None
    assert math.isnan(number)


@pytest.mark.parametrize(
    "text", ["010", "0o10", "0x1F", "1:30", "1_000", "yes", "true", "inf", "NA", "high", "1,5", "--1"]
)
def test_text_is_no_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("value", ["high", "'0.5'", "true", "no", "010", "1_0"])
def test_a_text_value_is_an_error_that_names_everything(tmp_path: Path, value: str) -> None:
    text = format_site({"c1": {"net": fill()}}).replace("Hausdorff95_TC: 9.0", f"Hausdorff95_TC: {value}")
    (tmp_path / "clinic.yaml").write_text(text)
    check_error(
        tmp_path, "clinic.yaml", "site clinic", "case c1", "submission net", "metric Hausdorff95_TC", "line", "number"
    )


def test_duplicate_keys_are_errors(tmp_path: Path) -> None:
    block = format_site({"c1": {"net": fill()}})
    (tmp_path / "a.yaml").write_text(block + block)
    check_error(tmp_path, "a.yaml", "duplicate key 'c1'")
    (tmp_path / "a.yaml").write_text(block + block.split("\n", 1)[1])
    check_error(tmp_path, "a.yaml", "duplicate key 'net'")
    (tmp_path / "a.yaml").write_text(block + "    Dice_ET: 0.5\n")
    check_error(tmp_path, "a.yaml", "duplicate key 'Dice_ET'")


def test_empty_missing_and_nested_folders(tmp_path: Path) -> None:
    check_error(tmp_path / "none", "none", "no folder")
    check_error(tmp_path, "no site files", "*.yaml or *.yml")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.yaml").write_text("x")
    check_error(tmp_path, "subfolder inner")


@pytest.mark.parametrize(
    "text", ["", "\n", "just text\n", "- 1\n- 2\n", "null\n", "a: [1, 2\n", "a: b: c\n", "\ta: 1\n"]
)
def test_files_that_are_no_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    check_error(tmp_path, "a.yaml", "case -> submission -> metric")


def test_nested_layout_of_the_upstream_readme(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("c1:\n  net:\n    WT:\n      Dice: 0.5\n      Hausdorff95: 3\n")
    check_error(tmp_path, "a.yaml", "case c1", "submission net", "nested layout", "Dice_ET")


def test_layouts_that_are_too_shallow(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("c1:\n  net: 0.5\n")
    check_error(tmp_path, "a.yaml", "case c1", "submission net", "'0.5'", "expected a mapping")
    (tmp_path / "a.yaml").write_text("c1: [net]\n")
    check_error(tmp_path, "a.yaml", "case c1", "a list")
    (tmp_path / "a.yaml").write_text("c1:\n  net:\n    dice: 0.5\n")
    check_error(tmp_path, "a.yaml", "none of the metrics", "only dice")
    (tmp_path / "a.yaml").write_text("c1:\n")
    check_error(tmp_path, "a.yaml", "no submission in 1 cases")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: &x [*x]\n", "stands for nothing before it"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "merge key"),
        ("a: !!python/object:os.system {b: 1}\n", "tag"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("? [1, 2]\n: 3\n", "as a key"),
        ("a: " + "[" * 40 + "]" * 40, f"deeper than {MAX_DEPTH}"),
        ("a: \x07\n", "not YAML"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(PlainYamlError, match=part):
        load_plain_yaml(text)
    (tmp_path / "a.yaml").write_text(text)
    check_error(tmp_path, "a.yaml", part)


def test_aliases_are_read_but_counted(tmp_path: Path) -> None:
    """PyYAML writes an alias where a program used one dictionary twice."""
    shared = fill()
    text = format_site({"c1": {"x": shared, "y": shared}})
    assert "*id001" in text
    assert load_text(tmp_path, text).values.tolist() == [[[0.5, 9.0] * 3] * 2]
    laughs = "a0: &a0 [" + "1, " * 99 + "1]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 100)}]\n" for n in range(1, 8))
    with pytest.raises(PlainYamlError, match="aliases counted"):
        load_plain_yaml(laughs)


def test_unreadable_file_among_thirty_is_named(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"s{number:02d}.yaml").write_text(format_site({"c": {"net": fill()}}))
    (tmp_path / "s17.yaml").write_bytes(b"c:\n  net\xff\n")
    check_error(tmp_path, "s17.yaml", "not UTF-8")
    (tmp_path / "s17.yaml").unlink()
    (tmp_path / "s17.yaml").mkdir()
    check_error(tmp_path, "s17.yaml", "cannot read")
    (tmp_path / "s17.yaml").rmdir()
    (tmp_path / "s17.yaml").symlink_to(tmp_path / "gone")
    check_error(tmp_path, "s17.yaml", "No such file")


def test_site_names_keep_their_dots(tmp_path: Path) -> None:
    for name in ("site.1.yaml", "site.2.yml", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).write_text(format_site({"c": {"net": fill()}}))
    assert [file.name for file in load_site_files(tmp_path, load_rule())] == ["site.1", "site.2"]


def test_two_files_of_one_site(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.yml"):
        (tmp_path / name).write_text(format_site({"c": {"net": fill()}}))
    check_error(tmp_path, "a.yaml", "a.yml", "site a")


def test_names_with_control_characters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('c:\n  "net\\e[31m":\n    Dice_ET: 1\n')
    check_error(tmp_path, "a.yaml", "control characters", r"net\x1b[31m")


def test_line_ends_and_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    text = format_site({"c": {"net": fill()}})
    plain = load_text(tmp_path, text)
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    windows = load_site_files(tmp_path, load_rule())[0].content
    assert np.array_equal(plain.values, windows.values)


def test_any_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Random damage: either a table or one message, never another exception."""
    rng = np.random.default_rng(8)
    text = format_site({c: {"x": fill(), "y": fill(0.25, 3.0)} for c in ("c1", "c2")})
    pieces = [
        "\n",
        ": ",
        "{",
        "}",
        "[",
        "'",
        "null",
        "&a ",
        "*a",
        "!!str ",
        "<<: ",
        "? ",
        "- ",
        "\t",
        "\x00",
        "#",
        "|",
        "\x85",
    ]
    refused = 0
    for _ in range(300):
        start = int(rng.integers(len(text)))
        damaged = text[:start] + pieces[rng.integers(len(pieces))] + text[start + int(rng.integers(0, 12)) :]
        (tmp_path / "a.yaml").write_bytes(damaged.encode())
        try:
            build_study(load_site_files(tmp_path, load_rule()), load_rule())
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert "a.yaml" in str(error) or "site a" in str(error)
    assert 150 < refused < 300
