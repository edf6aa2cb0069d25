"""What goes to the worker and what comes back: frozen, so that no lock is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from napari_sam.tiling import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_sam.engine.draft import Question
    from napari_sam.engine.predict import Prediction
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.labels import PlaneIndex


@dataclass(frozen=True, slots=True, eq=False)
class PlaneView:
    """The plane that is looked at, as it is looked at.

    Parameters
    ----------
    source : ImageSource
        The image that the plane is a part of.
    plane : tuple of int
        (frame, slice) in the source.
    intensity : Intensity, optional
        How pixels become 8-bit RGB. Default: found when the plane is embedded.
    index : tuple of int or None
        Where the plane lies in the labels.
    image_key : object
        Equal for views of one image, also with another intensity.
    scale : float, optional
        Input pixels per plane pixel. Default: that of `CropGrid`.
    """

    source: ImageSource
    plane: tuple[int, int] = (0, 0)
    intensity: Intensity | None = None
    index: PlaneIndex = (None, None)
    image_key: object = 0
    scale: float | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the plane, in pixels."""
        return self.source.plane_shape

    @property
    def place(self) -> tuple[object, PlaneIndex]:
        """What drafts belong to: the plane, whatever its intensity."""
        return self.image_key, self.index

    @property
    def embedding_key(self) -> tuple[object, ...]:
        """What embeddings belong to: another key, another embedding."""
        return self.image_key, self.index, self.plane, self.intensity, self.scale


@dataclass(frozen=True, slots=True, eq=False)
class StackView:
    """The planes behind and before the one that is looked at.

    Parameters
    ----------
    source : ImageSource
        The image, of which `along` and `at` choose a row of planes.
    along : {"z", "t"}
        The axis of `source` that leads from plane to plane.
    at : int
        Place on the other axis of `source`.
    view : PlaneView
        The plane that is looked at.
    axis : int
        The axis of the labels that leads from plane to plane.
    """

    source: ImageSource
    along: Literal["z", "t"]
    at: int
    view: PlaneView
    axis: int

    @property
    def n(self) -> int:
        """Number of planes."""
        return self.source.shape[1 if self.along == "z" else 0]

    @property
    def here(self) -> int:
        """The plane that is looked at, counted from 0."""
        return int(self.view.index[self.axis] or 0)

    def index(self, i: int) -> PlaneIndex:
        """Return where the i-th plane lies in the labels."""
        index = self.view.index
        return (*index[: self.axis], i, *index[self.axis + 1 :])

    def position(self, index: PlaneIndex) -> int | None:
        """Return which plane an index is; None if it is not one of these."""
        at = index[self.axis] if self.axis < len(index) else None
        return at if at is not None and self.index(at) == index else None

    def plane(self, i: int) -> PlaneView:
        """Return the view of the i-th plane."""
        place = (self.at, i) if self.along == "z" else (i, self.at)
        return replace(self.view, source=self.source, plane=place, index=self.index(i))


@dataclass(frozen=True, slots=True, eq=False)
class PredictRequest:
    """Questions about one plane.

    Parameters
    ----------
    generation : int
        An answer counts only while no newer request has been made.
    view : PlaneView
    questions : tuple of Question
        One for each object.
    """

    generation: int
    view: PlaneView
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PredictResult:
    """Answers, in the order of the questions.

    Parameters
    ----------
    generation : int
        That of the request.
    view : PlaneView
    predictions : tuple of Prediction
    model, model_sha256 : str or None
        Which weights answered.
    """

    generation: int
    view: PlaneView
    predictions: tuple[Prediction, ...]
    model: str | None = None
    model_sha256: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompleteRequest:
    """Answers that may not be whole, to be looked at again.

    Parameters
    ----------
    request : PredictRequest
        To which they were given; its number counts here, too.
    predictions : tuple of Prediction
        In the order of the questions; `Prediction.best` is what is shown.
    """

    request: PredictRequest
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ShownMask:
    """One mask of the preview, cut to its pixels.

    Parameters
    ----------
    box : Box
        Plane pixels; empty if the mask is.
    mask : (h, w) array of bool
    predicted_iou, stability : float
    answer : int
        Which of the answers it is, from 0.
    n_answers : int
        How many there are.
    is_completed : bool
        Whether the object was looked at again, in a crop of its own.
    """

    box: Box
    mask: NDArray[np.bool_]
    predicted_iou: float
    stability: float
    answer: int
    n_answers: int
    is_completed: bool = False

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        answer: int | None = None,
        whole: Prediction | None = None,
    ) -> ShownMask:
        """Return an answer of a prediction.

        Parameters
        ----------
        prediction : Prediction
        answer : int, optional
            Default: the best.
        whole : Prediction, optional
            What `complete` has made of this answer.
        """
        answer = prediction.best if answer is None else answer
        seen, k = (prediction, answer) if whole is None else (whole, whole.best)
        mask = seen.masks[k]
        tight = Box.around(mask) or Box(0, 0, 0, 0)
        return cls(
            tight.shift(seen.box.y0, seen.box.x0),
            mask[tight.slices],
            float(seen.predicted_iou[k]),
            float(seen.stability[k]),
            answer,
            len(prediction.masks),
            whole is not None,
        )
