"""``medperf doctor``: whether this machine can run a benchmark; each check is tried, not asked for."""

from fedeval.doctor.command import DoctorReport, register, run_doctor

__all__ = ["DoctorReport", "register", "run_doctor"]
