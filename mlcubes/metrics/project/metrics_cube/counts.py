"""Confusion counts of two binary masks and the ratios made of them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of one region: true and false positives and negatives; their sum is the image size."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def state(self) -> str:
        """Key into `conventions.CONVENTIONS`: which of the two masks is empty, or ``both_present``."""
        reference_empty = self.tp + self.fn == 0
        prediction_empty = self.tp + self.fp == 0
        if reference_empty:
            return "both_empty" if prediction_empty else "reference_empty"
        return "prediction_empty" if prediction_empty else "both_present"


def compute_confusion(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> Confusion:
    """Count agreement of two binary masks.

    Parameters
    ----------
    reference, prediction : ndarray of bool, any shape, the same for both

    Returns
    -------
    Confusion
        ``tp = |G & P|``, ``fp = |P| - tp``, ``fn = |G| - tp``, ``tn`` the rest.
    """
    tp = int(np.count_nonzero(reference & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Confusion(tp=tp, fp=fp, tn=int(reference.size) - tp - fp - fn, fn=fn)


def compute_ratio(numerator: int, denominator: int) -> float:
    """Quotient of two counts, NaN where the denominator is zero."""
    return numerator / denominator if denominator else math.nan


def compute_dice(c: Confusion) -> float:
    """Dice = 2 TP / (2 TP + FP + FN)."""
    return compute_ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def compute_sensitivity(c: Confusion) -> float:
    """Sensitivity (recall, true-positive rate) = TP / (TP + FN)."""
    return compute_ratio(c.tp, c.tp + c.fn)


def compute_specificity(c: Confusion) -> float:
    """Specificity (true-negative rate) = TN / (TN + FP)."""
    return compute_ratio(c.tn, c.tn + c.fp)


def compute_precision(c: Confusion) -> float:
    """Precision (positive predictive value) = TP / (TP + FP)."""
    return compute_ratio(c.tp, c.tp + c.fp)


def compute_relative_volume_difference(c: Confusion) -> float:
    """Signed volume error relative to the reference, (|P| - |G|) / |G| = (FP - FN) / (TP + FN)."""
    return compute_ratio(c.fp - c.fn, c.tp + c.fn)
