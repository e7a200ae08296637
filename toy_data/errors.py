"""Errors of the toy-data generator."""


class ToyDataError(ValueError):
    """A request that the generator cannot serve; the message says what to do next."""
