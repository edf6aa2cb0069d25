"""Objects placed on a plane: what lies where, and on top of what.

Whoever is painted first lies on top in the labels, while the signal adds up, as
fluorescence and absorption do where objects overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from skimage.measure import label

from napari_sam.training.fields import Float, Int, blur
from napari_sam.training.shapes import Slices, blob, blob_outline

if TYPE_CHECKING:
    from collections.abc import Callable


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

    def visible(self, *, least: int = 16) -> Int:
        """Return the `visible_labels` of what was painted."""
        return visible_labels(self.labels, self.areas, least=least)


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
    pieces = label(labels, background=0, connectivity=2)
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


def central(
    rng: np.random.Generator, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Draw a place (y, x) in the middle half of the plane, to leave no scene empty."""
    return np.asarray(rng.uniform(0.25, 0.75, 2) * shape)


def scatter(  # noqa: PLR0913 - one keyword for each trait of the objects
    rng: np.random.Generator,
    layout: Layout,
    diameter: float,
    *,
    spacing: float,
    amplitude: Callable[[], float],
    elongation: float,
    roughness: float,
    edge: float,
    n_spikes: tuple[int, int] = (0, 0),
    bend: float = 0.0,
    clustered: float = 0.35,
) -> list[tuple[float, float]]:
    """Paint blobs at random places, all over the plane or in clusters.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; also chooses how many, at most 180.
    layout : Layout
        Is painted on.
    diameter : float, pixels
        Typical diameter.
    spacing : float
        Least distance of two middles as a part of the sum of their radii; below 1
        objects overlap.
    amplitude : callable
        Draws the signal of one object.
    elongation, roughness, n_spikes
        See :func:`~napari_sam.training.shapes.blob_outline`; the number of spikes is
        drawn between the two given.
    edge : float, pixels
        See :meth:`Layout.paint`.
    bend : float
        Largest curvature.
    clustered : float
        Probability that the objects lie in clusters.

    Returns
    -------
    list of (y, x)
        Middles of the objects in pixels; the first lies in the middle of the plane.
    """
    height, width = layout.shape
    area = height * width / (diameter * spacing) ** 2
    wanted = int(np.clip(np.exp(rng.uniform(np.log(0.08), 0)) * area, 2, 180))
    reach = np.array(layout.shape) + diameter
    middles = rng.uniform(0, 1, (4 * wanted + 8, 2)) * reach - diameter / 2
    if rng.random() < clustered:
        hubs = rng.uniform(0, 1, (int(rng.integers(1, 5)), 2)) * layout.shape
        offset = rng.normal(0, 0.6 * diameter * np.sqrt(wanted), middles.shape)
        middles = hubs[rng.integers(0, len(hubs), len(middles))] + offset
    middles[0] = central(rng, layout.shape)
    radii = diameter / 2 * np.exp(rng.normal(0, 0.18, len(middles)))
    placed: list[int] = []
    edge_gap = np.minimum(middles, layout.shape - middles).min(1)
    for i in np.flatnonzero(edge_gap > -radii):
        middle, radius = middles[i], float(radii[i])
        gap = np.hypot(*(middles[placed] - middle).T)
        if (gap < spacing * (radii[placed] + radius)).any():
            continue
        placed.append(int(i))
        outline = blob_outline(
            rng,
            radius,
            elongation=max(elongation * rng.uniform(0.7, 1.3), 1.0),
            roughness=roughness,
            n_spikes=int(rng.integers(n_spikes[0], n_spikes[1] + 1)),
        )
        where, rho = blob(
            layout.shape, (middle[0], middle[1]), outline, rng.uniform(-bend, bend)
        )
        if rho.size:
            layout.paint(where, rho, radius, amplitude=amplitude(), edge=edge)
        if len(placed) == wanted:
            break
    return [(float(y), float(x)) for y, x in middles[placed]]


def rod_places(
    rng: np.random.Generator,
    shape: tuple[int, int],
    along: float,
    across: float,
    angle: float,
) -> npt.NDArray[np.float64]:
    """Draw places of rods that lie side by side, a turned brick pattern in disorder.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Size of the plane.
    along, across : float, pixels
        Distance of neighbours along and across the rods.
    angle : float
        Direction of the rods, radians from x to y.

    Returns
    -------
    (N, 2) float64 array, (y, x), pixels
        At most 300 places; the first one is in view.
    """
    half = float(np.hypot(*shape)) / 2 + along
    rows = np.arange(-half, half, across)
    cols = np.arange(-half, half, along)
    v, u = np.meshgrid(rows, cols, indexing="ij")
    u = u + rng.uniform(0, along, (len(rows), 1))
    u = u + rng.normal(0, 0.05 * along, u.shape)
    v = v + rng.normal(0, 0.06 * across, v.shape)
    cos, sin = np.cos(angle), np.sin(angle)
    spots = np.stack([v * cos + u * sin, u * cos - v * sin], -1).reshape(-1, 2)
    spots += central(rng, shape) - spots[np.argmin((spots * spots).sum(1))]
    # nearest to the middle first: one rod at least is in view
    spots = spots[np.argsort(((spots - np.array(shape) / 2) ** 2).sum(1))]
    seen = np.all((spots > -along / 2) & (spots < np.array(shape) + along / 2), axis=1)
    spots = spots[seen]
    return spots[:300]


def debris(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Float:
    """Signal of up to 12 specks of ``size`` pixels that are not objects, (H, W)."""
    layout = Layout(shape)
    for y, x in rng.uniform(0, 1, (int(rng.integers(0, 12)), 2)) * shape:
        radius = max(size * rng.uniform(0.3, 1.3), 0.8)
        outline = blob_outline(rng, radius, roughness=0.2)
        where, rho = blob(shape, (y, x), outline)
        layout.paint(where, rho, radius, amplitude=rng.uniform(0.3, 1.5), edge=1.0)
    return blur(layout.signal, rng.uniform(0.4, 1.5))
