"""Errors of the cube.

::

    CubeError
    ├── InputError        2  arguments, folders or parameters that cannot be used
    ├── FindingsError     1  the data were looked at, and something in them is wrong
    └── OutputError       3  the machine: a folder that cannot be written, a full disk

Messages name parameters (``data_path``), prepared case ids and expectations. They never hold a path, an id that
the site has not chosen to show, or a voxel value: whatever is printed here may end in somebody's log.
"""

import errno
import os


class CubeError(Exception):
    """Something the user can act on.

    Parameters
    ----------
    failed
        What failed, and what was found against what was expected.
    next_step
        What to do about it.
    """

    exit_code = 2

    def __init__(self, failed: str, next_step: str) -> None:
        super().__init__(f"{failed}; next: {next_step}")


class InputError(CubeError):
    """Arguments, folders or parameters that cannot be used."""

    exit_code = 2


class FindingsError(CubeError):
    """The data themselves are incomplete or wrong."""

    exit_code = 1


class OutputError(CubeError):
    """A fault of the machine while writing."""

    exit_code = 3


def output_error(parameter: str, error: OSError) -> OutputError:
    """Describe a failed write by its parameter and the system's reason, without the path that ``error`` carries."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    step = "give another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        step = "free some space there and run again; what is complete is kept"
    elif error.errno in (errno.EACCES, errno.EPERM):
        step = (
            f"let uid {os.geteuid()} write there, or run the container as the owner "
            '(docker: -u "$(id -u):$(id -g)"; mlcube: "-Pdocker.cpu_args=-u$(id -u):$(id -g)")'
        )
    return OutputError(f"cannot write {parameter}: {reason}", step)
