"""Selection of subjects, aliases and parameters of the data_prep cube."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_prep_cube.aliases import ALIAS_FILE, assign_aliases, load_aliases, write_aliases
from data_prep_cube.errors import FindingsError, InputError
from data_prep_cube.parameters import Parameters, load_parameters, parse_parameters
from data_prep_cube.subjects import list_subjects, sample_subjects, select_subjects

from tests.cubes.data_prep_cases import CUBE

SUBJECTS = ["A 1", "B-2", "c.3", "d", "e", "f"]


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """Six subjects (an empty file stands for the images), a folder of notes, a hidden one and a stray file."""
    root = tmp_path / "data"
    for subject in reversed(SUBJECTS):
        (root / subject).mkdir(parents=True)
        (root / subject / f"{subject}_t1.nii.gz").touch()
    (root / "notes").mkdir()
    (root / "notes" / "readme.txt").touch()
    (root / ".cache").mkdir()
    (root / ".cache" / "x.nii.gz").touch()
    (root / "list.csv").touch()
    return root


def test_every_folder_with_a_nifti_file_is_a_subject(data_path: Path) -> None:
    assert list_subjects(data_path) == SUBJECTS
    assert select_subjects(data_path, Parameters()) == SUBJECTS


def test_sample_is_pinned_and_depends_on_seed_and_ids_only(data_path: Path) -> None:
    chosen = select_subjects(data_path, Parameters(max_val_size=3, seed=1))
    assert chosen == ["A 1", "c.3", "e"]  # pinned: other numpy versions must draw the same
    assert sample_subjects(SUBJECTS[::-1], 3, seed=1) == chosen
    assert {tuple(sample_subjects(SUBJECTS, 3, seed)) for seed in range(20)} != {tuple(chosen)}


def test_larger_sample_keeps_the_smaller_one() -> None:
    ids = [f"s{number:03d}" for number in range(50)]
    for size in range(1, 50):
        assert set(sample_subjects(ids, size, 7)) < set(sample_subjects(ids, size + 1, 7))
    assert sample_subjects(ids, 51, 7) == sample_subjects(ids, None, 7) == ids


def test_list_is_always_taken_and_filled_up_to_the_maximum(data_path: Path) -> None:
    listed = ("c.3", "f")
    assert select_subjects(data_path, Parameters(validation_subjects=listed)) == ["c.3", "f"]
    assert select_subjects(data_path, Parameters(validation_subjects=listed, max_val_size=1)) == ["c.3", "f"]
    filled = select_subjects(data_path, Parameters(validation_subjects=listed, max_val_size=4))
    assert len(filled) == 4
    assert set(listed) < set(filled) <= set(SUBJECTS)
    assert select_subjects(data_path, Parameters(validation_subjects=listed, max_val_size=99)) == SUBJECTS


@pytest.mark.parametrize(
    "text",
    [
        "data_uid,Channel_0\nB-2,x\nA 1,y\n",
        "\ufeffPartition_ID,Subject_ID\r\n1,A 1\r\n2,B-2\r\n",
        "A 1\nB-2\n\nB-2\n",
        '"A 1",first\n"B-2",second\n',
    ],
)
def test_split_file_formats(data_path: Path, text: str) -> None:
    (data_path / "split").mkdir()
    (data_path / "split" / "val.csv").write_text(text, encoding="utf-8", newline="")
    assert select_subjects(data_path, Parameters(val_split_file="split/val.csv")) == ["A 1", "B-2"]
    assert len(select_subjects(data_path, Parameters(val_split_file="split/val.csv", max_val_size=5))) == 5


def test_missing_split_file_is_an_error_unless_the_site_may_lack_it(data_path: Path) -> None:
    with pytest.raises(InputError, match="val_split_file does not exist"):
        select_subjects(data_path, Parameters(val_split_file="val.csv"))
    optional = Parameters(val_split_file="val.csv", val_split_file_required=False, max_val_size=2)
    assert len(select_subjects(data_path, optional)) == 2


def test_split_file_outside_of_the_data_is_refused(data_path: Path) -> None:
    (data_path.parent / "val.csv").write_text("d\n", encoding="utf-8")
    (data_path / "link.csv").symlink_to(data_path.parent / "val.csv")
    for name in ("link.csv", "../val.csv", str(data_path.parent / "val.csv")):
        with pytest.raises(InputError, match="leads out of data_path"):
            select_subjects(data_path, Parameters(val_split_file=name))


@pytest.mark.parametrize("content", [b"", b"data_uid\n", b"\xff\xfe\x00"])
def test_unusable_split_file(data_path: Path, content: bytes) -> None:
    (data_path / "val.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"val_split_file (names no subject|cannot be read)"):
        select_subjects(data_path, Parameters(val_split_file="val.csv"))


def test_listed_subjects_without_data_are_named_by_position_only(data_path: Path) -> None:
    with pytest.raises(
        FindingsError, match=r"2 of 3 subjects in validation_subjects .*entries 1, 3 of the list"
    ) as error:
        select_subjects(data_path, Parameters(validation_subjects=("Jane Doe", "d", "John Doe")))
    assert "Doe" not in str(error.value)


@pytest.mark.parametrize("target", ["../elsewhere", "nowhere"])
def test_links_out_of_the_folder_are_refused(data_path: Path, target: str) -> None:
    (data_path.parent / "elsewhere").mkdir()
    (data_path.parent / "elsewhere" / "x.nii.gz").touch()
    (data_path / "linked").symlink_to(target)
    with pytest.raises(InputError, match="1 links that lead out of it or nowhere"):
        list_subjects(data_path)


def test_no_subject_and_unusable_names(tmp_path: Path) -> None:
    (tmp_path / "flat_t1.nii.gz").touch()
    with pytest.raises(InputError, match="holds no subject, expected folders"):
        list_subjects(tmp_path)
    for name in ("line\nbreak", "x" * 200):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.nii").touch()
    with pytest.raises(InputError, match="2 of 2 subject folders have a name that cannot be a case id") as error:
        list_subjects(tmp_path)
    assert "xxx" not in str(error.value)


def test_aliases_are_stable_when_subjects_come_and_go(tmp_path: Path) -> None:
    first = assign_aliases(["b", "a"], {})
    assert first == {"a": "FeTS22_Patient0000", "b": "FeTS22_Patient0001"}
    write_aliases(tmp_path, first)
    second = assign_aliases(["A", "b", 'odd, "id"'], load_aliases(tmp_path))
    assert second == first | {"A": "FeTS22_Patient0002", 'odd, "id"': "FeTS22_Patient0003"}
    write_aliases(tmp_path, second)
    assert load_aliases(tmp_path) == second
    assert (tmp_path / ALIAS_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [ALIAS_FILE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "case,subject\nFeTS22_Patient0000\n",
        "case,subject\nFeTS22_Patient0000,a\nFeTS22_Patient0000,b\n",
        "case,subject\nFeTS22_Patient0000,a\nFeTS22_Patient0001,a\n",
        "case,subject\n../x,a\n",
    ],
)
def test_damaged_alias_map_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ALIAS_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        load_aliases(tmp_path)


def test_workspace_parameters_are_the_defaults_and_complete() -> None:
    path = CUBE / "mlcube" / "workspace" / "parameters.yaml"
    assert load_parameters(path) == Parameters()
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [field.name for field in fields(Parameters)]


def test_no_parameters_mean_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    for path in (None, Path("null"), tmp_path / "null", tmp_path / "empty.yaml"):
        assert load_parameters(path) == Parameters()


def test_unknown_key_names_itself_a_neighbour_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown key 'max_vall_size'.*did you mean max_val_size.*known keys: .*seed"):
        parse_parameters({"max_vall_size": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_val_size", 0),
        ("max_val_size", True),
        ("seed", -1),
        ("seed", None),
        ("validation_subjects", "a"),
        ("validation_subjects", [17]),
        ("val_split_file", 3),
        ("anonymize_subjects", "yes"),
        ("expected_shape", [240, 240]),
        ("expected_shape", [240, 240, 155.0]),
        ("expected_spacing_mm", [1, 1, 0]),
        ("expected_spacing_mm", [1, 1, float("nan")]),
        ("geometry_tolerance", "small"),
        ("allowed_labels", []),
        ("allowed_labels", [0, 1, 1]),
        ("small_count_threshold", 9.5),
        ("volume_rounding_mm3", 0),
    ],
)
def test_values_of_the_wrong_kind(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"parameters_file: {key} must be .*next: correct {key}"):
        parse_parameters({key: value})


def test_both_lists_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="only one"):
        parse_parameters({"validation_subjects": ["a"], "val_split_file": "b"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2\n", "not valid YAML, line 2"),
        (b"- 1\n", "holds a list"),
        (b"\xff\xfe", "not valid YAML"),
        (b"x: !!python/object/apply:os.system ['touch owned']\n", "not valid YAML"),
        (b"#" * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_unusable_parameters_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_parameters(path)


def test_missing_parameters_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parameters_file is no file"):
        load_parameters(tmp_path / "absent.yaml")
