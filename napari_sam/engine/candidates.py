"""Candidates that are kept, so that thresholds can be chosen afterwards.

Finding candidates takes the network, choosing among them does not: `find_candidates`
keeps whatever could be an object, and `Candidates.objects` answers for any thresholds,
in milliseconds for a few crops. With the thresholds of `segment` the objects are those
of `segment`.

A mask hides others only if it passes the thresholds itself: they come first, and then
the competition for pixels, crop by crop and over the plane.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.automatic import (
    AutomaticConfig,
    chosen_mode,
    crop_candidates,
    fits,
)
from napari_sam.engine.grid_masks import GridMode, best_of_boxes
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.proposals import ProposalMode
from napari_sam.engine.thresholds import Search, Thresholds
from napari_sam.errors import InputError
from napari_sam.masks import remove_small
from napari_sam.stitch import PlaneObject, compete, merge_views, without_duplicates
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.masks import Candidate
    from napari_sam.model import Sam
    from napari_sam.tiling import CropGrid

# The least that is kept of a grid of points: below, masks are noise and take memory
# (ours). Proposals are few, so all of them are kept.
_GRID_FLOOR = {"min_predicted_iou": 0.5, "min_stability": 0.6}

# Of masks with nearly the same box the best is kept alone (ours): a grid finds an
# object many times.
_GRID_BOX_NMS = 0.95


@dataclass(slots=True, eq=False)
class Candidates:
    """All candidates of a region, from which thresholds choose.

    Parameters
    ----------
    grid : CropGrid
        The crops of the plane.
    config : AutomaticConfig
        How they were found, and how views of crops are joined.
    mode : ProposalMode or GridMode
        Where they come from, with the thresholds that were asked for.
    region : Box
        Where objects are wanted, in plane pixels.
    found : list of Candidate
        Of all crops so far.
    """

    grid: CropGrid
    config: AutomaticConfig
    mode: ProposalMode | GridMode
    region: Box
    found: list[Candidate] = field(default_factory=list)

    def default_thresholds(self) -> Thresholds:
        """Return the thresholds that `segment` has with this config."""
        return _thresholds_of(self.mode, self.config)

    def objects(
        self,
        thresholds: Thresholds | None = None,
        *,
        occupied: Callable[[Box], NDArray[np.bool_]] | None = None,
    ) -> list[PlaneObject]:
        """Choose the objects that pass; their masks do not overlap.

        Parameters
        ----------
        thresholds : Thresholds, optional
            Default: those of `segment`.
        occupied : callable, optional
            Tells which pixels of a box are labelled already; objects keep off them.
            Default: none are.

        Returns
        -------
        list of PlaneObject
            In the order of their first pixels.
        """
        if thresholds is None:
            thresholds = self.default_thresholds()
        plane = Box.whole(self.grid.shape)
        passed = [
            c
            for c in self.found
            if c.predicted_iou >= thresholds.min_predicted_iou
            and c.stability >= thresholds.min_stability
            and fits(c, self.grid[c.crop].box, plane, thresholds.max_area)
        ]
        views = merge_views(
            self._competed(passed, thresholds),
            self.grid,
            min_agreement=self.config.min_agreement,
        )
        objects = [each for each in views if self._is_wanted(each, thresholds)]
        if occupied is not None:
            objects = _beside(objects, occupied, thresholds.min_visible)
        return compete(
            objects,
            min_visible=thresholds.min_visible,
            min_area=thresholds.min_area,
        )

    def _competed(
        self, candidates: list[Candidate], thresholds: Thresholds
    ) -> list[Candidate]:
        by_crop: dict[int, list[Candidate]] = {}
        for each in candidates:
            by_crop.setdefault(each.crop, []).append(each)
        left: list[Candidate] = []
        for index, members in by_crop.items():
            if isinstance(self.mode, GridMode):
                scores = [each.predicted_iou for each in members]
                members = best_of_boxes(members, scores, self.mode.box_nms)
            left += without_duplicates(
                members, self.grid[index].box, min_visible=thresholds.min_visible
            )
        return left

    def _is_wanted(self, each: PlaneObject, thresholds: Thresholds) -> bool:
        box = each.candidate.box
        height, width = self.grid.shape
        at_border = box.y0 == 0 or box.x0 == 0 or box.y1 == height or box.x1 == width
        if thresholds.drop_at_border and at_border:
            return False
        largest = thresholds.max_area
        if largest is not None and each.candidate.area > largest:
            return False
        seen = box.intersection(self.region)
        return seen is not None and bool(each.candidate.within(seen).any())


@job
def find_candidates(
    embedding: PlaneEmbedding,
    *,
    config: AutomaticConfig | None = None,
    region: Box | None = None,
) -> Job[Candidates]:
    """Find everything in a region that could be an object.

    Crops near the middle of the region come first.

    Parameters
    ----------
    embedding : PlaneEmbedding
        The plane; crops that are not embedded yet are encoded.
    config : AutomaticConfig, optional
        Mode and its settings. Its thresholds hold for the default of
        `Candidates.objects`; what is kept reaches below them.
    region : Box, optional
        In plane pixels. Default: the whole plane.

    Yields
    ------
    Step
        After each batch of prompts; after each crop with all Candidates so far.

    Returns
    -------
    Candidates

    Raises
    ------
    InputError
        If the region lies outside the plane, or the mode does not fit the model.
    DeviceError
        If the device runs out of memory.
    """
    config = config or AutomaticConfig()
    whole = Box.whole(embedding.grid.shape)
    region = whole if region is None else region.clip(embedding.grid.shape)
    if region.area == 0:
        raise InputError(
            f"a region outside the plane of {whole.height} x {whole.width} px; show "
            "a part of the image"
        )
    mode = chosen_mode(config, embedding.model)
    kept = Candidates(embedding.grid, config, mode, region)
    middle = (region.y0 + region.y1) / 2, (region.x0 + region.x1) / 2
    crops = sorted(
        embedding.grid.crops_touching(region),
        key=lambda crop: _distance(crop.core, middle),
    )
    for n_done, crop in enumerate(crops):
        step = Step(n_done, len(crops), "find objects")
        kept.found += yield from crop_candidates(embedding, crop, _loose(mode), step)
        yield replace(step, done=n_done + 1, value=kept)
    return kept


def config_of(search: Search) -> AutomaticConfig:
    """Return the config of `segment` that finds the same candidates."""
    return AutomaticConfig(
        mode=search.mode,
        proposals=ProposalMode(foreground=search.foreground),
        grid=GridMode(points_per_side=search.points_per_side),
    )


def usual_thresholds(search: Search, model: Sam) -> Thresholds:
    """Return the thresholds that `segment` has with the mode of a search."""
    config = config_of(search)
    return _thresholds_of(chosen_mode(config, model), config)


def _thresholds_of(
    mode: ProposalMode | GridMode, config: AutomaticConfig
) -> Thresholds:
    return Thresholds(
        min_predicted_iou=mode.min_predicted_iou,
        min_stability=mode.min_stability,
        min_area=config.min_area,
        max_area=config.max_area,
        drop_at_border=config.drop_at_border,
        min_visible=config.min_visible,
    )


def _loose(mode: ProposalMode | GridMode) -> ProposalMode | GridMode:
    """Lower the thresholds to those of what is kept."""
    if isinstance(mode, ProposalMode):
        return replace(mode, min_predicted_iou=0.0, min_stability=0.0)
    return replace(
        mode,
        box_nms=max(mode.box_nms, _GRID_BOX_NMS),
        crop_nms=max(mode.crop_nms, _GRID_BOX_NMS),
        **{
            name: min(getattr(mode, name), least) for name, least in _GRID_FLOOR.items()
        },
    )


def _beside(
    objects: list[PlaneObject],
    occupied: Callable[[Box], NDArray[np.bool_]],
    min_visible: float,
) -> list[PlaneObject]:
    """Cut labelled pixels off objects; leave out those that lose too much."""
    left = []
    for each in objects:
        candidate = each.candidate
        free = candidate.mask & ~occupied(candidate.box)
        n_free = int(np.count_nonzero(free))
        if n_free < min_visible * candidate.area:
            continue
        if n_free < candidate.area:
            free = remove_small(free, n_free, "islands")  # the largest part stays
            each = replace(each, candidate=candidate.with_mask(free))
        left.append(each)
    return left


def _distance(box: Box, point: tuple[float, float]) -> float:
    y, x = (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2
    return (y - point[0]) ** 2 + (x - point[1]) ** 2
