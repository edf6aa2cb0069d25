"""Training images and the windows drawn from them.

An image goes to 8-bit RGB as for a user (`napari_sam.images`). A window is a square
part of it, turned, flipped and scaled, of 256 px or more; objects get sizes from 12
to 200 px because the scale is drawn by object size. The encoder is fully
convolutional or has windows, so that it can be trained on parts of its 1024-px frame
(`Sam.decode` takes their ``origin``).

The maps that the proposal head learns do not change under rotation and scale, so they
are computed once for each image and moved with it.

W side of a window in pixels, B windows and N objects of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.segmentation import relabel_sequential
from torch import Tensor
from torch.utils.data import Dataset

from napari_sam.errors import InputError
from napari_sam.images import find_intensity, read_rgb
from napari_sam.training.augment import augment_intensity
from napari_sam.training.collection import list_images, open_annotated, read_labels
from napari_sam.training.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.training.collection import AnnotatedImage
    from napari_sam.training.config import TrainConfig

MIN_OBJECT_AREA = 30
"""Pixels of a window below which a visible part is not asked for (ours)."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImage:
    """One annotated plane.

    Attributes
    ----------
    name, group : str
        For messages; images of one group are drawn with one weight.
    pixels : (3, H, W) uint8 tensor
    labels : (H, W) int32 tensor
        Object ids, 0 is background.
    distances : (2, H, W) uint8 tensor
        Centre and boundary distance, 0 to 255.
    diameter : float
        Median of the square roots of the objects' areas, in pixels.
    is_complete : bool
        Whether every object is labelled.
    """

    name: str
    group: str
    pixels: Tensor
    labels: Tensor
    distances: Tensor
    diameter: float
    is_complete: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one training step sees.

    Attributes
    ----------
    images : (B, 3, W, W) uint8 tensor
    maps : (B, 3, W / 4, W / 4) float32 tensor
        Foreground, centre distance, boundary distance.
    is_complete : (B,) float32 tensor
    masks : (N, W / 2, W / 2) float32 tensor
        Share of each pixel that the object covers.
    owner : (N,) int64 tensor
        The window of each object.
    centres : (B, 2, W / 8, W / 8) float32 tensor
        (x, y) offset from the middle of each 8-px place to the centroid of what is
        visible of the object there, in pixels; NaN in the background.
    votes : (B, 3, W / 4, W / 4) float32 tensor
        The same for places of 4 px, and the root of the visible area, in pixels.
    origin : tuple of int
        Row and column of the windows in the input frame, in cells of 16 px.
    """

    images: Tensor
    maps: Tensor
    centres: Tensor
    votes: Tensor
    is_complete: Tensor
    masks: Tensor
    owner: Tensor
    origin: tuple[int, int]


def load_images(
    folder: Path, split: str | None = None, partial: Sequence[str] = ()
) -> list[TrainingImage]:
    """Read the annotated planes of a collection.

    Parameters
    ----------
    folder : Path
        As `napari_sam.training.collection.list_images` reads it.
    split : str, optional
        Only images of this split of the index.
    partial : sequence of str
        Datasets with objects that are not labelled.

    Raises
    ------
    FormatError, InputError
        If the folder is no collection, an image and its labels differ in size, or
        labels are none.
    """
    return [
        image
        for annotated in list_images(folder, split=split, partial=partial)
        for image in _load_planes(annotated)
    ]


def _load_planes(annotated: AnnotatedImage) -> list[TrainingImage]:
    source, truth = open_annotated(annotated)
    intensity = find_intensity(source)
    # By position: the axes of a stack of labels may have other names.
    planes = zip(source.plane_indices(), truth.plane_indices(), strict=True)
    images = (
        make_training_image(
            read_rgb(source, intensity, plane=plane),
            _numbered(read_labels(truth, labels_plane)),
            name=f"{annotated.name}{plane}",
            group=annotated.modality or annotated.dataset,
            is_complete=annotated.is_complete,
        )
        for plane, labels_plane in planes
    )
    return [image for image in images if image is not None]


def _numbered(labels: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number objects 1, 2, ...; much below keeps a list as long as the largest id."""
    numbered: NDArray[np.int64] = relabel_sequential(labels)[0]
    return numbered.astype(np.int32)


