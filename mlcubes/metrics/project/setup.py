"""Builds the native kernel at installation where there is a C compiler; without one the package works, slower."""

import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))
from metrics_cube.build import run_build
from metrics_cube.kernel_sources import LIBRARY


class BuildWithKernel(build_py):  # type: ignore[misc]
    """Adds the compiled kernel to the modules."""

    def run(self) -> None:
        """Copy the modules, then compile beside the copies."""
        super().run()
        try:
            run_build(Path(self.build_lib) / "metrics_cube" / LIBRARY.name)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"native kernel not built, the package works without it: {error}", file=sys.stderr)


class BinaryDistribution(Distribution):  # type: ignore[misc]
    """A wheel of this package holds machine code."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is for one platform only."""
        return True


setup(cmdclass={"build_py": BuildWithKernel}, distclass=BinaryDistribution)
