#!/usr/bin/env python3
"""``python ranking/compute_ranking.py DATA_DIR``, from any working folder.

Started by its path, Python puts this folder first on the module path; the package needs the folder above instead.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE)]

from ranking.start import start_program  # noqa: E402

if __name__ == "__main__":
    sys.exit(start_program())
