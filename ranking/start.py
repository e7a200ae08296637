"""What both ways to start the program do before numpy is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def start_program(arguments: Sequence[str] | None = None) -> int:
    """Run :func:`ranking.cli.main` with one thread for the linear algebra, unless the environment says otherwise.

    The matrices here are small: more threads would only wait for each other. ``--workers`` is the way to more cores.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    try:
        from ranking.cli import main
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("numpy", "scipy", "yaml"):
            raise
        print(f"error: the ranking needs the package {package}: install fedeval[ranking]", file=sys.stderr)
        return 1
    return main(arguments)
