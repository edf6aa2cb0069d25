"""How well masks and labels agree with the ground truth.

Two label images are compared through the pairs of objects that share pixels, in one
pass over the plane. Few of the N x M pairs do, so nothing of that size is built.

Accuracy of instances is TP / (TP + FP + FN) at a threshold of the IoU, as in the 2018
Data Science Bowl (Caicedo et al. 2019, Nature Methods 16:1247, "Evaluation metric");
its mean over the thresholds 0.5, 0.55 ... 0.95 is the mean segmentation accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""IoU thresholds of the mean segmentation accuracy."""


def iou(first: ArrayLike, second: ArrayLike) -> float:
    """Intersection over union of two masks.

    Parameters
    ----------
    first, second : array of bool
        Masks of equal shape.

    Returns
    -------
    float
        0 to 1; 1 where both are empty.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape:
        raise InputError(f"masks have shapes {a.shape} and {b.shape}; give equal ones")
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pairs of objects, of two label images, that share pixels.

    Attributes
    ----------
    truth_ids, found_ids : (N,) and (M,) int64 arrays
        Object ids, ascending, without the background.
    truth, found : (K,) int64 arrays
        The pairs, as indices into the two arrays of ids.
    iou : (K,) float64 array
        Intersection over union of each pair, above 0.
    """

    truth_ids: NDArray[np.int64]
    found_ids: NDArray[np.int64]
    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    iou: NDArray[np.float64]

    def match(self, threshold: float = 0.5) -> NDArray[np.int64]:
        """Pair objects one to one.

        Parameters
        ----------
        threshold : float
            Least IoU of a pair, above 0.

        Returns
        -------
        (P,) int64 array
            Indices into ``truth``, ``found`` and ``iou``: as many pairs as possible,
            and among such choices the one with the largest sum of IoU.
        """
        if not threshold > 0:
            raise InputError(f"threshold {threshold} pairs strangers; use one above 0")
        pairs = np.flatnonzero(self.iou >= threshold)
        rows, row_of = np.unique(self.truth[pairs], return_inverse=True)
        cols, col_of = np.unique(self.found[pairs], return_inverse=True)
        # above 0.5 an object has one partner at most, and nothing is left to solve
        if len(rows) == len(pairs) == len(cols):
            return pairs
        gain = np.zeros((len(rows), len(cols)))
        # the 1 makes one more pair worth more than any IoU
        gain[row_of, col_of] = 1 + self.iou[pairs] / (len(pairs) + 1)
        chosen = np.zeros(gain.shape, bool)
        chosen[linear_sum_assignment(gain, maximize=True)] = True
        return pairs[chosen[row_of, col_of]]

    def accuracy(self, threshold: float = 0.5) -> float:
        """TP / (TP + FP + FN) at one threshold; 1 where nothing is on either side."""
        total = len(self.truth_ids) + len(self.found_ids)
        n_matched = len(self.match(threshold))
        return n_matched / (total - n_matched) if total else 1.0


def overlaps(truth: ArrayLike, found: ArrayLike) -> Overlaps:
    """Count the pixels that objects of two label images share.

    Parameters
    ----------
    truth, found : array of int, any equal shape
        Object ids, 0 is background.

    Returns
    -------
    Overlaps
        Pairs that share at least one pixel.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    a, b = np.asarray(truth), np.asarray(found)
    if a.shape != b.shape:
        raise InputError(f"labels have shapes {a.shape} and {b.shape}; give equal ones")
    labelled = (a > 0) | (b > 0)
    a_ids, a_of = np.unique(np.append(a[labelled], 0), return_inverse=True)
    b_ids, b_of = np.unique(np.append(b[labelled], 0), return_inverse=True)
    # the appended zero makes index 0 the background on both sides
    a_of, b_of = a_of[:-1], b_of[:-1]
    a_area = np.bincount(a_of, minlength=len(a_ids))
    b_area = np.bincount(b_of, minlength=len(b_ids))
    pairs, shared = np.unique(a_of * len(b_ids) + b_of, return_counts=True)
    rows, cols = np.divmod(pairs, len(b_ids))
    both = (rows > 0) & (cols > 0)
    rows, cols, shared = rows[both], cols[both], shared[both]
    return Overlaps(
        truth_ids=a_ids[1:].astype(np.int64),
        found_ids=b_ids[1:].astype(np.int64),
        truth=(rows - 1).astype(np.int64),
        found=(cols - 1).astype(np.int64),
        iou=shared / (a_area[rows] + b_area[cols] - shared),
    )


def mean_segmentation_accuracy(truth: ArrayLike, found: ArrayLike) -> float:
    """Mean of TP / (TP + FP + FN) over the IoU thresholds 0.5, 0.55 ... 0.95.

    Parameters
    ----------
    truth, found : array of int, any equal shape
        Object ids, 0 is background.

    Returns
    -------
    float
        0 to 1.

    Examples
    --------
    >>> truth = np.repeat([[1, 0, 2]], 100, axis=0)
    >>> mean_segmentation_accuracy(truth, np.where(truth == 1, 7, 0))
    0.5
    """
    pairs = overlaps(truth, found)
    return float(np.mean([pairs.accuracy(threshold) for threshold in THRESHOLDS]))
