"""The worker's side: open planes of one network, and answers to requests.

It belongs to one thread. Planes that were looked at last stay open, so that going back
a slice costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.complete import complete_many
from napari_sam.engine.embed import default_grid, open_plane
from napari_sam.engine.enlarge import mask_logits
from napari_sam.engine.predict import Predictor
from napari_sam.engine.request import PredictResult
from napari_sam.engine.stack_planes import open_stack
from napari_sam.prompts import Prompts
from napari_sam.settings import get_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam.engine.draft import Question
    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.engine.jobs import Job
    from napari_sam.engine.predict import Prediction
    from napari_sam.engine.request import (
        CompleteRequest,
        PlaneView,
        PredictRequest,
        StackView,
    )
    from napari_sam.engine.stack_planes import StackPlanes
    from napari_sam.model import Sam
    from napari_sam.tiling import Crop, CropGrid

_KEPT = 8  # planes; each keeps a few crops of 4 MiB in memory


class Planes:
    """Planes embedded with one network.

    Parameters
    ----------
    model : Sam
    cache : EmbeddingCache, optional
        Where embeddings are kept. Default: the last crops, in memory.
    """

    def __init__(self, model: Sam, cache: EmbeddingCache | None = None) -> None:
        self.model = model
        self.cache = cache
        self._open: OrderedDict[object, PlaneEmbedding] = OrderedDict()
        self._predictor: Predictor | None = None
        self._stack: tuple[object, StackPlanes] | None = None

    def open(self, view: PlaneView) -> PlaneEmbedding:
        """Return the embedding of a plane; crops are encoded when they are asked for.

        Raises
        ------
        InputError
            If the image cannot be used.
        """
        key = view.embedding_key
        if key not in self._open:
            self._open[key] = open_plane(
                view.source,
                self.model,
                cache=self.cache,
                grid=self._grid(view),
                plane=view.plane,
                intensity=view.intensity,
            )
        self._open.move_to_end(key)
        while len(self._open) > _KEPT:
            self._open.popitem(last=False)
        return self._open[key]

    def keep_in(self, cache: EmbeddingCache) -> None:
        """Keep embeddings in a cache from now on; open planes are opened again."""
        self.cache = cache
        self._open.clear()
        self._predictor = self._stack = None

    def stack(self, stack: StackView) -> StackPlanes:
        """Return the planes to follow objects through; those of the last are kept.

        Raises
        ------
        InputError
            If the image cannot be used.
        """
        view = stack.view
        key = (view.image_key, view.intensity, view.scale, stack.axis, stack.index(0))
        if self._stack is None or self._stack[0] != key:
            opened = open_stack(
                stack.source,
                self.model,
                along=stack.along,
                at=stack.at,
                cache=self.cache,
                grid=self._grid(view),
                intensity=view.intensity,
            )
            self._stack = key, opened
        return self._stack[1]

    def _grid(self, view: PlaneView) -> CropGrid:
        return replace(default_grid(view.source, self.model), scale=view.scale)

    def predictor(self, view: PlaneView) -> Predictor:
        """Return who answers on a plane.

        That of the last plane is kept, with what all clicks on a crop share; those of
        more planes would hold 40 MB each.

        Raises
        ------
        InputError
            If the image cannot be used.
        """
        embedding = self.open(view)
        if self._predictor is None or self._predictor.embedding is not embedding:
            self._predictor = Predictor(self.model, embedding)
        return self._predictor

    def find_on_disk(self) -> None:
        """Use embeddings that are in the user's cache folder; add none."""
        settings = get_settings()
        if self.cache is None and settings.cache_dir.exists():
            self.keep_in(EmbeddingCache(settings.cache_dir, adds=False))

    def keep_on_disk(self) -> None:
        """Keep embeddings in the user's cache folder, if they are not kept yet."""
        if self.cache is None or not self.cache.adds:
            settings = get_settings()
            self.keep_in(
                EmbeddingCache(
                    settings.cache_dir, limit_bytes=settings.cache_limit_bytes
                )
            )

    def answer(self, request: PredictRequest) -> PredictResult:
        """Ask the network.

        Raises
        ------
        DeviceError
            If the device runs out of memory.
        InputError
            If the image or a prompt cannot be used.
        """
        predictor = self.predictor(request.view)
        answers: dict[int, Prediction] = {}
        plain: list[int] = []
        for number, question in enumerate(request.questions):
            if question.feedback is None and question.mask is None:
                plain.append(number)
            else:
                answers[number] = _refined(predictor, question)
        found = predictor.predict_many([request.questions[i].prompts for i in plain])
        answers.update(zip(plain, found, strict=True))
        return PredictResult(
            request.generation,
            request.view,
            tuple(answers[i] for i in range(len(request.questions))),
            self.model.name,
            self.model.weights_sha256,
        )

    def complete(self, wanted: CompleteRequest) -> Job[list[Prediction]]:
        """Finish answers that their crop cuts, or shows too small.

        Yields
        ------
        Step
            Its value maps numbers of questions to better predictions.

        Returns
        -------
        list of Prediction
            In the order of the questions.
        """
        predictor = self.predictor(wanted.request.view)
        prompts = [question.prompts for question in wanted.request.questions]
        return complete_many(predictor, prompts, wanted.predictions)


def _refined(predictor: Predictor, question: Question) -> Prediction:
    """Begin with an earlier answer, or with a mask of the object."""
    prompts, feedback, known = question.prompts, question.feedback, question.mask
    if feedback is not None and _holds(feedback.crop, prompts):
        asked = _with_mask(prompts, feedback.logits)
        return predictor.predict(asked, crop=feedback.crop)
    if known is None:  # the object has left the crop of the earlier answer
        return predictor.predict(prompts)
    edges = (known.box.y0, known.box.x0, known.box.y1, known.box.x1)
    crop = predictor.crop_for(Prompts(prompts.points, prompts.positive, edges))
    config = predictor.model.config
    logits = mask_logits(
        known.box, known.mask, crop, config.mask_size, config.image_size
    )
    return predictor.predict(_with_mask(prompts, logits), crop=crop)


def _holds(crop: Crop, prompts: Prompts) -> bool:
    """Whether a crop shows all that is positive."""
    points = prompts.points[prompts.positive]
    low, high = (
        np.array([crop.box.y0, crop.box.x0]),
        np.array([crop.box.y1, crop.box.x1]),
    )
    boxes = prompts.boxes.reshape(-1, 2, 2)
    return bool(
        ((points >= low - 0.5) & (points <= high - 0.5)).all()
        and ((boxes >= low) & (boxes <= high)).all()
    )


def _with_mask(prompts: Prompts, logits: NDArray[np.float32]) -> Prompts:
    return Prompts(prompts.points, prompts.positive, prompts.boxes, logits)
