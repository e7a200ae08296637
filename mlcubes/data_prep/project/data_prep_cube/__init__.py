"""Data preparation of benchmark 1: raw cases in, prepared and checked cases out."""
