"""A picture of an image with its objects, made for the human eye.

Each object is drawn from the signed distance to its border, enlarged together with
the image: lines are smooth and thin however few pixels the object has, and lie
inside it, so that of two objects that touch both lines are seen. Colours are chosen
to stand out from the image, and differ between neighbours. All that needs more than a
few bytes for each pixel is done in bands of rows.
"""

from __future__ import annotations

import heapq
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter
from skimage.color import rgb2lab
from skimage.segmentation import expand_labels

from napari_sam.errors import InputError
from napari_sam.images.scale import sizes_um
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MAX_SIDE = 4096
"""Longer side of the picture, in pixels; larger planes are shrunk."""

_GOOD_SIDE, _MAX_ZOOM = 2000, 4
_NEAR_PIXELS = 4.0
_BAND_PIXELS = 2**20
"""Pixels of the labels that are worked on at once."""
_RIM = 3
"""Pixels of the labels that are drawn around an object."""
_N_COLOURS = 6  # enough for any planar map, see `choose_colours`
_COLOURS = np.array(
    [
        (255, 221, 0),  # yellow
        (0, 225, 255),  # cyan
        (255, 70, 170),  # magenta
        (120, 255, 60),  # lime
        (255, 140, 0),  # orange
        (165, 140, 255),  # violet
        (0, 215, 150),  # mint
        (70, 160, 255),  # azure
        (255, 85, 75),  # red
        (215, 255, 110),  # pear
    ],
    dtype=np.float32,
)
_FILL, _FILL_ON_COLOUR = 0.22, 0.08
_COLOURED = 8.0
"""Chroma (CIELAB) from which an image has a colour; grays have 0 (ours)."""


