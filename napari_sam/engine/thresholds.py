"""What the user sets for finding all objects: plain values, which need no network.

They have a module of their own so that a window can show them before torch is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_sam.errors import InputError


@dataclass(frozen=True, slots=True)
class Search:
    """How candidates are found.

    Parameters
    ----------
    mode : {"proposals", "grid"}, optional
        Default: proposals where the weights have a proposal head, else grid.
    foreground : float
        Of `ProposalMode`.
    points_per_side : int
        Of `GridMode`.
    """

    mode: Literal["proposals", "grid"] | None = None
    foreground: float = 0.5
    points_per_side: int = 32


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Which candidates count.

    Parameters
    ----------
    min_predicted_iou : float
        The model's own estimate of the quality of a mask.
    min_stability : float
        Stability score.
    min_area : int
        In plane pixels.
    max_area : int, optional
        In plane pixels. Default: no limit.
    drop_at_border : bool
        Leave out objects that touch the border of the plane.
    min_visible : float
        An object of which better ones, or labels that are there already, leave a
        smaller share is left out.

    Raises
    ------
    InputError
        If no area can pass.
    """

    min_predicted_iou: float = 0.0
    min_stability: float = 0.0
    min_area: int = 1
    max_area: int | None = None
    drop_at_border: bool = False
    min_visible: float = 0.5

    def __post_init__(self) -> None:
        if self.max_area is not None and self.max_area < self.min_area:
            raise InputError(
                f"areas from {self.min_area} to {self.max_area} px; the largest must "
                "not be smaller than the smallest"
            )
