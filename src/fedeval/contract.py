"""What the parameters are that the runner gives paths for: the same for every cube of a role."""

from __future__ import annotations

_INPUT, _OUTPUT = (False, "directory"), (True, "directory")
_INPUT_FILE, _OUTPUT_FILE = (False, "file"), (True, "file")

KINDS: dict[str, dict[str, tuple[bool, str]]] = {
    "prepare": {
        "data_path": _INPUT, "labels_path": _INPUT, "parameters_file": _INPUT_FILE,
        "output_path": _OUTPUT, "output_labels_path": _OUTPUT, "metadata_path": _OUTPUT,
    },
    "sanity_check": {"data_path": _INPUT, "labels_path": _INPUT, "parameters_file": _INPUT_FILE},
    "statistics": {
        "data_path": _INPUT, "labels_path": _INPUT, "parameters_file": _INPUT_FILE, "output_path": _OUTPUT_FILE,
    },
    "infer": {"data_path": _INPUT, "output_path": _OUTPUT},
    "evaluate": {"predictions": _INPUT, "labels": _INPUT, "output_path": _OUTPUT_FILE},
}  # fmt: skip
"""Task -> parameter -> (is output, kind).

The manifest's word decides what is mounted and how, so it must be the runner's: a ``data_path`` among the outputs
would be writable, and an ``output_path`` of type file would open the folder above it.
"""


def find_difference(task: str, parameter: str, is_output: bool, kind: str) -> str | None:
    """Found against expected, when a manifest declares a parameter of `KINDS` as something else.

    Parameters
    ----------
    task, parameter : str
        Names; unknown ones have no difference.
    is_output : bool
        As declared.
    kind : str
        ``file``, ``directory``, or ``unknown`` for an input that is decided by what exists.
    """
    expected = KINDS.get(task, {}).get(parameter)
    if expected is None or (is_output == expected[0] and kind in (expected[1], "unknown")):
        return None
    return f"{_describe(is_output, kind)}; expected {_describe(*expected)}"


def _describe(is_output: bool, kind: str) -> str:
    return f"an {'output' if is_output else 'input'} of type {kind}"