def save_overlay(
    image: NDArray[np.uint8],
    labels: NDArray[Any],
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    opacity: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a PNG of the image with outlined, lightly filled objects.

    Parameters
    ----------
    image : (h, w, 3) uint8 array
        RGB, as from `napari_sam.images.read_rgb`.
    labels : (h, w) integer array
        Object ids; 0 is background.
    path : path
        Where to write, ending in .png.
    pixel_size_um : float or sequence of float, optional
        Pixel size in micrometres, one number or (y, x); draws a scale bar.
    opacity : float, optional
        Strength of the fill, 0 to 1; lines are always opaque. Default: light, and
        lighter still on a coloured image, so that its stain stays visible.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the picture is.

    Raises
    ------
    InputError
        If image and labels do not match, or the path does not end in .png.
    FileError
        If the file exists already or cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise InputError(f"overlay {path.name}; give a name that ends in .png")
    picture = draw_overlay(image, labels, pixel_size_um=pixel_size_um, opacity=opacity)
    with atomic(path, overwrite=overwrite) as part:
        Image.fromarray(picture).save(part, format="PNG")
    return path


def draw_overlay(
    image: NDArray[np.uint8],
    labels: NDArray[Any],
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    opacity: float | None = None,
) -> NDArray[np.uint8]:
    """Draw the picture that `save_overlay` saves; its parameters are the same.

    Returns
    -------
    (H, W, 3) uint8 array
        A small image is enlarged, up to four times; one larger than `MAX_SIDE` is
        shrunk.
    """
    labels = np.asarray(labels)
    _check(image, labels, opacity)
    size = sizes_um(pixel_size_um)
    image, labels, shrink = _shrunk(image, labels)
    labels = _numbered(labels)
    zoom = min(math.ceil(_GOOD_SIDE / max(labels.shape)), _MAX_ZOOM)
    height, width = labels.shape[0] * zoom, labels.shape[1] * zoom
    enlarged = Image.fromarray(image)
    if zoom > 1:
        enlarged = enlarged.resize((width, height), Image.Resampling.BICUBIC)
    picture = np.array(enlarged)
    line = max(2.0, max(height, width) / 800)
    tint = _tint(image, labels)
    if opacity is None:
        opacity = _FILL if np.hypot(*tint) < _COLOURED else _FILL_ON_COLOUR
    colours = _palette(tint)[choose_colours(labels, _N_COLOURS)]
    places = find_objects(labels)
    tops, bottoms = (
        np.array(
            [(rows.start - _RIM, rows.stop + _RIM) for rows, _ in places], np.int64
        )
        .reshape(-1, 2)
        .T
    )
    for band in _bands(labels.shape):
        top = band.start * zoom
        canvas = picture[top : band.stop * zoom].astype(np.float32)
        for i in np.flatnonzero((tops < band.stop) & (bottoms > band.start)).tolist():
            drawn = _drawn(labels, i + 1, places[i], zoom)
            _draw_object(canvas, drawn, top, (line, opacity), colours[i])
        picture[top : band.stop * zoom] = np.clip(canvas + 0.5, 0, 255)
    return _with_scale_bar(picture, size["X"] * shrink / zoom) if size else picture


def choose_colours(labels: NDArray[Any], n_colours: int) -> NDArray[np.intp]:
    """Number the colours of objects so that neighbours differ.

    Objects are coloured in smallest-last order, for which six colours are enough
    for any planar map (Matula and Beck, J. ACM 30:417, 1983). Among the colours
    that are free, the one used least so far is taken.

    Parameters
    ----------
    labels : (h, w) integer array
        Object ids 1, 2, ... without gaps; 0 is background.
    n_colours : int
        How many colours there are.

    Returns
    -------
    (n_objects,) integer array
        Colour of each object, 0 to ``n_colours - 1``.
    """
    neighbours = _neighbours(labels)
    colours = np.full(len(neighbours), -1)
    n_used = np.zeros(n_colours, dtype=np.intp)
    for number in _smallest_last(neighbours):
        taken = colours[list(neighbours[number])]
        n_clashes = np.bincount(taken[taken >= 0], minlength=n_colours)
        colours[number] = np.lexsort((n_used, n_clashes))[0]
        n_used[colours[number]] += 1
    return colours


def _neighbours(labels: NDArray[Any]) -> list[set[int]]:
    """Find the objects that lie within a few pixels of each object."""
    neighbours: list[set[int]] = [set() for _ in range(int(labels.max(initial=0)))]
    for grown in _grown_bands(labels, _NEAR_PIXELS / 2, overlap=1):
        for a, b in ((grown[1:], grown[:-1]), (grown[:, 1:], grown[:, :-1])):
            border = (a != b) & (a > 0) & (b > 0)
            pairs = np.unique(np.stack([a[border], b[border]], axis=1), axis=0) - 1
            for i, j in pairs.tolist():
                neighbours[i].add(j)
                neighbours[j].add(i)
    return neighbours


def _grown_bands(
    labels: NDArray[Any], distance: float, overlap: int = 0
) -> Iterator[NDArray[Any]]:
    """Let objects grow as `expand_labels` does; yield band by band.

    Each band begins with the last ``overlap`` rows of the one before.
    """
    reach = math.ceil(distance)
    for band in _bands(labels.shape):
        start, first = (max(band.start - n, 0) for n in (overlap, overlap + reach))
        grown = expand_labels(labels[first : band.stop + reach], distance=distance)
        yield grown[start - first : band.stop - first]


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut labels into rows that can be worked on at once."""
    step = max(_BAND_PIXELS // shape[1], 1)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _numbered(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Number objects 1, 2, ... in the order of their ids."""
    parts = [np.unique(labels[band]) for band in _bands(labels.shape)]
    ids = np.unique(np.concatenate(parts))
    ids = ids[ids > 0]
    numbers = np.zeros(labels.shape, np.int32)
    for band in _bands(labels.shape):
        part = labels[band]
        numbers[band] = np.where(part > 0, np.searchsorted(ids, part) + 1, 0)
    return numbers


def _smallest_last(neighbours: Sequence[set[int]]) -> list[int]:
    """Take away the object with the fewest neighbours left, and so on; reversed."""
    left = [len(others) for others in neighbours]
    heap = [(n, i) for i, n in enumerate(left)]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        n, i = heapq.heappop(heap)
        if n != left[i]:
            continue  # an older entry of an object that has lost neighbours since
        left[i] = -1
        order.append(i)
        for j in neighbours[i]:
            if left[j] > 0:
                left[j] -= 1
                heapq.heappush(heap, (left[j], j))
    return order[::-1]


def _tint(image: NDArray[np.uint8], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Mean colour, (a, b) of CIELAB, of the image where lines will run."""
    grown = _grown_bands(labels, _NEAR_PIXELS)
    near = np.concatenate([band > 0 for band in grown])
    step = max(1, int(np.count_nonzero(near)) // 10_000)
    chosen, n_before = [], 0
    for band in _bands(labels.shape):
        pixels = image[band][near[band]]
        chosen.append(pixels[-n_before % step :: step])
        n_before += len(pixels)
    if n_before == 0:
        return np.zeros(2)
    colours = rgb2lab(np.concatenate(chosen)[None])
    return np.asarray(colours[0, :, 1:].mean(axis=0))


def _palette(tint: NDArray[np.float64]) -> NDArray[np.float32]:
    """Pick colours; on a coloured image, those whose hue is farthest from its own."""
    if np.hypot(*tint) < _COLOURED:
        return _COLOURS[:_N_COLOURS]
    hues = rgb2lab(_COLOURS[None] / 255)[0, :, 1:]
    likeness = hues @ tint / np.linalg.norm(hues, axis=1)
    return _COLOURS[np.sort(np.argsort(likeness)[:_N_COLOURS])]


class _Drawn(NamedTuple):
    """Where an object lies in the picture, and how deep each pixel is in it."""

    y0: int
    x0: int
    distance: NDArray[np.float32]


def _drawn(
    labels: NDArray[np.int32], number: int, place: tuple[slice, slice], zoom: int
) -> _Drawn:
    rows, cols = (slice(max(s.start - _RIM, 0), s.stop + _RIM) for s in place)
    distance = _signed_distance(labels[rows, cols] == number, zoom)
    return _Drawn(rows.start * zoom, cols.start * zoom, distance)


def _draw_object(
    canvas: NDArray[np.float32],
    drawn: _Drawn,
    top: int,
    style: tuple[float, float],
    colour: NDArray[np.float32],
) -> None:
    """Draw shadow, fill and line of one object into a band that begins at a row."""
    line, opacity = style
    first, x1 = max(drawn.y0, top), drawn.x0 + drawn.distance.shape[1]
    distance = drawn.distance[first - drawn.y0 : top + len(canvas) - drawn.y0]
    start = first - top
    region = canvas[start : start + len(distance), drawn.x0 : x1]
    inside = np.clip(distance + 0.5, 0, 1)[..., None]
    rim = np.clip(line - distance + 0.5, 0, 1)[..., None]
    shadow = np.clip(1 + distance / line, 0, 1)[..., None] * (1 - inside)
    region *= 1 - 0.4 * shadow
    region += inside * (opacity + (1 - opacity) * rim) * (colour - region)


def _signed_distance(mask: NDArray[np.bool_], zoom: int) -> NDArray[np.float32]:
    """Distance to the border in pixels of the picture, negative outside."""
    if mask.all():
        shape = (mask.shape[0] * zoom, mask.shape[1] * zoom)
        return np.full(shape, np.inf, dtype=np.float32)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    sharp = np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)
    size = (mask.shape[1] * zoom, mask.shape[0] * zoom)
    large = np.asarray(Image.fromarray(sharp).resize(size, Image.Resampling.BICUBIC))
    smooth = gaussian_filter(large, 0.6 * zoom)
    # an object of a few pixels would be smoothed away
    return zoom * (smooth if smooth.max() > 0.4 else large)


def _with_scale_bar(
    picture: NDArray[np.uint8], pixel_size_um: float
) -> NDArray[np.uint8]:
    """Draw a bar of a round length, about a fifth of the width, at the lower right."""
    height, width = picture.shape[:2]
    length_um = _round_length(width * pixel_size_um / 4.5)
    unit = max(0.6, min(height, width) / 1000)
    font = ImageFont.load_default(size=30 * unit)
    number, letters = (
        (f"{length_um:g} ", "um")
        if length_um < 1000
        else (f"{length_um / 1000:g} ", "mm")
    )
    x1, y1 = width - 34 * unit, height - 30 * unit
    x0, y0 = x1 - length_um / pixel_size_um, y1 - 8 * unit
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    pad = 14 * unit
    draw.rounded_rectangle(
        (x0 - pad, y0 - 48 * unit, x1 + pad, y1 + pad), 8 * unit, fill=(0, 0, 0, 140)
    )
    draw.rectangle((x0, y0, x1, y1), fill="white")
    left = round((x0 + x1 - font.getlength(number + letters)) / 2)
    base = y0 - 15 * unit
    draw.text((left, base), number + letters, "white", font, anchor="ls")
    if letters == "um":  # the font of Pillow has no mu: lengthen the stem of the u
        x = left + round(font.getlength(number)) + font.getmask("u").getbbox()[0]
        tail = (x, base - 6 * unit, x + round(3 * unit) - 1, base + 7 * unit)
        draw.rectangle(tail, "white")
    return np.asarray(image)


def _round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, ... that is not above `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * max(factor for factor in (1, 2, 5) if factor * power <= most)


def _shrunk(
    image: NDArray[np.uint8], labels: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[Any], int]:
    factor = math.ceil(max(labels.shape) / MAX_SIDE)
    if factor == 1:
        return image, labels, 1
    # whole blocks; a side shorter than a block is one block
    height, width = (max(n // factor * factor, min(n, factor)) for n in labels.shape)
    small = Image.fromarray(image[:height, :width]).reduce(factor)
    y, x = (min(n, factor) // 2 for n in labels.shape)
    return np.asarray(small), labels[y:height:factor, x:width:factor], factor


def _check(
    image: NDArray[np.uint8], labels: NDArray[Any], opacity: float | None
) -> None:
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3) or not image.size:
        raise InputError(
            f"image of shape {image.shape}, {image.dtype}, with labels of shape "
            f"{labels.shape}; give (h, w, 3) uint8 and (h, w)"
        )
    if labels.dtype.kind not in "bui" or labels.min(initial=0) < 0:
        raise InputError(f"labels of type {labels.dtype}; give integers from 0")
    if opacity is not None and not 0 <= opacity <= 1:
        raise InputError(f"opacity {opacity}; give a number from 0 to 1")
