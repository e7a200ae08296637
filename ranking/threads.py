"""One thread for the linear algebra, set before numpy is imported."""

import os


def limit_threads() -> None:
    """Keep numpy to one thread, unless the environment says otherwise.

    The matrices here are small: more threads would only wait for each other. ``--workers`` is the way to more cores.
    """
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
