"""All settings of a training, as one frozen value read from YAML."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read_config reads the types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from napari_sam.errors import FormatError, InputError, file_errors

# Smallest values that make sense.
_LOWEST = {
    "steps": 1,
    "warmup_steps": 0,
    "decay_steps": 0,
    "warm_steps": 0,
    "dense_steps": 0,
    "learning_rate": 0,
    "matrix_rate": 0,
    "matrix_iterations": 1,
    "weight_decay": 0,
    "accumulate": 1,
    "objects_per_window": 1,
    "proposal_weight": 0,
    "seed": 0,
    "workers": 0,
    "checkpoint_every_s": 0,
}


FINE_TUNING: Mapping[str, Any] = {
    "steps": 100,
    "warm_steps": 0,
    "learning_rate": 1e-4,
    "matrix_rate": 2e-3,
    "matrix_iterations": 3,
    "weight_decay": 0.03,
    "ema_decay": 0.95,
    "windows": ((256, 4),),
    "window_shares": (1.0,),
    "objects_per_window": 4,
    "rounds": (0.5, 0.3, 0.2),
    "careful_share": 0.5,
    "usual_share": 0.7,
    "scene_share": 0.0,
    "focal_weight": 5.0,
    "proposal_weight": 1.5,
    "checkpoint_every_s": 30.0,
}
"""What `read_config` takes, instead of the defaults of `TrainConfig`, for a training
that starts from weights: a few minutes on a CPU for a few images (ours, measured)."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What is trained, on what, and how long.

    Parameters
    ----------
    output : Path
        Folder for checkpoints, curves and weights; a training found there goes on.
    data : tuple of Path
        Folders as `napari_sam.training.data.load_images` reads them.
    split : str, optional
        Split of the data's index; None takes all.
    partial : tuple of str
        Datasets with objects that are not labelled, where the index does not say so:
        what lies beside their objects is not taught to be background.
    model : str, default "default"
        Variant, from `napari_sam.model.VARIANTS`.
    start_from : str, optional
        Weights, a name or a path, to start from; None starts from random ones.
    only : tuple of str
        Beginnings of names of the parameters that are trained, such as
        ``mask_decoder`` or ``mask_decoder.quality``; the others stay as they are.
        Default: all are trained.
    steps, warmup_steps, decay_steps : int
        All steps; the first, in which the learning rate rises; the last, in which it
        falls to zero. Between them it stays, so that a training can be prolonged.
    warm_steps : int
        Steps with cross entropy and dice before the paper's losses take over,
        gradually over as many steps again; 0 for weights that are trained already.
    dense_steps : int, default 0
        First steps in which only the encoder and the proposal head are trained; they
        take less time.
    learning_rate, matrix_rate, weight_decay, gradient_clip : float
        Of AdamW; of Muon (`napari_sam.training.muon`), which moves the weights that
        are matrices; of both; the largest norm of the gradient.
    matrix_iterations : int, default 5
        Of Muon, which takes a third of a step on a CPU with 5; fewer take less.
    accumulate : int, default 1
        Batches whose gradients are added up for one step.
    ema_decay : float, default 0.999
        Of the running average of the weights, which is what is kept.
    windows : tuple of (int, int)
        Side of a window in pixels (a multiple of 32) and how many are in a batch.
    window_shares : tuple of float
        How often each of ``windows`` is drawn; they sum to 1.
    objects_per_window : int
        Objects that are prompted in each window.
    rounds : tuple of float
        Probability of 1, 2, 3, ... rounds of prompts for a batch; the paper has 11.
        A number of 9 or more ends with the two rounds without new points.
    careful_share : float, default 0.0
        Share of batches in which the annotator is a careful one: clicks far from
        boundaries and boxes with little noise. The paper has none.
    usual_share : float, default 0.5
        Share of windows at about the scale at which an image would be segmented; the
        others bring objects to any size of ``diameters``.
    diameters : tuple of float
        Range of object sizes, in pixels of the encoder's input.
    scene_share : float
        Share of windows that are synthetic scenes.
    group_weights : mapping of str to float
        How often each group is drawn; default is the root of its number of images.
    focal_weight : float, default 20
        Parts of focal loss to one part of dice loss. Focal loss alone draws what is
        uncertain too small for a good IoU; some last steps at 0 of the parts that set
        the size (``only``) mend that.
    overlap : {"dice", "iou"}
        The soft overlap in the loss; the paper has dice, a mean IoU is judged by IoU.
    chosen_share : float, default 0.0
        Share of the loss of three masks that judges the one with the highest predicted
        IoU, which is what a user sees, instead of the best one, as the paper does.
    proposal_weight : float, default 1.0
        Of the proposal head's loss.
    seed : int
    precision : {"bfloat16", "float32"}
        Of the forward and backward pass.
    device : str, default "auto"
    workers : int, default 1
        Processes that draw batches.
    checkpoint_every_s : float, default 120
        Seconds between two checkpoints.
    frame : int, default 1024
        Side of the input frame in which windows lie.
    """

    output: Path
    data: tuple[Path, ...] = ()
    split: str | None = "train"
    partial: tuple[str, ...] = ()
    model: str = "default"
    start_from: str | None = None
    only: tuple[str, ...] = ()
    steps: int = 20_000
    warmup_steps: int = 250  # appendix A of the paper
    decay_steps: int = 5_000
    warm_steps: int = 1_000
    dense_steps: int = 0
    learning_rate: float = 8e-4  # appendix A of the paper
    matrix_rate: float = 0.02  # Jordan et al. 2024
    matrix_iterations: int = 5  # Jordan et al. 2024
    weight_decay: float = 0.1  # appendix A of the paper
    gradient_clip: float = 1.0
    accumulate: int = 1
    ema_decay: float = 0.999
    windows: tuple[tuple[int, int], ...] = ((256, 8), (512, 2))
    window_shares: tuple[float, ...] = (0.8, 0.2)
    objects_per_window: int = 6
    rounds: tuple[float, ...] = (0.3, 0.4, 0.3)
    careful_share: float = 0.0
    usual_share: float = 0.5
    diameters: tuple[float, float] = (14.0, 160.0)
    scene_share: float = 0.15
    group_weights: Mapping[str, float] = field(default_factory=dict)
    focal_weight: float = 20.0  # appendix A of the paper
    overlap: Literal["dice", "iou"] = "dice"
    chosen_share: float = 0.0
    proposal_weight: float = 1.0
    seed: int = 0
    precision: str = "bfloat16"
    device: str = "auto"
    workers: int = 1
    checkpoint_every_s: float = 120.0
    frame: int = 1024

    def __post_init__(self) -> None:
        self._check_ranges()
        if any(side % 32 or side > self.frame for side, _ in self.windows):
            raise InputError(
                f"windows {self.windows}: sides must be multiples of 32 px and at "
                f"most {self.frame} px"
            )
        for name in ("window_shares", "rounds"):
            if abs(sum(getattr(self, name)) - 1) > 1e-6:
                raise InputError(f"{name} {getattr(self, name)} must sum to 1")
        if len(self.windows) != len(self.window_shares):
            raise InputError(
                f"{len(self.windows)} windows but {len(self.window_shares)} shares; "
                "give one share for each"
            )
        if self.warmup_steps + self.decay_steps > self.steps:
            raise InputError(
                f"{self.steps} steps are fewer than {self.warmup_steps} of warm-up "
                f"and {self.decay_steps} of decay; lower those"
            )
        if self.precision not in ("bfloat16", "float32"):
            raise InputError(
                f"precision {self.precision!r}; use 'bfloat16' or 'float32'"
            )

    def _check_ranges(self) -> None:
        for name, lowest in _LOWEST.items():
            if getattr(self, name) < lowest:
                raise InputError(
                    f"{name} {getattr(self, name)}; give a number of at least {lowest}"
                )
        for name in (
            "scene_share",
            "ema_decay",
            "careful_share",
            "usual_share",
            "chosen_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)}; give a share, 0 to 1")
        if not 0 < self.diameters[0] < self.diameters[1]:
            raise InputError(
                f"diameters {self.diameters}; give two sizes in pixels, the smaller "
                "one first"
            )


def read_config(path: Path | None = None, **changes: Any) -> TrainConfig:
    """Read a configuration from YAML.

    A training that starts from weights has the defaults of `FINE_TUNING`. The learning
    rate rises and falls over as many steps as suit their number.

    Parameters
    ----------
    path : Path, optional
        A mapping with the names of `TrainConfig`. Default: an empty one.
    **changes
        Values that replace those of the file, unless they are None.

    Raises
    ------
    InputError
        If a name is unknown, or a value is impossible.
    FormatError
        If the file is no YAML.
    FileError
        If it cannot be read.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(path)
    values.update({name: value for name, value in changes.items() if value is not None})
    types = get_type_hints(TrainConfig)
    if unknown := set(values) - set(types):
        raise InputError(
            f"unknown settings {sorted(map(str, unknown))}"
            f"{f' in {path}' if path else ''}; known are {sorted(types)}"
        )
    values.setdefault("output", "runs/train")
    is_tuning = values.get("start_from") is not None
    if is_tuning:
        values = {**FINE_TUNING, **values}
    for name in ("data", "only"):  # one may stand without brackets
        if isinstance(values.get(name), str | Path):
            values[name] = [values[name]]
    checked = {name: _checked(name, v, types[name]) for name, v in values.items()}
    checked["data"] = tuple(each.expanduser() for each in checked.get("data", ()))
    steps = checked.get("steps", 20_000)
    checked.setdefault("warmup_steps", min(250, steps // 20))
    checked.setdefault("decay_steps", steps * 3 // 4 if is_tuning else steps // 4)
    return TrainConfig(**checked)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with file_errors(path):
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no mapping of names to values")
    return values


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Bring a value to the type of its field; YAML takes ``1e-4`` for text."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        faults = "; ".join(fault["msg"] for fault in error.errors())
        raise InputError(f"setting {name} = {value!r}: {faults}") from error
