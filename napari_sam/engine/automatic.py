"""All objects of an image, without prompts.

Crop by crop: embed, find candidates, let them compete for the crop's pixels, pack
what is left. Then `napari_sam.stitch` joins what several crops saw. `segment` keeps
it all in memory; `napari_sam.engine.batch` does the same by way of the disk, with
the functions of this module, and its labels are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sam.engine.embed import PlaneEmbedding, open_plane
from napari_sam.engine.grid_masks import GridMode, grid_candidates, touches_border
from napari_sam.engine.jobs import Job, Step, job, with_step
from napari_sam.engine.proposals import ProposalMode, proposal_candidates
from napari_sam.errors import InputError
from napari_sam.images import find_intensity
from napari_sam.readers import open_image
from napari_sam.stitch import (
    MIN_AGREEMENT,
    MIN_VISIBLE,
    Painting,
    Views,
    stitch,
    without_duplicates,
)
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.masks import Candidate
    from napari_sam.model import Sam
    from napari_sam.tiling import Crop, CropGrid


@dataclass(frozen=True, slots=True)
class AutomaticConfig:
    """How all objects of an image are found.

    Parameters
    ----------
    mode : {"proposals", "grid"}, optional
        Where candidates come from. Default: proposals where the weights have a
        proposal head, else grid.
    proposals : ProposalMode
        Thresholds of the mode "proposals".
    grid : GridMode
        Thresholds of the mode "grid".
    min_visible : float, default 0.5
        An object of which better ones leave a smaller share is dropped.
    min_agreement : float, default 0.5
        IoU in the overlap of two crops from which what they see is one object.
    min_area : int, default 1
        Objects with fewer plane pixels are dropped.
    max_area : int, optional
        Objects with more plane pixels are dropped, and hide no others.
    drop_at_border : bool, default False
        Drop objects that the border of the plane cuts off.
    skip_background : bool, default True
        Do not encode crops that show nothing; see `PlaneEmbedding.is_background`.

    Raises
    ------
    InputError
        If the mode is unknown, or no size is left.
    """

    mode: Literal["proposals", "grid"] | None = None
    proposals: ProposalMode = field(default_factory=ProposalMode)
    grid: GridMode = field(default_factory=GridMode)
    min_visible: float = MIN_VISIBLE
    min_agreement: float = MIN_AGREEMENT
    min_area: int = 1
    max_area: int | None = None
    drop_at_border: bool = False
    skip_background: bool = True

    def __post_init__(self) -> None:
        if self.max_area is not None and self.max_area < self.min_area:
            raise InputError(
                f"objects of at least {self.min_area} px and at most {self.max_area} "
                "px; give a range of areas that holds some"
            )
        if self.mode not in (None, "proposals", "grid"):
            raise InputError(f"mode {self.mode!r}; use 'proposals' or 'grid'")


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """All objects of an image; stands for its labels wherever an array is expected.

    Parameters
    ----------
    labels : (H, W) uint32 array, or (T, H, W), (Z, H, W), (T, Z, H, W)
        Object ids, 0 is background; with the axes T and Z that the image has.
    table : dict of str to (N,) array
        One row for each object: ``object``, ``frame``, ``slice``; its box ``y0``,
        ``x0``, ``y1``, ``x1``; ``predicted_iou`` and ``stability``; ``n_views``, the
        number of crops that saw it; ``agreement``, the lowest IoU of two views
        in their overlap; ``is_cut``, whether it was put together from parts.
    """

    labels: NDArray[np.uint32]
    table: dict[str, NDArray[Any]]

    @property
    def n_objects(self) -> int:
        """Number of objects."""
        return len(self.table["object"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        return self.labels.shape

    @property
    def dtype(self) -> np.dtype[np.uint32]:
        """Type of the labels."""
        return self.labels.dtype

    def __getitem__(self, key: Any) -> Any:
        return self.labels[key]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        # numpy 2 hands `copy` through; None means "only if needed"
        return np.array(self.labels, dtype=dtype, copy=copy)

    def scores(self) -> dict[str, dict[int, float]]:
        """Return the scores of each object, as columns for a table of measurements.

        Returns
        -------
        dict of str to dict of int to float
            ``predicted_iou`` and ``stability``, by object id.
        """
        ids = self.table["object"].tolist()
        return {
            name: dict(zip(ids, self.table[name].tolist(), strict=True))
            for name in ("predicted_iou", "stability")
        }


@job
def segment(  # noqa: PLR0913 - the arguments of `embed`, and a config
    image: Any,
    model: Sam,
    *,
    cache: EmbeddingCache | None = None,
    grid: CropGrid | None = None,
    plane: tuple[int, int] | None = None,
    intensity: Intensity | None = None,
    config: AutomaticConfig | None = None,
) -> Job[Segmentation]:
    """Find all objects of an image.

    Planes of a stack are segmented one by one; ids are unique over all of them.

    Parameters
    ----------
    image : ImageSource, path or array
        What `open_image` takes.
    model : Sam
        From `load_model`.
    cache : EmbeddingCache, optional
        Where embeddings are kept. Default: nowhere; each crop is encoded once.
    grid : CropGrid, optional
        How a plane is cut. Default: crops of the model's input size.
    plane : tuple of int, optional
        (frame, slice) of the only plane to segment. Default: all planes.
    intensity : Intensity, optional
        How pixels become 8-bit RGB. Default: from `find_intensity`, once for the
        whole image.
    config : AutomaticConfig, optional
        Mode and thresholds.

    Yields
    ------
    Step
        After each batch of prompts; after each crop with its list of Candidate;
        after each plane with its Segmentation.

    Returns
    -------
    Segmentation

    Raises
    ------
    InputError
        If an argument does not fit the image or the model.
    DeviceError
        If the device runs out of memory.
    """
    source = open_image(image)
    config = config or AutomaticConfig()
    intensity = intensity or find_intensity(source)
    planes = list(source.plane_indices()) if plane is None else [plane]
    results: list[Segmentation] = []
    for index in planes:
        embedding = open_plane(
            source, model, cache=cache, grid=grid, plane=index, intensity=intensity
        )
        n_crops = len(embedding.grid)
        before = Step(len(results) * n_crops, len(planes) * n_crops, "segment")
        first_id = 1 + sum(each.n_objects for each in results)
        result = yield from _segment_plane(embedding, config, before, first_id)
        results.append(result)
    return results[0] if plane is not None else _stacked(results, source)


def _segment_plane(
    embedding: PlaneEmbedding, config: AutomaticConfig, before: Step, first_id: int
) -> Job[Segmentation]:
    grid = embedding.grid
    views: dict[int, Views] = {}
    for n_done, crop in enumerate(grid):
        step = replace(before, done=before.done + n_done)
        found = yield from find_views(embedding, crop, config, step)
        views[crop.index] = Views.of(crop.index, []) if found is None else found
        yield replace(step, done=step.done + 1, value=views[crop.index].candidates())
    painting = stitch_views(views, grid, config)
    table = object_table(painting, embedding.plane, first_id)
    result = Segmentation(painting.labels(first_id=first_id), table)
    yield replace(before, done=before.done + len(grid), value=result)
    return result


def find_views(
    embedding: PlaneEmbedding, crop: Crop, config: AutomaticConfig, step: Step
) -> Job[Views | None]:
    """Find what one crop sees: masks that do not overlap.

    Parameters
    ----------
    embedding : PlaneEmbedding
        The crop is encoded if it has not been.
    crop : Crop
        Of the embedding's grid.
    config : AutomaticConfig
        Mode and thresholds.
    step : Step
        What to report after each batch of prompts.

    Yields
    ------
    Step

    Returns
    -------
    Views or None
        None if the crop is background and was not encoded.
    """
    if config.skip_background and embedding.is_background(crop):
        return None
    mode = chosen_mode(config, embedding.model)
    found = yield from crop_candidates(embedding, crop, mode, step)
    plane = Box.whole(embedding.grid.shape)
    found = [c for c in found if fits(c, crop.box, plane, config.max_area)]
    found = without_duplicates(found, crop.box, min_visible=config.min_visible)
    return Views.of(crop.index, found)


def fits(candidate: Candidate, crop: Box, plane: Box, max_area: int | None) -> bool:
    """Whether a candidate is no larger than that, or cut by its crop.

    The parts of what is cut are joined first, and measured then.
    """
    if max_area is None or candidate.area <= max_area:
        return True
    return touches_border(candidate.box, crop, plane)


def stitch_views(
    views: Mapping[int, Views], grid: CropGrid, config: AutomaticConfig
) -> Painting:
    """Make the objects of a plane of what its crops see; see `stitch`."""
    return stitch(
        views,
        grid,
        min_agreement=config.min_agreement,
        min_visible=config.min_visible,
        min_area=config.min_area,
        max_area=config.max_area,
        drop_at_border=config.drop_at_border,
    )


def object_table(
    painting: Painting, plane: tuple[int, int], first_id: int = 1
) -> dict[str, NDArray[Any]]:
    """Return one row for each object; for the columns see `Segmentation`.

    Parameters
    ----------
    painting : Painting
        The objects of a plane.
    plane : tuple of int
        (frame, slice).
    first_id : int
        Id of the first object.
    """
    n, objects = len(painting), painting.objects
    sides = dict(zip(("y0", "x0", "y1", "x1"), objects.boxes.T, strict=True))
    return {
        "object": np.arange(first_id, first_id + n, dtype=np.uint32),
        "frame": np.full(n, plane[0]),
        "slice": np.full(n, plane[1]),
        **{side: edges.astype(np.int64) for side, edges in sides.items()},
        "predicted_iou": objects.scores[:, 0].astype(np.float32),
        "stability": objects.scores[:, 1].astype(np.float32),
        "n_views": objects.n_views,
        "agreement": objects.agreement.astype(np.float32),
        "is_cut": objects.is_cut,
    }


def chosen_mode(config: AutomaticConfig, model: Sam) -> ProposalMode | GridMode:
    """Return where candidates come from, with its thresholds.

    Parameters
    ----------
    config : AutomaticConfig
        Without a mode the proposal head is asked, if there is one.
    model : Sam
        From `load_model`.

    Raises
    ------
    InputError
        If proposals are wanted and the weights have no proposal head.
    """
    has_head = model.proposal_head is not None
    if config.mode == "proposals" and not has_head:
        raise InputError(
            f"the weights {model.name!r} have no proposal head; use the mode 'grid', "
            "or weights with one (the default model has)"
        )
    use_grid = config.mode == "grid" or not has_head
    return config.grid if use_grid else config.proposals


def crop_candidates(
    embedding: PlaneEmbedding, crop: Crop, mode: ProposalMode | GridMode, step: Step
) -> Job[list[Candidate]]:
    """Find the candidates of one crop, which may still overlap.

    Parameters
    ----------
    embedding : PlaneEmbedding
        The crop is encoded if it has not been.
    crop : Crop
        Of the embedding's grid.
    mode : ProposalMode or GridMode
        From `chosen_mode`.
    step : Step
        What to report after each batch of prompts.
    """
    model = embedding.model
    if isinstance(mode, ProposalMode):
        work = proposal_candidates(model, embedding.of(crop), crop, mode)
    else:
        plane = Box.whole(embedding.grid.shape)
        work = grid_candidates(model, embedding.of, crop, plane, mode)
    return (yield from with_step(step, work))


def _stacked(results: list[Segmentation], source: ImageSource) -> Segmentation:
    n_frames, n_slices, height, width = source.shape
    lengths = {"T": n_frames, "Z": n_slices}
    stack = [lengths[axis] for axis in "TZ" if axis in source.axes]
    labels = np.stack([each.labels for each in results])
    return Segmentation(
        labels.reshape(*stack, height, width),
        {
            name: np.concatenate([each.table[name] for each in results])
            for name in results[0].table
        },
    )
