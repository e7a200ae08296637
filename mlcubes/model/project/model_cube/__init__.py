"""The model cube of benchmark 1: segments brain tumours in prepared FeTS cases.

Participants replace `model_cube.segmentation`; the other modules read cases, write predictions and report progress.
"""
