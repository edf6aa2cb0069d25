"""Which scale suits objects of a size, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_sam.errors import InputError
from napari_sam.tiling.grid import MAX_UPSCALE, TARGET_DIAMETER, CropGrid

# Between these diameters in input pixels a mask has a shape and its surroundings are
# seen, so nothing is gained that is worth encoding again (ours).
_SMALL, _LARGE = TARGET_DIAMETER / 2, 6 * TARGET_DIAMETER


@dataclass(frozen=True, slots=True)
class ScaleAdvice:
    """A scale for the crops of a plane.

    Parameters
    ----------
    scale : float or None
        For `CropGrid`; None where the default is good.
    n_crops : int
        How many crops the plane then has.
    why : str
        For people.
    """

    scale: float | None
    n_crops: int
    why: str


def advise_scale(
    shape: tuple[int, int], diameter: float, *, size: int = 1024, halo: int = 128
) -> ScaleAdvice:
    """Choose the scale of crops by the size of a typical object.

    Parameters
    ----------
    shape : tuple of int
        Size of the plane, (height, width), in pixels.
    diameter : float
        Of a typical object, in plane pixels.
    size, halo : int
        As in `CropGrid`.

    Raises
    ------
    InputError
        If the diameter is not a positive number.

    Examples
    --------
    >>> advice = advise_scale((2000, 2000), diameter=8)
    >>> advice.scale, advice.n_crops
    (4.0, 121)
    >>> advise_scale((2000, 2000), diameter=60).scale is None
    True
    """
    if not 0 < diameter < math.inf:
        raise InputError(f"diameter {diameter} px; give a number of pixels above 0")
    usual = CropGrid(shape, size, halo)
    seen = diameter * usual.zoom
    if _SMALL <= seen <= _LARGE:
        why = (
            f"Objects of {diameter:.0f} px are {seen:.0f} px for the network, which is "
            "a good size: nothing to change."
        )
        return ScaleAdvice(None, len(usual), why)
    scale = min(TARGET_DIAMETER / diameter, MAX_UPSCALE)
    if seen > _LARGE:  # no smaller than that, so that details stay
        scale = _LARGE / 2 / diameter
    if abs(scale / usual.zoom - 1) < 0.01:
        why = (
            f"Objects of {diameter:.0f} px are {seen:.0f} px for the network, which is "
            f"small, but the image is enlarged {usual.zoom:.1f} times already: nothing "
            "to change."
        )
        return ScaleAdvice(None, len(usual), why)
    grid = CropGrid(shape, size, halo, scale)
    kind = "too small" if seen < _SMALL else "so large that a crop shows little more"
    change = f"{scale:.2g} times as large"
    why = (
        f"Objects of {diameter:.0f} px are {seen:.0f} px for the network, {kind}. The "
        f"image is now shown {change}, objects with {diameter * scale:.0f} px; crops "
        f"of the plane: {len(grid)} instead of {len(usual)}."
    )
    return ScaleAdvice(scale, len(grid), why)