def make_training_image(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int32],
    *,
    name: str = "",
    group: str = "",
    is_complete: bool = True,
) -> TrainingImage | None:
    """Join an (H, W, 3) uint8 image and its labels; None if there is no object."""
    areas = np.bincount(labels.ravel())[1:]
    if not areas.any():
        return None
    return TrainingImage(
        name=name,
        group=group,
        pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        labels=torch.from_numpy(labels),
        distances=torch.from_numpy(distance_maps(labels)),
        diameter=float(np.median(np.sqrt(areas[areas > 0]))),
        is_complete=is_complete,
    )


def distance_maps(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return centre and boundary distance of every object.

    Parameters
    ----------
    labels : (H, W) int array

    Returns
    -------
    (2, H, W) uint8 array
        0 to 255 for the 0 to 1 of `napari_sam.model.proposal_head`.
    """
    maps = np.full((2, *labels.shape), 255, dtype=np.uint8)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # A rim of background, except where the image itself ends.
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        mask = labels[box] == index
        depth = (
            np.ones(mask.shape)
            if mask.all()
            else ndimage.distance_transform_edt(mask)[: mask.shape[0]]
        )
        y, x = np.nonzero(mask)
        radius = np.hypot(y - y.mean(), x - x.mean())
        depth_inside = depth[mask]
        maps[0][box][mask] = 255 * radius / max(radius.max(), 1)
        maps[1][box][mask] = 255 * (1 - depth_inside / depth_inside.max())
    return maps


class Batches(Dataset[Batch]):
    """Batch number ``step`` of a training; the same for equal seeds.

    Parameters
    ----------
    images : list of TrainingImage
        May be empty if ``config.scene_share`` is 1.
    config : TrainConfig
        Seed, sizes and shares.

    Raises
    ------
    InputError
        If there is nothing to draw from.
    """

    def __init__(self, images: list[TrainingImage], config: TrainConfig) -> None:
        if not images and config.scene_share < 1:
            raise InputError(
                "no training images and scene_share below 1; give data, or set "
                "scene_share to 1 to train on synthetic scenes only"
            )
        self.images = images
        self.config = config
        groups = sorted({image.group for image in images})
        self.members = [[i for i in images if i.group == g] for g in groups]
        weights = np.array(
            [
                config.group_weights.get(group, float(len(members)) ** 0.5)
                for group, members in zip(groups, self.members, strict=True)
            ]
        )
        self.weights = weights / weights.sum() if groups else weights

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the windows of one step."""
        rng = np.random.default_rng((self.config.seed, step))
        window, n_windows = self.config.windows[
            rng.choice(len(self.config.windows), p=self.config.window_shares)
        ]
        samples = [self._sample(rng, window) for _ in range(n_windows)]
        return _collate(samples, rng, self.config)

    def _sample(self, rng: np.random.Generator, window: int) -> Sample:
        if rng.random() < self.config.scene_share:
            image = _scene_image(rng, window)
            if image is not None:
                return sample_window(image, rng, window, self.config, scale=1.0)
        if not self.images:
            return self._sample(rng, window)
        members = self.members[rng.choice(len(self.members), p=self.weights)]
        return sample_window(
            members[rng.integers(len(members))], rng, window, self.config
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One window: (3, W, W) pixels, (W, W) labels, (2, W, W) distances 0 to 1."""

    pixels: Tensor
    labels: Tensor
    distances: Tensor
    is_complete: bool


def _scene_image(rng: np.random.Generator, window: int) -> TrainingImage | None:
    scene = make_scene(rng, shape=(window, window))
    pixels = scene.image if scene.image.ndim == 3 else np.stack([scene.image] * 3, -1)
    return make_training_image(pixels, scene.labels, group=scene.kind)


def draw_scale(
    image: TrainingImage, rng: np.random.Generator, config: TrainConfig
) -> float:
    """Draw the magnification of a window.

    A share of the windows (``usual_share``) has the scale at which the image would
    be segmented (`napari_sam.tiling.CropGrid`), give or take a third; the others have
    one that brings the objects to a size drawn log-uniformly.
    """
    longest = max(image.labels.shape)
    usual = min(4.0, 1024 / longest) if longest <= 1024 else 1.0
    if rng.random() < config.usual_share:
        return usual * float(np.exp(rng.uniform(-0.3, 0.3)))
    low, high = np.log(config.diameters)
    return float(np.clip(np.exp(rng.uniform(low, high)) / image.diameter, 0.2, 6.0))


def sample_window(
    image: TrainingImage,
    rng: np.random.Generator,
    window: int,
    config: TrainConfig,
    scale: float | None = None,
) -> Sample:
    """Cut one window out of an image, and change its grey values.

    Parameters
    ----------
    image : TrainingImage
    rng : numpy.random.Generator
    window : int
        Side, in pixels.
    config : TrainConfig
        Range of object sizes.
    scale : float, optional
        Window pixels per image pixel; drawn by `draw_scale` if not given.
    """
    scale = draw_scale(image, rng, config) if scale is None else scale
    centre = _draw_centre(image, rng, window / scale)
    angle = rng.integers(4) * np.pi / 2
    if rng.random() < 0.3:
        angle += rng.uniform(0, np.pi / 2)
    flip = rng.choice([-1.0, 1.0])
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    # Window pixel (y, x) from its middle to image pixel (y, x) from ``centre``.
    turn = np.array([[cosine * flip, sine], [-sine * flip, cosine]])
    pixels, labels, distances = _resample(image, centre, turn, window, scale)
    pixels = augment_intensity(pixels, rng)
    pixels = pixels.round().clamp(0, 255)
    return Sample(pixels.to(torch.uint8), labels, distances, image.is_complete)


def _draw_centre(
    image: TrainingImage, rng: np.random.Generator, span: float
) -> NDArray[np.float64]:
    """Draw where in the image, (y, x), the middle of a window lies."""
    size = np.array(image.labels.shape, dtype=float)
    low = np.minimum(span / 2, size / 2)
    centre = rng.uniform(low, np.maximum(size - low, low + 1e-6))
    if rng.random() < 0.7:
        at = _draw_occupied(image.labels, rng) + rng.uniform(-span / 3, span / 3, 2)
        centre = np.clip(at, low, np.maximum(size - low, low))
    return centre


def _draw_occupied(labels: Tensor, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pixel, (y, x), that belongs to an object."""
    tries = torch.from_numpy(rng.integers(labels.numel(), size=64))
    occupied = tries[labels.flatten()[tries] > 0]
    if not len(occupied):  # few objects: look at every pixel
        occupied = torch.nonzero(labels.flatten())[:, 0]
        occupied = occupied[rng.integers(len(occupied), size=1)]
    return np.array(divmod(int(occupied[0]), labels.shape[1]), dtype=float)


def _resample(
    image: TrainingImage,
    centre: NDArray[np.float64],
    turn: NDArray[np.float64],
    window: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pixels, labels and distances; pixels go on beyond the image's edge."""
    reach = float(np.abs(turn).sum(axis=1).max()) * window / 2 + 2
    height, width = image.labels.shape
    y0, x0 = (max(int(c - reach), 0) for c in centre)
    y1 = min(int(centre[0] + reach) + 1, height)
    x1 = min(int(centre[1] + reach) + 1, width)
    pixels = image.pixels[:, y0:y1, x0:x1].float()
    # Average before sampling coarsely, else fine structure turns into noise.
    factor = int(np.clip(round(1 / scale), 1, min(pixels.shape[1:])))
    step = np.arange(window) - (window - 1) / 2
    # Row by row and column by column: a product of matrices this narrow is slow.
    down, right = step[:, None, None] * turn[:, 0], step[:, None] * turn[:, 1]
    at = down + right + (centre - (y0, x0))
    extent = np.array([y1 - y0, x1 - x0])
    inside = ((at > -0.5) & (at < extent - 0.5)).all(axis=-1)
    unit = torch.from_numpy((2 * at + 1) / extent - 1).float().flip(-1)[None]

    smooth = pixels if factor == 1 else _box_blur(pixels, factor)
    distances = image.distances[:, y0:y1, x0:x1].float()
    moved = F.grid_sample(
        torch.cat([smooth, distances])[None],
        unit,
        padding_mode="border",
        align_corners=False,
    )[0]
    row = np.clip(np.rint(at[..., 0]), 0, extent[0] - 1).astype(np.int64)
    column = np.clip(np.rint(at[..., 1]), 0, extent[1] - 1).astype(np.int64)
    labels = image.labels[y0:y1, x0:x1][torch.from_numpy(row), torch.from_numpy(column)]
    mask = torch.from_numpy(inside)
    labels = labels * mask
    distances = torch.where(labels > 0, moved[3:] / 255, torch.ones(()))
    return moved[:3], labels, distances


def _box_blur(pixels: Tensor, width: int) -> Tensor:
    odd = width // 2 * 2 + 1
    return F.avg_pool2d(
        pixels[None], odd, stride=1, padding=odd // 2, count_include_pad=False
    )[0]


def centre_offsets(labels: Tensor, cell: int = 8) -> Tensor:
    """Return the way from every place to the centroid of its object.

    Parameters
    ----------
    labels : (H, W) int tensor
        Sides are multiples of ``cell``.
    cell : int, default 8
        Side of a place, in pixels; even.

    Returns
    -------
    (2, H / cell, W / cell) float32 tensor
        (x, y), pixels; NaN in the background.
    """
    flat = labels.flatten().long()
    height, width = labels.shape
    area = torch.bincount(flat).float()
    y = torch.arange(height).repeat_interleave(width).float()
    x = torch.arange(width).repeat(height).float()
    centroid = torch.stack([torch.bincount(flat, x), torch.bincount(flat, y)]) / area
    centroid[:, 0] = torch.nan
    # The pixel behind the middle of a place, which lies between pixels.
    here = labels[cell // 2 :: cell, cell // 2 :: cell].long()
    middle = (cell - 1) / 2
    middle_y = (torch.arange(here.shape[0]) * cell + middle)[:, None].expand(here.shape)
    middle_x = (torch.arange(here.shape[1]) * cell + middle).expand(here.shape)
    return centroid[:, here] - torch.stack([middle_x, middle_y])


def object_sizes(labels: Tensor, cell: int = 4) -> Tensor:
    """Return the root of the visible area of every place's object.

    Parameters
    ----------
    labels : (H, W) int tensor
        Sides are multiples of ``cell``.
    cell : int, default 4
        Side of a place, in pixels; even.

    Returns
    -------
    (1, H / cell, W / cell) float32 tensor
        Pixels; NaN in the background.
    """
    size = torch.bincount(labels.flatten().long()).float().sqrt()
    size[0] = torch.nan
    return size[labels[cell // 2 :: cell, cell // 2 :: cell].long()][None]


def _votes(labels: Tensor) -> Tensor:
    return torch.cat([centre_offsets(labels, cell=4), object_sizes(labels, cell=4)])


def _collate(
    samples: list[Sample], rng: np.random.Generator, config: TrainConfig
) -> Batch:
    masks, owner = [], []
    for index, sample in enumerate(samples):
        areas = torch.bincount(sample.labels.flatten())
        areas[0] = 0
        ids = torch.nonzero(areas >= MIN_OBJECT_AREA)[:, 0].numpy()
        for chosen in rng.permutation(ids)[: config.objects_per_window]:
            mask = (sample.labels == int(chosen)).float()
            half = F.avg_pool2d(mask[None], 2)[0]
            if (half > 0.5).any():
                masks.append(half)
                owner.append(index)
    window = samples[0].labels.shape[0]
    foreground = torch.stack([(s.labels > 0).float() for s in samples])[:, None]
    distances = torch.stack([s.distances for s in samples])
    free = (config.frame - window) // 16 + 1
    return Batch(
        images=torch.stack([s.pixels for s in samples]),
        maps=F.avg_pool2d(torch.cat([foreground, distances], dim=1), 4),
        centres=torch.stack([centre_offsets(s.labels) for s in samples]),
        votes=torch.stack([_votes(s.labels) for s in samples]),
        is_complete=torch.tensor([float(s.is_complete) for s in samples]),
        masks=torch.stack(masks) if masks else torch.zeros(0, window // 2, window // 2),
        owner=torch.tensor(owner, dtype=torch.int64),
        origin=(int(rng.integers(free)), int(rng.integers(free))),
    )
