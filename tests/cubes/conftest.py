"""Puts the project folder of every cube on sys.path: their packages have names of their own."""

import sys
from pathlib import Path

for project in sorted((Path(__file__).parents[2] / "mlcubes").glob("**/project")):
    sys.path.insert(0, str(project))
