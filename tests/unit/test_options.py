"""Options: default < environment < argument, merged once."""

from pathlib import Path

import pytest

from fedeval.errors import UsageError
from fedeval.options import merge_options


def test_argument_goes_over_environment_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {"MEDPERF_STORAGE": str(tmp_path / "env"), "MEDPERF_PLATFORM": "docker"}
    assert merge_options({}, {}).storage == tmp_path / ".medperf"
    assert merge_options({"platform": None}, environment).platform == "docker"
    found = merge_options({"storage": tmp_path / "arg", "platform": "process"}, environment)
    assert (found.storage, found.platform) == (tmp_path / "arg", "process")


def test_user_without_home_is_told_to_name_a_storage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--storage"):
        merge_options({"storage": "~nobody-of-this-name/x"}, {})
    assert merge_options({"storage": tmp_path}, {}).storage == tmp_path


@pytest.mark.parametrize(
    "arguments", [{"platform": "podman"}, {"log_level": "loud"}, {"tmp": "64"}, {"toy_size": "xl"}]
)
def test_unknown_values(arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        merge_options(arguments, {})
