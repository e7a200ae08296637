"""Engines run one task of one cube under limits: docker, singularity, process."""
