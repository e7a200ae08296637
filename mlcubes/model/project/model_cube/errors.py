"""The two ways in which a run of this cube can go wrong."""


class InputError(Exception):
    """A fault that ends the run before any case: a wrong path, a broken parameters file. Exit status 2."""


class CaseError(Exception):
    """A fault of one case; the other cases are still segmented. Exit status 1 at the end of the run."""
