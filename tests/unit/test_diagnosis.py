"""Each known cause is recognised from last lines as programs really write them, and from nothing else."""

import pytest

from fedeval.diagnosis import CAUSES, diagnose
from fedeval.engine.base import Breach, TaskOutcome

LINES = (
    ("workdir", 1, "FileNotFoundError: [Errno 2] No such file or directory: 'parameters.yaml'"),
    ("workdir", 1, "FileNotFoundError: [Errno 2] No such file or directory: './weights/model.pt'"),
    ("workdir", 2, "python3: can't open file 'mlcube.py': [Errno 2] No such file or directory"),
    ("workdir", 2, "/usr/bin/python3: can't open file '/tmp/mlcube.py': [Errno 2] No such file or directory"),
    ("workdir", 2, "/usr/bin/python3: can't open file '//mlcube.py': [Errno 2] No such file or directory"),
    ("home", 1, "FileNotFoundError: [Errno 2] No such file or directory: '/root/.cache/torch/hub/checkpoints/u.pth'"),
    ("home", 1, "FileNotFoundError: [Errno 2] No such file or directory: '/home/fedeval/.nnunet/plans.json'"),
    ("architecture", 126, "[FATAL tini (7)] exec /opt/run failed: Exec format error"),
    ("architecture", 1, "standard_init_linux.go:228: exec user process caused: exec format error"),
    ("architecture", 126, "/bin/sh: 1: /opt/run: cannot execute binary file: Exec format error"),
    ("entrypoint", 127, "[FATAL tini (7)] exec ./run.sh failed: No such file or directory"),
    ("entrypoint", 126, "[FATAL tini (7)] exec /opt/run failed: Permission denied"),
    ("entrypoint", 255, 'FATAL: "run.sh": executable file not found in $PATH'),
    ("shared_memory", 135, ""),
    (
        "shared_memory",
        1,
        "RuntimeError: DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory.",
    ),
    ("shared_memory", 1, "RuntimeError: unable to write to file </torch_42_3718>: No space left on device (28)"),
    ("shared_memory", 1, "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1d2c'"),
    ("tmpfs", 1, "OSError: [Errno 28] No space left on device"),
    ("tmpfs", 1, "gzip: stdout: No space left on device"),
    ("read_only", 1, "OSError: [Errno 30] Read-only file system: '/project/cache.bin'"),
    ("read_only", 1, "mkdir: cannot create directory '/workspace': Read-only file system"),
    ("permission", 1, "PermissionError: [Errno 13] Permission denied: '/project/model.pt'"),
    ("permission", 1, "cat: /root/.cache/weights.pt: Permission denied"),
    ("user", 1, "KeyError: 'getpwuid(): uid not found: 31415'"),
    (
        "gpu_memory",
        1,
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 10.76 GiB total capacity; "
        "9.11 GiB already allocated)",
    ),
    ("gpu_memory", 1, "failed to allocate 10.76G from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ("gpu_memory", 1, "ResourceExhaustedError: OOM when allocating tensor with shape[1,64,240,240,155]"),
    ("gpu_memory", 1, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("no_gpu", 1, "RuntimeError: No CUDA GPUs are available"),
    ("no_gpu", 1, "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    ("no_gpu", 1, "AssertionError: Torch not compiled with CUDA enabled"),
    (
        "no_gpu",
        1,
        "RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.",
    ),
    ("no_gpu", 1, "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"),
    ("download", 1, "socket.gaierror: [Errno -3] Temporary failure in name resolution"),
    ("download", 1, "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>"),
    (
        "download",
        1,
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='zenodo.org', port=443): Max retries exceeded",
    ),
    ("download", 1, "OSError: We couldn't connect to 'https://huggingface.co' to load this file"),
    ("download", 6, "curl: (6) Could not resolve host: github.com"),
    ("download", 4, "wget: unable to resolve host address 'github.com'"),
    ("threads", 1, "RuntimeError: can't start new thread"),
    ("threads", 1, "BlockingIOError: [Errno 11] Resource temporarily unavailable"),
    ("threads", 1, "OpenBLAS blas_thread_init: pthread_create failed for thread 3 of 8"),
    ("threads", 1, "libgomp: Thread creation failed: Resource temporarily unavailable"),
    ("memory", 1, "MemoryError"),
    (
        "memory",
        1,
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 12.0 GiB for an array with shape (8, 240, 240)",
    ),
    ("memory", 134, "terminate called after throwing an instance of 'std::bad_alloc'"),
    (
        "memory",
        1,
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 34359738368 bytes.",
    ),
    ("killed", 137, ""),
    ("killed", 137, "case 12 of 40"),
)


def make_outcome(exit_code: int, *lines: str, ended_by: Breach | None = None) -> TaskOutcome:
    return TaskOutcome(exit_code, ended_by, 0.2, 1.0, None, ("Traceback (most recent call last):", *lines))


@pytest.mark.parametrize(("name", "exit_code", "line"), LINES)
def test_known_cause(name: str, exit_code: int, line: str) -> None:
    found = diagnose(make_outcome(exit_code, line))
    assert found is not None and found.name == name
    assert found.cause and found.mend


def test_every_cause_is_tried() -> None:
    assert {name for name, _, _ in LINES} == {cause.name for cause in CAUSES}
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: [Errno 2] No such file or directory: '/mlcube_io0/x/x_brain_t1.nii.gz'",
        "python3: can't open file '/project/mlcube.py': [Errno 2] No such file or directory",
        "KeyError: 'ET'",
        "ValueError: expected 4 channels, found 3",
        "AssertionError: Errno 280 is no number of an error",
    ],
)
def test_other_failures_are_left_to_the_lines_themselves(line: str) -> None:
    found = diagnose(make_outcome(1, line))
    assert found is None, found


def test_a_task_that_succeeded_or_met_a_limit_needs_no_diagnosis() -> None:
    line = "OSError: [Errno 28] No space left on device"
    assert diagnose(make_outcome(0, line)) is None
    assert diagnose(make_outcome(137, line, ended_by=Breach("time", 181.0, 180.0, "s"))) is None
