"""A network whose answers are known: the disc that holds the first positive point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.predict import Prediction
from napari_sam.engine.request import PredictResult
from napari_sam.tiling import Box, Crop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam.engine.draft import Question
    from napari_sam.engine.jobs import Step
    from napari_sam.engine.request import CompleteRequest, PredictRequest


class DiscPlanes:
    """Answers from true labels, as `Planes` does from a network.

    A single point has three answers: a part (the half above the point's row), the
    disc, and all discs; its negative points take discs away from the group. The
    logits are full of the number of prompts, so that a test sees what is fed back.
    """

    def __init__(self, truth: NDArray[np.uint32]) -> None:
        self.truth = truth
        self.requests: list[PredictRequest] = []

    def answer(self, request: PredictRequest) -> PredictResult:
        self.requests.append(request)
        found = tuple(self._predict(each) for each in request.questions)
        return PredictResult(request.generation, request.view, found, "discs", "0" * 64)

    def find_on_disk(self) -> None:
        """There is nothing to find."""

    def complete(self, _wanted: CompleteRequest) -> Iterator[Step]:
        return iter(())

    def _predict(self, question: Question) -> Prediction:
        prompts = question.prompts
        if prompts.has_box:
            y0, x0, y1, x1 = prompts.boxes[0].astype(int).tolist()
            ids = np.unique(self.truth[y0:y1, x0:x1])
        else:
            y, x = np.floor(prompts.points[prompts.positive] + 0.5).astype(int).T
            ids = np.unique(self.truth[y, x])
        whole = np.isin(self.truth, ids[ids > 0])
        masks = whole[None]
        if prompts.n_points == 1 and not prompts.has_box:
            part = whole.copy()
            part[int(prompts.points[0, 0]) :] = False
            masks = np.stack([part, whole, self.truth > 0])
        box = Box.around(masks.any(0)) or Box(0, 0, 1, 1)
        ious = np.array([0.5, 0.9, 0.4] if len(masks) == 3 else [0.9], np.float32)
        plane = Box.whole(self.truth.shape)
        return Prediction(
            masks=masks[:, *box.slices],
            predicted_iou=ious,
            stability=np.full(len(masks), 0.8, np.float32),
            box=box,
            best=int(ious.argmax()),
            logits=np.full((len(masks), 4, 4), prompts.n_points, np.float32),
            crop=Crop(0, 0, 0, plane, plane, (128, 128)),
        )
