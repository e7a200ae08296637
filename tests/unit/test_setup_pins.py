"""Lists of pinned packages: hashed, portable, complete; what the scripts say about them agrees with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
CUBE_LISTS = sorted((ROOT / "mlcubes").glob("**/project/requirements.txt"))
LISTS = [ROOT / "requirements" / "dev.txt", *CUBE_LISTS]
WISHES = sorted((ROOT / "mlcubes").glob("**/project/requirements.in"))
SOURCES = [*LISTS, *WISHES, ROOT / "requirements" / "overrides.txt"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _load_entries(path: Path) -> list[str]:
    """One string for each package: its line and the lines that continue it."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _load_pins(path: Path, python: str) -> dict[str, str]:
    """Canonical name to version, as that Python on Linux would install them."""
    environment = {"python_version": python, "python_full_version": f"{python}.2", "sys_platform": "linux"}
    pins: dict[str, str] = {}
    for entry in _load_entries(path):
        requirement = Requirement(entry.split(" --hash=")[0])
        if requirement.marker is None or requirement.marker.evaluate(environment | {"platform_system": "Linux"}):
            name = canonicalize_name(requirement.name)
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            pins[name] = str(requirement.specifier).removeprefix("==")
    return pins


def _load_project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _declared(project: dict[str, object]) -> list[Requirement]:
    groups = project["optional-dependencies"]
    assert isinstance(groups, dict) and isinstance(project["dependencies"], list)
    texts = [*project["dependencies"], *(text for group in groups.values() for text in group)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != project["name"]]


@pytest.mark.parametrize("path", LISTS, ids=_name)
def test_every_package_is_pinned_and_hashed(path: Path) -> None:
    entries = _load_entries(path)
    assert entries
    for entry in entries:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+( ;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", entry), entry[:120]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_index_address(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert "://" not in line and " @ " not in line, line
        assert not re.match(r"\s*(-[a-zA-Z]\b|--(?!hash=))", line), line


def test_list_says_how_it_is_made_and_why() -> None:
    header = [line for line in LISTS[0].read_text().splitlines() if line.startswith("#")]
    text = " ".join(line.lstrip("# ") for line in header)
    assert "scripts/lock" in text and "omegaconf" in text and "--no-deps --require-hashes" in text


@pytest.mark.parametrize("python", PYTHONS)
def test_every_declared_dependency_is_pinned_to_a_version_that_fits(python: str) -> None:
    pins = _load_pins(LISTS[0], python)
    for requirement in _declared(_load_project()):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in requirements/dev.txt: run scripts/lock"
        fits = requirement.specifier.contains(version, prereleases=True)
        assert fits, f"{requirement}, but {version} is pinned: run scripts/lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_mlcube_gets_an_omegaconf_that_pip_accepts_and_distutils(python: str) -> None:
    pins = _load_pins(LISTS[0], python)
    override = Requirement((ROOT / "requirements" / "overrides.txt").read_text().strip())
    assert override.name == "omegaconf" and override.specifier.contains(pins["omegaconf"])
    assert int(pins["setuptools"].split(".")[0]) >= 68


@pytest.mark.parametrize("path", CUBE_LISTS, ids=_name)
def test_list_of_a_cube_has_what_the_cube_asks_for(path: Path) -> None:
    pins = _load_pins(path, "3.11")
    for entry in _load_entries(path.with_suffix(".in")):
        requirement = Requirement(entry.split(" #")[0])
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), f"{requirement}: run scripts/lock"


def test_set_up_takes_the_pythons_that_the_project_takes() -> None:
    pattern = re.search(r"\^3\\\.\(([\d|]+)\)", (ROOT / "scripts" / "setup").read_text())
    assert pattern is not None
    accepted = {int(minor) for minor in pattern[1].split("|")}
    wanted = SpecifierSet(str(_load_project()["requires-python"]))
    assert accepted == {minor for minor in range(30) if f"3.{minor}.0" in wanted}
    assert sorted(accepted) == [int(python.removeprefix("3.")) for python in PYTHONS]
