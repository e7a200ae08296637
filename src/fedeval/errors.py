"""Every error a person can meet, each with its exit code.

    FedevalError                     1  anything of ours that has no better name
    |- UsageError                    2  options that do not fit together
    |- BenchmarkError               10  unknown or broken benchmark
    |- ManifestError                11  mlcube.yaml missing, broken or incomplete
    |- UnsafeManifestError          12  mlcube.yaml asks for what a stranger must not have
    |- ParameterError               13  a parameter the task does not declare
    |- InputError                   14  an input folder or file is missing, empty or unreadable
    |- ImageError                   15  image neither present, buildable nor pullable
    |- EngineMissingError           16  Docker is not installed
    |- EngineDownError              17  Docker is installed but does not answer
    |- EngineForbiddenError         18  Docker answers, but not to this user
    |- EngineFaultError             19  the engine failed in the middle of a run
    |- PreparationError             20  data_prep failed: a fault of the data or the site
    |- DataFindingsError            21  sanity_check has findings
    |- ModelError                   22  the submission ended with an error
    |- MetricsError                 23  the metrics cube failed: a fault of the benchmark
    |- GpuMissingError              24  a GPU is asked for and there is none
    |- TimeLimitError               30  a limit ended the submission ...
    |- MemoryLimitError             31
    |- OutputLimitError             32
    |- GpuMemoryLimitError          33
    |- PredictionError              45  a submission's prediction cannot be scored ...
    |  |- PredictionMissingError    40
    |  |- PredictionFormatError     41
    |  |- PredictionShapeError      42
    |  |- PredictionGridError       43
    |  |- PredictionLabelsError     44
    |- StorageError                 50  results cannot be written
    |- DiskFullError                51
    |- DoctorError                  60  doctor: this machine lacks something the benchmark needs
    |- SubmissionsFailedError       61  run: some submissions ended with an error of their own
    |- RunsMissingError             62  run: the platform left some submissions without a result
    |- InterruptedRunError         130  Ctrl-C

A message has three parts: what failed, found against expected, what to do next.
"""

from __future__ import annotations


class FedevalError(Exception):
    """Anything of ours that has no better name; base of all errors with one clear message.

    Parameters
    ----------
    what : str
        What failed: cube, task, case, file.
    found : str
        What was found, against what was expected.
    next_step : str
        What the person can do now.
    """

    exit_code = 1

    def __init__(self, what: str, found: str = "", next_step: str = "") -> None:
        self.what, self.found, self.next_step = what, found, next_step
        super().__init__(self.message())

    def message(self) -> str:
        """The three parts, one a line, empty ones left out."""
        lines = [self.what]
        if self.found:
            lines.append(f"  found: {self.found}")
        if self.next_step:
            lines.append(f"  next:  {self.next_step}")
        return "\n".join(lines)


class UsageError(FedevalError):
    """Options that do not fit together."""

    exit_code = 2


class BenchmarkError(FedevalError):
    """Unknown or broken benchmark."""

    exit_code = 10


class ManifestError(FedevalError):
    """mlcube.yaml is missing, broken or incomplete."""

    exit_code = 11


class UnsafeManifestError(FedevalError):
    """mlcube.yaml asks for what a stranger must not have."""

    exit_code = 12


class ParameterError(FedevalError):
    """A parameter that the task does not declare, or a value of the wrong kind."""

    exit_code = 13


class InputError(FedevalError):
    """An input folder or file is missing, empty or unreadable."""

    exit_code = 14


class ImageError(FedevalError):
    """The image is neither present, nor buildable, nor pullable."""

    exit_code = 15


class EngineMissingError(FedevalError):
    """The container engine is not installed."""

    exit_code = 16


class EngineDownError(FedevalError):
    """The engine is installed but does not answer."""

    exit_code = 17


class EngineForbiddenError(FedevalError):
    """The engine answers, but not to this user."""

    exit_code = 18


class EngineFaultError(FedevalError):
    """The engine failed in the middle of a run: a fault of the platform, never of a submission."""

    exit_code = 19


class PreparationError(FedevalError):
    """data_prep failed: a fault of the data or the site."""

    exit_code = 20


class DataFindingsError(FedevalError):
    """sanity_check has findings."""

    exit_code = 21


class ModelError(FedevalError):
    """The submission ended with an error."""

    exit_code = 22


class MetricsError(FedevalError):
    """The metrics cube failed: a fault of the benchmark."""

    exit_code = 23


class GpuMissingError(FedevalError):
    """A GPU is asked for and this machine, or its engine, has none to give."""

    exit_code = 24


class TimeLimitError(FedevalError):
    """The wall-clock budget of the submission ran out."""

    exit_code = 30


class MemoryLimitError(FedevalError):
    """The submission, or a process it started, needed more memory than the benchmark gives."""

    exit_code = 31


class OutputLimitError(FedevalError):
    """The submission wrote more than the benchmark allows."""

    exit_code = 32


class GpuMemoryLimitError(FedevalError):
    """The submission needed more memory on a GPU than the benchmark gives."""

    exit_code = 33


class PredictionError(FedevalError):
    """A prediction cannot be scored; see the subclasses."""

    exit_code = 45


class PredictionMissingError(PredictionError):
    """No prediction file for a case."""

    exit_code = 40


class PredictionFormatError(PredictionError):
    """The prediction is not a readable NIfTI file."""

    exit_code = 41


class PredictionShapeError(PredictionError):
    """The prediction has another shape than the reference."""

    exit_code = 42


class PredictionGridError(PredictionError):
    """The prediction lies elsewhere in space than the reference."""

    exit_code = 43


class PredictionLabelsError(PredictionError):
    """The prediction holds values that are no label of the benchmark."""

    exit_code = 44


class StorageError(FedevalError):
    """The storage folder cannot be written."""

    exit_code = 50


class DiskFullError(StorageError):
    """No space is left on the device."""

    exit_code = 51


class DoctorError(FedevalError):
    """This machine lacks something that the benchmark needs."""

    exit_code = 60


class SubmissionsFailedError(FedevalError):
    """Some submissions of a list ended with an error of their own; all others have results."""

    exit_code = 61


class RunsMissingError(FedevalError):
    """A fault of the platform left some submissions of a list without a result."""

    exit_code = 62


class InterruptedRunError(FedevalError):
    """Ctrl-C, or a request to stop."""

    exit_code = 130
