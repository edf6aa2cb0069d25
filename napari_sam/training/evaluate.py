"""Quality of a model on annotated images: prompts answered, objects found unasked.

Images take exactly the path of a user's: reader, contrast limits, crops, encoder. The
encoder runs once for each crop; all objects of an image share calls of the decoder.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import AutomaticConfig, segment
from napari_sam.engine.embed import embed
from napari_sam.engine.jobs import Job, Step, job, run
from napari_sam.engine.predict import Predictor
from napari_sam.errors import InputError
from napari_sam.training.collection import (
    AnnotatedImage,
    list_images,
    open_annotated,
    read_labels,
)
from napari_sam.training.metrics import mean_segmentation_accuracy, overlaps
from napari_sam.training.protocol import (
    Scores,
    Target,
    find_targets,
    score_boxes,
    score_clicks,
)
from napari_sam.training.report import Evaluation, ImageScores, group_of
from napari_sam.weights.load import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.images import ImageSource
    from napari_sam.model import Sam


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """What is evaluated, and on what.

    Parameters
    ----------
    data : Path
        Folder as `napari_sam.training.collection.list_images` reads it.
    weights : str, optional
        Name or path of the weights; None takes the bundled default.
    split : str, optional
        Split of the data's index; None takes all images.
    datasets : tuple of str
        Only these datasets of the index; empty takes all.
    partial : tuple of str
        Datasets with objects that are not labelled, where the index does not say so.
    clicks : tuple of int
        After how many clicks the IoU is told; empty asks with no clicks.
    box : bool
        Also ask with the tight box of each object.
    automatic : bool
        Also segment without prompts, where all objects of an image are labelled.
    max_images : int, optional
        Images of each dataset and modality, drawn with ``seed``; None takes all.
    max_objects : int, optional
        Objects of each image that are prompted, drawn with ``seed``; None takes all.
    min_area : int, pixels
        Objects with fewer pixels are not prompted; they count in automatic mode.
    seed : int
        For the draws above.
    segmentation : AutomaticConfig
        Mode and thresholds of the automatic segmentation.
    device, precision : str
        As in `napari_sam.load_model`.

    Raises
    ------
    InputError
        If there is nothing to ask, or a number is impossible.
    """

    data: Path
    weights: str | None = None
    split: str | None = "val"
    datasets: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    clicks: tuple[int, ...] = (1, 2, 3, 5)
    box: bool = True
    automatic: bool = True
    max_images: int | None = None
    max_objects: int | None = None
    min_area: int = 10
    seed: int = 0
    segmentation: AutomaticConfig = field(default_factory=AutomaticConfig)
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not (self.clicks or self.box or self.automatic):
            raise InputError("nothing to evaluate; ask for clicks, box or automatic")
        limits = [n for n in (self.max_images, self.max_objects) if n is not None]
        if min((*self.clicks, *limits), default=1) < 1:
            raise InputError(
                f"clicks {self.clicks}, max_images {self.max_images}, max_objects "
                f"{self.max_objects}; give numbers of 1 or more"
            )


@job
def evaluate(config: EvaluateConfig, model: Sam | None = None) -> Job[Evaluation]:
    """Measure a model on annotated images.

    Parameters
    ----------
    config : EvaluateConfig
        Data, weights and what to ask.
    model : Sam, optional
        A model in memory, instead of ``config.weights``.

    Returns
    -------
    Job of Evaluation
        A `Step` after each image, whose value is its `ImageScores`.

    Raises
    ------
    FormatError
        If the data are damaged, or an image and its labels do not fit.
    InputError
        If nothing in the data is to be evaluated.
    """
    images = _draw_images(config)
    if model is None:
        model = load_model(
            config.weights, device=config.device, precision=config.precision
        )
    results = []
    for done, image in enumerate(images, start=1):
        scores = _evaluate_image(image, model, config)
        results.append(scores)
        yield Step(done, len(images), f"evaluate {image.dataset}", scores)
    return Evaluation(
        model_name=model.name,
        weights_sha256=model.weights_sha256,
        settings=asdict(config),
        names=_names(config),
        images=results,
    )


def _names(config: EvaluateConfig) -> tuple[str, ...]:
    names = []
    if config.clicks:
        names += ["click_1", "oracle_1"]
        names += [f"click_{n}" for n in sorted(config.clicks) if n > 1]
    names += ["box"] if config.box else []
    names += ["SA50", "mSA"] if config.automatic else []
    return tuple(names)


def _draw_images(config: EvaluateConfig) -> list[AnnotatedImage]:
    images = list_images(
        config.data,
        split=config.split,
        datasets=config.datasets,
        partial=config.partial,
    )
    if config.max_images is None:
        return images
    rng = np.random.default_rng(config.seed)
    chosen: set[int] = set()
    groups: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(group_of(image, "dataset and modality"), []).append(i)
    for members in groups.values():
        chosen.update(rng.permutation(members)[: config.max_images].tolist())
    return [images[i] for i in sorted(chosen)]


def _evaluate_image(
    image: AnnotatedImage, model: Sam, config: EvaluateConfig
) -> ImageScores:
    start = time.perf_counter()
    source, plane, labels = _read(image)
    # one store in memory for both modes: the encoder runs once for each crop
    cache = EmbeddingCache()
    targets = [t for t in find_targets(labels) if t.area >= config.min_area]
    targets = _draw_targets(targets, config)
    prompted: Scores = {}
    if targets and (config.clicks or config.box):
        embedding = run(embed(source, model, cache=cache, plane=plane), progress=False)
        predictor = Predictor(model, embedding)
        if config.clicks:
            prompted |= score_clicks(predictor, targets, max(config.clicks))
        if config.box:
            prompted |= score_boxes(predictor, targets)
    automatic: dict[str, float] = {}
    if config.automatic and image.is_complete:
        work = segment(
            source, model, cache=cache, plane=plane, config=config.segmentation
        )
        automatic = _score_labels(labels, run(work, progress=False).labels)
    return ImageScores(
        image=image,
        n_objects=int(np.count_nonzero(np.unique(labels))),
        object_ids=np.array([t.object_id for t in targets], np.int64),
        areas=np.array([t.area for t in targets], np.int64),
        prompted=prompted,
        automatic=automatic,
        seconds=time.perf_counter() - start,
    )


def _read(
    image: AnnotatedImage,
) -> tuple[ImageSource, tuple[int, int], NDArray[np.int64]]:
    """Image, index of its middle plane, and the labels of that plane."""
    source, truth = open_annotated(image)
    planes, truth_planes = list(source.plane_indices()), list(truth.plane_indices())
    middle = len(planes) // 2
    return source, planes[middle], read_labels(truth, truth_planes[middle])


def _draw_targets(targets: list[Target], config: EvaluateConfig) -> list[Target]:
    if config.max_objects is None or len(targets) <= config.max_objects:
        return targets
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(targets), config.max_objects, replace=False)
    return [targets[i] for i in sorted(chosen.tolist())]


def _score_labels(truth: NDArray[Any], found: NDArray[Any]) -> dict[str, float]:
    return {
        "SA50": overlaps(truth, found).accuracy(0.5),
        "mSA": mean_segmentation_accuracy(truth, found),
        "n_found": float(np.count_nonzero(np.unique(found))),
    }
