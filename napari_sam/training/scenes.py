"""Synthetic microscopy scenes with known labels, drawn in milliseconds.

Each kind imitates how its contrast arises, not how it looks: fluorescence adds up and
is blurred by haze, phase contrast is the optical thickness minus its own low pass
(hence halo and shade-off), a defocused edge is a difference of Gaussians, stains
absorb after Beer and Lambert. All numbers are ours, chosen by eye beside real images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sam.errors import InputError
from napari_sam.training.fields import (
    Float,
    Int,
    blur,
    fibrous_noise,
    grain,
    phase_image,
    relief_image,
    shot_noise,
    smooth_noise,
    uneven,
)
from napari_sam.training.layout import (
    Layout,
    central,
    debris,
    rod_places,
    scatter,
    visible_labels,
)
from napari_sam.training.shapes import blob, blob_outline, rod, tissue

if TYPE_CHECKING:
    from collections.abc import Callable

Shape = tuple[int, int]
Drawing = tuple[Float, Int]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Scene:
    """An image and the objects in it.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) uint8 array
        Gray or RGB.
    labels : (H, W) int32 array
        Object ids 1..n, each one connected piece; 0 is background.
    kind : str
        One of :data:`KINDS`.
    """

    image: npt.NDArray[np.uint8]
    labels: Int
    kind: str


def make_scene(
    rng: Rng,
    kind: str | None = None,
    shape: Shape = (256, 256),
    diameter: float | None = None,
) -> Scene:
    """Draw a random scene.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same scene.
    kind : str, optional
        One of :data:`KINDS`; drawn if not given.
    shape : tuple of int, default (256, 256)
        (height, width) in pixels, each at least 16.
    diameter : float, optional
        Typical diameter of the objects in pixels; drawn between 12 and 200 (and not
        above 0.8 of the shorter side), uniform on a logarithmic scale, if not given.

    Returns
    -------
    Scene
        Image and labels.

    Raises
    ------
    InputError
        If the kind is unknown, the shape too small, or the diameter below 4 pixels.

    Examples
    --------
    >>> scene = make_scene(np.random.default_rng(0), "nuclei", (64, 96))
    >>> scene.image.shape, scene.labels.dtype
    ((64, 96), dtype('int32'))
    """
    if kind is None:
        kind = str(rng.choice(list(KINDS)))
    if kind not in KINDS:
        raise InputError(f"kind {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if min(shape) < 16:
        raise InputError(f"shape {shape} is too small; use 16 pixels or more a side")
    if diameter is None:
        largest = max(min(200.0, 0.8 * min(shape)), 13.0)
        diameter = float(np.exp(rng.uniform(np.log(12), np.log(largest))))
    if not diameter >= 4:
        raise InputError(f"diameter {diameter} is too small; use 4 pixels or more")
    image, labels = KINDS[kind](rng, shape, diameter)
    return Scene(_to_uint8(rng, image), labels, kind)


def _nuclei(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    spread = rng.uniform(0.1, 0.9)
    scatter(
        rng,
        layout,
        diameter,
        spacing=rng.uniform(0.7, 1.15),
        amplitude=lambda: float(np.exp(rng.normal(0, spread)).clip(0.12, 3)),
        elongation=rng.uniform(1.0, 1.9),
        roughness=rng.uniform(0.02, 0.14),
        edge=rng.uniform(0.03, 0.25) * diameter,
    )
    signal = layout.signal * _chromatin(rng, shape, diameter)
    haze = blur(layout.signal, diameter * 0.5)
    level = rng.uniform(0, 0.25) * (1 + 0.5 * smooth_noise(rng, shape, 80))
    image = signal + rng.uniform(0, 0.4) * haze + level
    image *= uneven(rng, shape, 0.25)
    image = blur(image, rng.uniform(0, 0.035) * diameter)
    image = shot_noise(rng, image, np.exp(rng.uniform(2.5, 8)))
    return image, layout.visible()


def _phase(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    spiky = rng.random() < 0.75
    scatter(
        rng,
        layout,
        diameter * (0.75 if spiky else 1.0),
        spacing=rng.uniform(0.85, 1.3),
        amplitude=lambda: rng.uniform(0.7, 1.5),
        elongation=rng.uniform(1.2, 3.2) if spiky else rng.uniform(1.0, 1.4),
        roughness=rng.uniform(0.1, 0.3) if spiky else 0.06,
        edge=rng.uniform(0.05, 0.5) * diameter,
        n_spikes=(0, 5) if spiky else (0, 0),
        bend=0.35 if spiky else 0.0,
    )
    inside = layout.labels > 0
    # a thin lamella and a thick middle, with dark granules and some nucleoli
    thickness = layout.signal * (1 + 0.2 * smooth_noise(rng, shape, diameter / 5))
    fine = smooth_noise(rng, shape, max(diameter / rng.uniform(14, 35), 1.2))
    granules = rng.uniform(0, 0.12) * fine + rng.uniform(0, 0.5) * (fine > 1.9)
    nucleoli = smooth_noise(rng, shape, max(diameter / 10, 1.5)) > 1.5
    granules += rng.uniform(0, 0.4) * (nucleoli & (layout.depth > 0.45))
    thickness += np.where(inside, blur(granules, 0.6), 0.02 * fine)
    thickness += rng.uniform(0, 0.5) * layout.depth**2
    thickness += debris(rng, shape, diameter / 12)
    return phase_image(rng, thickness, diameter), layout.visible()


def _rods(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    width = diameter / rng.uniform(1.3, 2.2)
    bend = rng.uniform(0, 0.12)
    crowd = rng.uniform(0.25, 1.0)
    angles = rng.uniform(0, np.pi) + rng.uniform(0.05, 1.5) * smooth_noise(
        rng, shape, 4 * diameter
    )
    mean_ratio = rng.uniform(1.8, 4.5)
    turn = float(angles[shape[0] // 2, shape[1] // 2])
    spots = rod_places(rng, shape, width * mean_ratio, width * 1.02, turn)
    for y, x in spots[(rng.random(len(spots)) < crowd) | (np.arange(len(spots)) == 0)]:
        ratio = mean_ratio * rng.uniform(0.6, 1.05)
        row, col = (
            int(np.clip(c, 0, n - 1)) for c, n in zip((y, x), shape, strict=True)
        )
        angle = float(angles[row, col]) + rng.normal(0, 0.08)
        where, rho = rod(
            shape, (y, x), (width * ratio, width), angle, rng.uniform(-bend, bend)
        )
        if rho.size:
            layout.paint(
                where,
                rho,
                width / 2,
                amplitude=rng.uniform(0.6, 1.4),
                edge=width * 0.35,
            )
    signal = layout.signal * (1 + 0.2 * smooth_noise(rng, shape, width / 3))
    labels = layout.visible(least=8)
    look = rng.choice(["fluorescence", "phase", "relief"])
    if look == "fluorescence":
        image = signal + rng.uniform(0, 0.4) * blur(signal, 2 * width)
        image = blur(image + rng.uniform(0, 0.2), rng.uniform(0, 0.12) * width)
        return shot_noise(rng, image, np.exp(rng.uniform(2.5, 7))), labels
    if look == "phase":
        return phase_image(rng, signal, width * 1.5), labels
    return relief_image(rng, signal, width), labels


def _membranes(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    cells, border = tissue(
        rng,
        shape,
        diameter,
        elongation=rng.uniform(1, 2),
        jitter=rng.uniform(0.25, 0.48),
        waviness=rng.uniform(0, 0.1),
    )
    width = max(rng.uniform(0.02, 0.07) * diameter, 0.8)
    wall = np.exp(-((border / np.float32(width)) ** 2))
    labels = visible_labels(np.where(border > 0.6 * width, cells, 0).astype(np.int32))
    level = rng.uniform(0.7, 1.3, int(cells.max()) + 1).astype(np.float32)[cells]
    if rng.random() < 0.5:
        wall *= np.exp(0.5 * smooth_noise(rng, shape, diameter / 3))
        inner = rng.uniform(0.03, 0.4) * level
        image = wall + inner * (1 + 0.3 * smooth_noise(rng, shape, diameter / 6))
        image *= uneven(rng, shape, 0.25)
        image = blur(image, rng.uniform(0, 0.03) * diameter)
        return shot_noise(rng, image, np.exp(rng.uniform(3, 7))), labels
    inner = 0.65 * level**0.3 + 0.08 * smooth_noise(rng, shape, diameter / 8)
    specks = smooth_noise(rng, shape, max(diameter / 18, 1.2)) > rng.uniform(1.3, 2.2)
    image = inner - rng.uniform(0.1, 0.4) * specks - rng.uniform(0.3, 0.6) * wall
    return blur(grain(rng, image, rng.uniform(0.02, 0.1)), rng.uniform(0, 1)), labels


def _organelles(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    scatter(
        rng,
        layout,
        diameter,
        spacing=rng.uniform(0.9, 1.4),
        amplitude=lambda: rng.uniform(0.7, 1.3),
        elongation=rng.uniform(1.0, 2.5),
        roughness=rng.uniform(0.05, 0.25),
        edge=1.5,
        bend=0.2,
    )
    distance = layout.distance()
    rim = max(rng.uniform(0.03, 0.18) * diameter, 1.2)
    inside = layout.labels > 0
    back = rng.uniform(0.45, 0.8) + 0.1 * smooth_noise(rng, shape, diameter / 4)
    back -= 0.3 * (smooth_noise(rng, shape, max(diameter / 10, 1.5)) > 1.2)
    _, border = tissue(rng, shape, diameter * rng.uniform(1, 3), waviness=0.1)
    back = back - 0.3 * np.exp(-((border / 1.5) ** 2))
    stripes = fibrous_noise(rng, shape, diameter / 16, diameter / 3)
    body = rng.uniform(0.15, 0.9) + rng.uniform(0, 0.15) * stripes
    body = body + 0.07 * smooth_noise(rng, shape, max(diameter / 12, 1.2))
    ring = np.where(distance < rim, rng.uniform(0.3, 0.7), 0.0)
    image = np.where(inside, body - ring, back).astype(np.float32)
    labels = layout.labels
    if rng.random() < 0.4:  # as axons: the dark sheath is not part of the object
        labels = np.where(distance > rim, labels, 0).astype(np.int32)
    if rng.random() < 0.2:
        image = 1 - image
    image = grain(rng, blur(image, rng.uniform(0.3, 1.3)), rng.uniform(0.02, 0.12))
    return image, visible_labels(labels, layout.areas)


def _histology(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    scatter(
        rng,
        layout,
        diameter,
        spacing=rng.uniform(0.8, 1.6),
        amplitude=lambda: float(np.exp(rng.normal(0, 0.35)).clip(0.35, 2)),
        elongation=rng.uniform(1.0, 2.6),
        roughness=rng.uniform(0.04, 0.22),
        edge=rng.uniform(0.05, 0.2) * diameter,
    )
    distance = layout.distance()
    rim = np.exp(-((distance - 1.5) ** 2) / (0.004 * diameter**2 + 1))
    fine = smooth_noise(rng, shape, max(diameter / 9, 1.2))
    stain = layout.signal * (0.75 + 0.25 * fine)
    stain += np.where(layout.labels > 0, rng.uniform(0, 0.5) * rim, 0)
    fibres = fibrous_noise(rng, shape, diameter / 6, diameter * rng.uniform(0.3, 2))
    matrix = 0.5 + rng.uniform(0.05, 0.25) * fibres
    matrix += 0.15 * smooth_noise(rng, shape, 2 * diameter)
    matrix += rng.uniform(0, 0.15) * smooth_noise(rng, shape, max(diameter / 12, 1.5))
    gaps = smooth_noise(rng, shape, 1.5 * diameter) > rng.uniform(0.4, 2)
    matrix = np.where(gaps & (layout.labels == 0), 0.03, np.clip(matrix, 0.05, 1.5))
    blue = rng.uniform(0.6, 1.3) * np.maximum(stain, 0) + 0.1 * matrix
    pink = rng.uniform(0.08, 0.8) * matrix
    # optical densities of haematoxylin and eosin: Ruifrok & Johnston 2001, table 1
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    dyes = np.clip(dyes + rng.normal(0, 0.09, (2, 3)), 0.02, 1.2).astype(np.float32)
    sharp = rng.uniform(0, 0.03) * diameter + rng.uniform(0, 0.7)
    blue, pink = blur(blue, sharp), blur(pink, sharp)
    density = blue[..., None] * dyes[0] + pink[..., None] * dyes[1]
    image = rng.uniform(0.85, 1.0) * np.exp(-density)
    image = image + rng.normal(0, 0.01, 3).astype(np.float32)
    return grain(rng, image, rng.uniform(0, 0.02)), layout.visible()


def _cytology(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    """Stained smear: pale folded cells, dark nuclei; only the nuclei are objects."""
    bodies, nuclei = Layout(shape), Layout(shape)
    size = diameter * rng.uniform(2.5, 5)
    count = int(np.clip(rng.uniform(0.3, 1.2) * shape[0] * shape[1] / size**2, 1, 60))
    places = rng.uniform(0, 1, (count, 2)) * shape
    places[0] = central(rng, shape)
    for y, x in places:
        outline = blob_outline(rng, size / 2, elongation=1.2, roughness=0.2)
        bodies.paint(*blob(shape, (y, x), outline), size / 2, edge=1.0)
        outline = blob_outline(
            rng, diameter / 2 * rng.uniform(0.8, 1.2), elongation=rng.uniform(1, 1.6)
        )
        place = (y + rng.normal(0, size / 10), x + rng.normal(0, size / 10))
        nuclei.paint(
            *blob(shape, place, outline), diameter / 2, amplitude=rng.uniform(0.7, 1.3)
        )
    folds = 1 + 0.25 * smooth_noise(rng, shape, size / 6)
    folds += 0.08 * smooth_noise(rng, shape, 1.5)
    density = rng.uniform(0.15, 0.4) * bodies.signal * folds
    chromatin = 1 + 0.25 * smooth_noise(rng, shape, max(diameter / 9, 1.2))
    density += rng.uniform(0.6, 1.2) * nuclei.signal * chromatin
    density += np.where(bodies.labels > 0, 0.4, 1.0) * debris(rng, shape, diameter / 8)
    image = np.exp(-blur(np.maximum(density, 0), rng.uniform(0.3, 1.2)))
    return grain(rng, image, rng.uniform(0.005, 0.03)), nuclei.visible()


def _yeast(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    layout = Layout(shape)
    scatter(
        rng,
        layout,
        diameter,
        spacing=rng.uniform(0.9, 1.1),
        amplitude=lambda: rng.uniform(0.6, 1.3),
        elongation=rng.uniform(1.0, 1.5),
        roughness=0.03,
        edge=rng.uniform(1, 3),
        clustered=0.7,
    )
    width = max(rng.uniform(0.03, 0.1) * diameter, 0.8)
    solid = layout.signal
    ring = blur(solid, width) - blur(solid, 2 * width)
    outer = blur(solid, 0.7 * width) - blur(solid, width * 1.2)
    bright = rng.choice([-1.0, 1.0], p=[0.35, 0.65])
    interior = rng.uniform(-0.12, 0.12) * solid
    fine = smooth_noise(rng, shape, max(diameter / 8, 1.2))
    spots = np.where(layout.labels > 0, 0.04 * fine - 0.15 * (fine > 1.8), 0)
    image = 0.5 + bright * (1.2 * ring + rng.uniform(-1, 0.5) * outer)
    image = image + interior + spots + 0.02 * smooth_noise(rng, shape, 60)
    image += rng.uniform(0, 0.2) * debris(rng, shape, diameter / 12)
    image *= uneven(rng, shape, 0.08)
    return grain(rng, image, np.exp(rng.uniform(-5.5, -3))), layout.visible()


def _large(rng: Rng, shape: Shape, diameter: float) -> Drawing:
    """Whole cells with fibres or granules and a nucleus that shows or is spared."""
    diameter = max(diameter, 60.0) if min(shape) >= 128 else diameter
    layout = Layout(shape)
    middles = scatter(
        rng,
        layout,
        diameter,
        spacing=rng.uniform(0.75, 1.05),
        amplitude=lambda: float(np.exp(rng.normal(0, 0.5)).clip(0.25, 2.5)),
        elongation=rng.uniform(1.0, 2.2),
        roughness=rng.uniform(0.08, 0.25),
        edge=rng.uniform(0.05, 0.5) * diameter,
        n_spikes=(0, 3),
        bend=0.2,
    )
    nuclei = Layout(shape)
    for middle in middles:
        radius = diameter * rng.uniform(0.12, 0.2)
        outline = blob_outline(rng, radius, elongation=1.3, roughness=0.05)
        nuclei.paint(*blob(shape, middle, outline), radius, edge=3.0)
    nucleus = nuclei.signal * (layout.labels > 0)
    coarse = smooth_noise(rng, shape, diameter / 8)
    fibres = fibrous_noise(rng, shape, rng.uniform(1, 3), diameter / 4)
    texture = 1 + 0.25 * coarse + rng.uniform(0, 0.35) * fibres
    signal = layout.signal * np.maximum(texture, 0.1)
    signal *= 1 + rng.uniform(-0.8, 1.5) * np.minimum(nucleus, 1)
    if rng.random() < 0.25:
        return phase_image(rng, signal, diameter * 0.6), layout.visible()
    image = signal + rng.uniform(0.02, 0.2) + 0.15 * blur(layout.signal, diameter / 4)
    image = blur(image * uneven(rng, shape, 0.2), rng.uniform(0.3, 2))
    image = shot_noise(rng, image, np.exp(rng.uniform(3, 8)))
    return image, layout.visible()


KINDS: dict[str, Callable[[Rng, Shape, float], Drawing]] = {
    "nuclei": _nuclei,
    "phase": _phase,
    "rods": _rods,
    "membranes": _membranes,
    "organelles": _organelles,
    "histology": _histology,
    "cytology": _cytology,
    "yeast": _yeast,
    "large": _large,
}


def _chromatin(rng: Rng, shape: Shape, diameter: float) -> Float:
    coarse = smooth_noise(rng, shape, diameter / 5)
    fine = smooth_noise(rng, shape, max(diameter / 14, 1.0))
    strength = rng.uniform(0, 0.3)
    spots = rng.uniform(0, 0.8) * (fine > 1.7) if rng.random() < 0.3 else 0.0
    texture = 1 + strength * coarse + 0.7 * strength * fine + spots
    return np.maximum(texture, 0.15).astype(np.float32)


def _to_uint8(rng: Rng, image: Float) -> npt.NDArray[np.uint8]:
    """Gray images to a contrast with a few saturated pixels; RGB as it is."""
    if image.ndim == 3:
        return np.asarray(np.clip(image * 255, 0, 255), np.uint8)
    sample = image[::3, ::3]
    low, high = np.quantile(sample, (0.001, 1 - 10 ** rng.uniform(-4, -2.3)))
    span = max(float(high - low), 1e-6)
    return np.asarray(np.clip((image - low) * (255 / span), 0, 255), np.uint8)
