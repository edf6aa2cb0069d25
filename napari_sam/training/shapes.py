"""Outlines of objects, one at a time, and tissues that fill a plane.

An object is a field *rho* in its own box: 0 in the middle, 1 on the outline.
All numbers are ours, chosen by eye beside real images.
"""

from __future__ import annotations

import numpy as np

from napari_sam.training.fields import Float, Int, smooth_noise

Slices = tuple[slice, slice]

N_ANGLES = 1024
_ANGLE = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)
_ORDER = np.arange(2, 7)
# waves around the outline; high orders are weak, as on real cells
_WAVES = np.concatenate(
    [f(_ORDER[:, None] * _ANGLE) / _ORDER[:, None] ** 1.5 for f in (np.cos, np.sin)]
)


def blob_outline(
    rng: np.random.Generator,
    radius: float,
    *,
    elongation: float = 1.0,
    roughness: float = 0.1,
    n_spikes: int = 0,
) -> Float:
    """Distance from the middle to the outline, for angles around the circle.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; also chooses the orientation.
    radius : float, pixels
        Geometric mean of the two half axes.
    elongation : float
        Long axis over short axis.
    roughness : float
        Size of the waves on the outline, as a part of the radius.
    n_spikes : int
        Protrusions, as of adherent cells.

    Returns
    -------
    (n,) float32 array
        In pixels; entry i is for the angle ``2 * pi * i / n``.
    """
    # a step of 128 angles is below a pixel up to this size, and eight times as fast
    every = 8 if radius * elongation < 20 else 1
    angles = _ANGLE[::every]
    turned = angles - rng.uniform(0, np.pi)
    outline = radius / np.sqrt(
        np.cos(turned) ** 2 / elongation + np.sin(turned) ** 2 * elongation
    )
    waves = 2 * roughness * rng.standard_normal(len(_WAVES)) @ _WAVES[:, ::every]
    outline *= 1 + np.clip(waves, -0.6, 1.0)
    for _ in range(n_spikes):
        gap = (angles - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi
        width = rng.uniform(0.12, 0.4)
        outline += (
            radius * rng.uniform(0.4, 1.6) * np.exp(-(np.abs(gap / width) ** 1.3))
        )
    return np.asarray(outline, np.float32)


def blob(
    shape: tuple[int, int],
    centre: tuple[float, float],
    outline: Float,
    bend: float = 0.0,
) -> tuple[Slices, Float]:
    """Field rho of a star-shaped object, in the box that holds it.

    Parameters
    ----------
    shape : tuple of int
        Size of the plane.
    centre : pair of float
        (y, x) in pixels.
    outline : (n,) float32 array
        From :func:`blob_outline`.
    bend : float
        Curvature; 0 leaves the outline as it is.

    Returns
    -------
    where : pair of slices
        The box, clipped to the plane.
    rho : (h, w) float32 array
        0 in the middle, 1 on the outline.
    """
    reach = float(outline.max()) * (1 + abs(bend))
    where, dy, dx = _grid(shape, centre, reach)
    if bend:
        dy = dy + np.float32(bend / reach) * dx * dx
    angle = np.arctan2(dy, dx)
    index = (angle * np.float32(len(outline) / (2 * np.pi))).astype(np.int16)
    rho = np.sqrt(dy * dy + dx * dx) / outline[index % len(outline)]
    return where, np.asarray(rho, np.float32)


def rod(
    shape: tuple[int, int],
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
    bend: float = 0.0,
) -> tuple[Slices, Float]:
    """Field rho of a rod with round ends, in the box that holds it.

    Parameters
    ----------
    shape : tuple of int
        Size of the plane.
    centre : pair of float
        (y, x) in pixels.
    size : pair of float
        Length and width in pixels.
    angle : float
        Direction of the long axis, radians from x to y.
    bend : float
        Sagitta of the curved axis, as a part of the length.

    Returns
    -------
    where : pair of slices
        The box, clipped to the plane.
    rho : (h, w) float32 array
        0 on the axis, 1 on the outline.
    """
    length, width = size
    where, dy, dx = _grid(shape, centre, length / 2 * (1 + abs(bend)) + 1)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    if bend:
        across = across + np.float32(4 * bend / length) * along * along
    beyond = np.maximum(np.abs(along) - np.float32((length - width) / 2), 0)
    return where, np.sqrt(beyond * beyond + across * across) / np.float32(width / 2)


def _grid(
    shape: tuple[int, int], centre: tuple[float, float], reach: float
) -> tuple[Slices, Float, Float]:
    y0, x0 = (max(int(c - reach), 0) for c in centre)
    y1, x1 = (
        max(min(int(c + reach) + 2, size), 0)
        for c, size in zip(centre, shape, strict=True)
    )
    y = np.arange(y0, max(y1, y0), dtype=np.float32) - np.float32(centre[0])
    x = np.arange(x0, max(x1, x0), dtype=np.float32) - np.float32(centre[1])
    return (slice(y0, max(y1, y0)), slice(x0, max(x1, x0))), y[:, None], x[None, :]


def tissue(
    rng: np.random.Generator,
    shape: tuple[int, int],
    diameter: float,
    *,
    elongation: float = 1.0,
    jitter: float = 0.4,
    waviness: float = 0.06,
) -> tuple[Int, Float]:
    """Cells that fill the plane (Worley noise: S. Worley, SIGGRAPH 1996).

    One seed lies in each square of a turned and stretched grid, so that the two
    nearest seeds are found among nine squares.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Size of the plane.
    diameter : float, pixels
        Mean diameter of a cell.
    elongation : float
        Long axis over short axis of the grid.
    jitter : float
        Disorder of the seeds, 0 (squares) to 0.5.
    waviness : float
        Waves of the borders, as a part of the diameter.

    Returns
    -------
    labels : (H, W) int32 array
        1..n; no background.
    border : (H, W) float32 array
        About the distance to the nearest border, in pixels.
    """
    y = np.arange(shape[0], dtype=np.float32)[:, None] + smooth_noise(
        rng, shape, diameter / 3
    ) * np.float32(diameter * waviness)
    x = np.arange(shape[1], dtype=np.float32)[None, :] + smooth_noise(
        rng, shape, diameter / 3
    ) * np.float32(diameter * waviness)
    turn = rng.uniform(0, np.pi)
    cos, sin, root = np.cos(turn), np.sin(turn), np.sqrt(elongation)
    u = (y * np.float32(cos) + x * np.float32(sin)) * np.float32(1 / diameter / root)
    v = (x * np.float32(cos) - y * np.float32(sin)) * np.float32(root / diameter)
    u -= u.min() - 2
    v -= v.min() - 2
    n_u, n_v = int(u.max()) + 3, int(v.max()) + 3
    seed_u, seed_v = rng.uniform(0.5 - jitter, 0.5 + jitter, (2, n_u, n_v)).astype(
        np.float32
    )
    cell_u, cell_v = u.astype(np.intp), v.astype(np.intp)
    nearest = np.full(shape, np.inf, np.float32)
    second = np.full(shape, np.inf, np.float32)
    labels = np.zeros(shape, np.int32)
    flat_u, flat_v = (
        (seed_u + np.arange(n_u)[:, None]).ravel(),
        (seed_v + np.arange(n_v)).ravel(),
    )
    square = cell_u * n_v + cell_v
    for step in ((i * n_v + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        index = square + step
        du, dv = (
            u - flat_u[index].astype(np.float32),
            v - flat_v[index].astype(np.float32),
        )
        far = du * du + dv * dv
        closer = far < nearest
        np.minimum(second, np.maximum(far, nearest), out=second)
        np.minimum(nearest, far, out=nearest)
        labels[closer] = index[closer]
    border = (np.sqrt(second) - np.sqrt(nearest)) * np.float32(diameter / 2)
    return labels + 1, np.asarray(border, np.float32)
