"""Outlines and random fields from which synthetic scenes are drawn.

An object is a field *rho* in its own box: 0 in the middle, 1 on the outline.
:class:`Layout` collects objects: whoever is painted first lies on top in the labels,
while the signal adds up, as fluorescence and absorption do where objects overlap.
Smooth noise is a small random grid times two narrow Gaussian matrices; filtering a
full-size noise image would cost ten times as much for coarse structure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from skimage.measure import label as connected_components

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]
Slices = tuple[slice, slice]

N_ANGLES = 1024
_ANGLE = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)
_ORDER = np.arange(2, 7)
# waves around the outline; high orders are weak, as on real cells
_WAVES = np.concatenate(
    [f(_ORDER[:, None] * _ANGLE) / _ORDER[:, None] ** 1.5 for f in (np.cos, np.sin)]
)


@dataclass(slots=True)
class Layout:
    """Objects painted on a plane.

    Parameters
    ----------
    shape : tuple of int
        Size of the plane, (height, width), in pixels.

    Attributes
    ----------
    labels : (H, W) int32 array
        Object ids, 0 is background.
    signal : (H, W) float32 array
        Sum of the signals of all objects at a pixel.
    depth : (H, W) float32 array
        1 in the middle of the topmost object, 0 on its outline and outside.
    radii : list of float
        Half the thickness of each object in pixels; entry 0 is the background.
    areas : list of int
        Pixels each object would show if nothing lay on it.
    """

    shape: tuple[int, int]
    labels: Int = field(init=False)
    signal: Float = field(init=False)
    depth: Float = field(init=False)
    radii: list[float] = field(init=False)
    areas: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.shape, np.int32)
        self.signal = np.zeros(self.shape, np.float32)
        self.depth = np.zeros(self.shape, np.float32)
        self.radii = [1.0]
        self.areas = [0]

    def paint(
        self,
        where: Slices,
        rho: Float,
        radius: float,
        *,
        amplitude: float = 1.0,
        edge: float = 1.5,
    ) -> None:
        """Add one object.

        Parameters
        ----------
        where : pair of slices
            Box of the object in the plane.
        rho : (h, w) float32 array
            0 in the middle, 1 on the outline.
        radius : float, pixels
            Half the thickness of the object.
        amplitude : float
            Signal in the middle of the object.
        edge : float, pixels
            Distance from the outline over which the signal rises to ``amplitude``.
        """
        depth = np.maximum(1 - rho, 0)
        inside = rho < 1
        free = inside & (self.labels[where] == 0)
        self.labels[where][free] = len(self.radii)
        self.depth[where][free] = depth[free]
        rise = np.float32(max(radius / edge, 1.0))
        self.signal[where] += np.minimum(depth * rise, 1) * np.float32(amplitude)
        self.radii.append(radius)
        self.areas.append(int(np.count_nonzero(inside)))

    def distance(self) -> Float:
        """Approximate distance of each object pixel to the outline, in pixels."""
        return self.depth * np.asarray(self.radii, np.float32)[self.labels]

    def per_object(self, values: Float) -> Float:
        """Spread one value per object over the plane; ``values[0]`` is background."""
        return values[self.labels]


def visible_labels(
    labels: Int, areas: list[int] | None = None, *, least: int = 16
) -> Int:
    """Keep what an annotator would draw: one connected piece per object.

    Parameters
    ----------
    labels : (H, W) int32 array
        Object ids.
    areas : list of int, optional
        Area of each object without occlusion; an object of which less than a third
        is visible is dropped.
    least : int, pixels
        Smallest area of an object.

    Returns
    -------
    (H, W) int32 array
        Ids 1..n without gaps, each one 8-connected.
    """
    pieces = connected_components(labels, background=0, connectivity=2)
    piece_area = np.bincount(pieces.ravel())
    owner = np.zeros(len(piece_area), np.int64)
    owner[pieces.ravel()] = labels.ravel()
    largest = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    np.maximum.at(largest, owner, piece_area)
    need = np.full(len(largest), least, np.float64)
    if areas is not None:
        need = np.maximum(need, np.asarray(areas[: len(largest)]) / 3)
    keep = (piece_area == largest[owner]) & (piece_area >= need[owner]) & (owner > 0)
    # two equal pieces of one object: the first one stays
    _, first = np.unique(np.where(keep, owner, 0), return_index=True)
    chosen = np.zeros(len(owner), bool)
    chosen[first] = True
    keep &= chosen
    new_id = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return np.asarray(new_id[pieces], np.int32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale: float | tuple[float, float]
) -> Float:
    """Gaussian random field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        (height, width) in pixels.
    scale : float or pair of float, pixels
        Size of the structures, along y and x.

    Returns
    -------
    (H, W) float32 array
        Mean about 0, standard deviation about 1.
    """
    scales = (scale, scale) if isinstance(scale, int | float) else scale
    rows, cols = (
        _spread(size, max(s, 1.0)) for size, s in zip(shape, scales, strict=True)
    )
    grid = rng.standard_normal((rows.shape[1], cols.shape[1]), dtype=np.float32)
    return np.asarray(rows @ grid @ cols.T, np.float32)


def blur(image: Float, sigma: float) -> Float:
    """Gaussian blur.

    Parameters
    ----------
    image : (H, W) float32 array
        Any range.
    sigma : float, pixels
        Below 0.3 the image is returned as it is.

    Returns
    -------
    (H, W) float32 array
        Blurred; the image is reflected (narrow) or averaged (wide) at its border.
    """
    if sigma < 0.3:
        return image
    if sigma < 6:
        return np.asarray(gaussian_filter(image, sigma, truncate=2.5), np.float32)
    # two products of matrices take the same time for any sigma
    rows, cols = (_average(size, sigma) for size in image.shape)
    return np.asarray(rows @ image @ cols.T, np.float32)


def _average(size: int, sigma: float) -> Float:
    place = np.arange(size, dtype=np.float32) / np.float32(sigma)
    weights = np.exp(-0.5 * (place[:, None] - place) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def fibrous_noise(
    rng: np.random.Generator, shape: tuple[int, int], width: float, length: float
) -> Float:
    """Gaussian random field of wavy strands in one random direction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        (height, width) in pixels.
    width, length : float, pixels
        Size of a strand across and along.

    Returns
    -------
    (H, W) float32 array
        Mean about 0, standard deviation about 1.
    """
    side = int(np.hypot(*shape)) + 1
    strands = smooth_noise(rng, (side, side), (width, length))
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    wave = np.float32(0.15 * length) * smooth_noise(rng, shape, length)
    # negative indices wrap, which is as random as anything else
    row = (y * cos + x * sin + wave).astype(np.int32) % side
    col = (x * cos - y * sin).astype(np.int32) % side
    return np.asarray(strands[row, col], np.float32)


def _spread(size: int, scale: float) -> Float:
    """Gaussian weights (size, n_nodes) with unit variance per row."""
    nodes = np.arange(-2, size / scale + 3, dtype=np.float32) * np.float32(scale)
    offset = (np.arange(size, dtype=np.float32)[:, None] - nodes) / np.float32(scale)
    weights = np.exp(-2 * offset * offset)
    return np.asarray(
        weights / np.sqrt((weights * weights).sum(1, keepdims=True)), np.float32
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
    return outline.astype(np.float32)


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
    return where, np.sqrt(dy * dy + dx * dx) / outline[index % len(outline)]


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
