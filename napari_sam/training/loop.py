"""Training of SAM: the loop, from top to bottom.

Each step draws windows, encodes them once, and asks for several objects in a few
rounds of prompts. Batch number n is the same in every run with one seed, so a
training that was killed goes on as if nothing had happened, up to the order of sums.

What is left in the output folder: ``state.pt`` (everything to go on),
``weights.safetensors`` (the running average; for `load_model`), ``curves.csv``.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Subset

from napari_sam.engine.jobs import Step, job
from napari_sam.errors import InputError
from napari_sam.model import VARIANTS, Sam, channels_last
from napari_sam.model.config import ConvConfig
from napari_sam.model.conv_encoder import ConvEncoder
from napari_sam.model.proposal_head import ProposalHead
from napari_sam.training.data import Batch, Batches, load_images
from napari_sam.training.losses import (
    MaskLossWeights,
    centre_loss,
    proposal_loss,
    vote_loss,
)
from napari_sam.training.muon import Muon
from napari_sam.training.rounds import PromptRounds, draw_rounds
from napari_sam.weights.device import pick_device
from napari_sam.weights.load import load_model, save_weights
from napari_sam.writers.atomic import atomic, make_folder

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sam.engine.jobs import Job
    from napari_sam.training.config import TrainConfig

logger = logging.getLogger(__name__)

# Smaller weights are no matrices in Muon's sense: outputs of a few channels, the first
# convolution of three.
MIN_ROWS, MIN_COLUMNS = 16, 32

CURVES_FILE = "curves.csv"
CURVES = ("loss", "dice", "iou", "iou_error", "proposal", "votes", "centre", "gradient")


@job
def train(config: TrainConfig) -> Job[Path]:
    """Train, or go on with a training.

    Parameters
    ----------
    config : TrainConfig
        All settings.

    Yields
    ------
    Step
        One for each step of the training; ``value`` holds its curves.

    Returns
    -------
    Path
        The weights, safetensors.

    Raises
    ------
    InputError, FormatError, WeightsError
        If the settings, the data or the weights to start from are unfit.
    """
    make_folder(config.output)  # not after the first step
    state = _start(config)
    if state.step < config.steps:
        images = [
            i for d in config.data for i in load_images(d, config.split, config.partial)
        ]
        n_objects = sum(int(image.labels.max()) for image in images)
        logger.info("%d planes with %d objects", len(images), n_objects)
        batches = Subset(Batches(images, config), range(state.step, config.steps))
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=config.workers,
            prefetch_factor=4 if config.workers else None,
            worker_init_fn=_one_thread,
        )
        _forget_curves(config.output / CURVES_FILE, state.step)
        saved = time.monotonic()
        for batch in loader:
            curves = train_step(state, batch, config)
            if time.monotonic() - saved > config.checkpoint_every_s:
                _save(state, config)
                saved = time.monotonic()
            _log(state, curves, config)
            yield Step(state.step, config.steps, "train", curves)
    return _save(state, config)


@dataclass(slots=True)
class TrainingState:
    """What changes from step to step.

    Attributes
    ----------
    model : Sam
    optimizers : tuple of torch.optim.Optimizer
        Muon for what is a matrix, AdamW for the rest.
    average : dict of str to Tensor
        Running average of the model's parameters and statistics.
    step : int
        Steps done.
    """

    model: Sam
    optimizers: tuple[torch.optim.Optimizer, ...]
    average: dict[str, Tensor]
    step: int = 0


def train_step(
    state: TrainingState, batch: Batch, config: TrainConfig
) -> dict[str, float]:
    """Do one step; returns the values of `CURVES`."""
    model = state.model
    share = schedule(state.step, config)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["full_rate"]
    curves = _losses(model, batch, config, state.step)
    if curves["loss"].requires_grad:  # not if nothing was asked that `only` trains
        (curves["loss"] / config.accumulate).backward()
    curves["loss"] = curves["loss"].detach()
    state.step += 1
    if state.step % config.accumulate == 0:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _update_average(state, config.ema_decay)
        curves["gradient"] = norm
    return {name: float(value) for name, value in curves.items()}


def schedule(step: int, config: TrainConfig) -> float:
    """Return the share of the full rates: up, level, then down along a half cosine."""
    rise = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    left = (config.steps - step) / max(config.decay_steps, 1)
    fall = 1.0 if left >= 1 else 0.5 * (1 - math.cos(math.pi * left))
    return rise * fall


def _losses(
    model: Sam, batch: Batch, config: TrainConfig, step: int
) -> dict[str, Tensor]:
    device = model.device
    generator = Generator().manual_seed(config.seed * 1_000_003 + step)
    warm = 0.0
    if config.warm_steps:
        prompted = step - config.dense_steps
        warm = min(max(2 - prompted / config.warm_steps, 0.0), 1.0)
    with torch.autocast(
        device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
    ):
        pixels = (batch.images.to(device).float() - model.pixel_mean) / model.pixel_std
        encoder = model.image_encoder
        dense: dict[str, Tensor] = {}
        if isinstance(encoder, ConvEncoder):
            embedding, offsets = encoder.with_offsets(pixels, batch.origin)
            target = batch.centres.to(device) / encoder.centres.UNIT
            dense["centre"] = centre_loss(offsets, target)
        else:
            embedding = encoder(pixels)
        features = None
        if isinstance(model.proposal_head, ProposalHead):
            features = model.proposal_head.features(embedding)
        dense |= _head_losses(model, embedding, features, batch)
        loss = config.proposal_weight * sum(
            dense.values(), torch.zeros((), device=device)
        )
        curves = {name: part.detach() for name, part in dense.items()}
        if len(batch.masks) and step >= config.dense_steps:
            details = model.details(embedding, batch.origin, features)
            careful = float(torch.rand((), generator=generator)) < config.careful_share
            rounds = PromptRounds(
                model, embedding, batch, generator, details, careful=careful
            )
            weights = MaskLossWeights(
                warm, config.focal_weight, config.overlap, config.chosen_share
            )
            parts = rounds.losses(draw_rounds(config.rounds, generator), weights)
            loss = loss + torch.stack([part.total for part in parts]).mean()
            for name in ("dice", "iou", "iou_error"):
                curves[name] = getattr(parts[0], name)
    return {"loss": loss, **curves}


def _head_losses(
    model: Sam, embedding: Tensor, features: Tensor | None, batch: Batch
) -> dict[str, Tensor]:
    """Return the losses of the proposal head, by the names of their curves."""
    head, device = model.proposal_head, model.device
    if head is None:
        return {}
    if isinstance(head, ProposalHead) and features is not None:
        maps = head.maps(features).float()
    else:
        maps = head(embedding).float()
    maps = F.interpolate(maps, batch.maps.shape[-2:], mode="bilinear")
    losses = {
        "proposal": proposal_loss(
            maps, batch.maps.to(device), batch.is_complete.to(device)
        )
    }
    if isinstance(head, ProposalHead) and head.votes is not None:
        raw: Tensor = head.votes(features)
        losses["votes"] = vote_loss(raw.float(), batch.votes.to(device))
    return losses


def _start(config: TrainConfig) -> TrainingState:
    device = pick_device(config.device)
    if config.start_from is not None:
        model = load_model(config.start_from, device=str(device), precision="float32")
    elif config.model in VARIANTS:
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay
            torch.manual_seed(config.seed)
            model = Sam(VARIANTS[config.model]).to(device)
    else:
        raise InputError(f"no model {config.model!r}; choose from {sorted(VARIANTS)}")
    _check_fit(model, config)
    model = channels_last(model).train()
    _freeze(model, config.only)
    optimizers = _optimizers(model, config)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    state = TrainingState(model, optimizers, average)
    path = config.output / "state.pt"
    if path.is_file():
        stored = torch.load(path, map_location=device, weights_only=True)
        try:
            model.load_state_dict(stored["model"])
        except RuntimeError as error:
            raise InputError(
                f"{path} is a training of another network; go on with its own "
                "settings, or give another output folder"
            ) from error
        for optimizer, values in zip(optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        _set_rates(optimizers, config)
        state.average, state.step = stored["average"], stored["step"]
        logger.info("going on at step %d of %d of %s", state.step, config.steps, path)
        if state.step >= config.steps:
            logger.warning(
                "nothing to train: %s has done them all; ask for more steps, or for "
                "another output folder",
                path,
            )
    return state


def _freeze(model: Sam, only: tuple[str, ...]) -> None:
    """Leave all parameters as they are but those whose names begin like ``only``."""
    if not only:
        return
    names = [name for name, _ in model.named_parameters()]
    if unknown := [part for part in only if not any(n.startswith(part) for n in names)]:
        parts = sorted({".".join(name.split(".")[:2]) for name in names})
        raise InputError(
            f"only {unknown}: no parameter of {model.name!r} begins so; parts are "
            f"{', '.join(parts)}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(only)


def _optimizers(model: Sam, config: TrainConfig) -> tuple[torch.optim.Optimizer, ...]:
    matrices = [
        layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
        and layer.weight.requires_grad
        and len(layer.weight) >= MIN_ROWS
        and layer.weight[0].numel() >= MIN_COLUMNS
    ]
    chosen = {id(weight) for weight in matrices}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim > 1]},
        # Biases and normalisations are not drawn towards zero.
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers = (
        torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True),
        Muon(
            [{"params": matrices}],
            weight_decay=config.weight_decay,
            iterations=config.matrix_iterations,
        ),
    )
    _set_rates(optimizers, config)
    return optimizers


def _set_rates(
    optimizers: tuple[torch.optim.Optimizer, ...], config: TrainConfig
) -> None:
    rates = (config.learning_rate, config.matrix_rate)
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups:
            group["full_rate"] = rate


def _check_fit(model: Sam, config: TrainConfig) -> None:
    frame = model.config.image_size
    if config.frame != frame:
        raise InputError(
            f"frame {config.frame} px, but {model.name!r} has one of {frame} px; "
            f"set frame to {frame}"
        )
    needs_frame = not isinstance(model.config.encoder, ConvConfig)
    if config.dense_steps and needs_frame and model.proposal_head is None:
        raise InputError(
            f"{config.dense_steps} dense steps, but {model.name!r} has no proposal "
            "head to train in them; set dense_steps to 0"
        )
    if needs_frame and any(side != frame for side, _ in config.windows):
        raise InputError(
            f"windows {config.windows}: the encoder of {model.name!r} has positions "
            f"and takes whole frames; use windows of {frame} px"
        )


@torch.no_grad()
def _update_average(state: TrainingState, decay: float) -> None:
    # Early weights are forgotten faster than ``decay`` says.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    values = state.model.state_dict()
    floats = [name for name, value in values.items() if value.is_floating_point()]
    # All at once, which costs less than hundreds of small calls.
    torch._foreach_lerp_(
        [state.average[name] for name in floats],
        [values[name] for name in floats],
        1 - decay,
    )
    for name in values.keys() - set(floats):
        state.average[name].copy_(values[name])


def _save(state: TrainingState, config: TrainConfig) -> Path:
    path = config.output / "state.pt"
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "model": state.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
            "average": state.average,
            "step": state.step,
        },
        temporary,
    )
    temporary.replace(path)
    return save_weights(
        state.average,
        config.output / "weights.safetensors",
        state.model.config,
        note=f"{state.step} steps",
    )


def _log(state: TrainingState, curves: dict[str, float], config: TrainConfig) -> None:
    path = config.output / CURVES_FILE
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(("step", "seconds", "learning_rate", *CURVES))
        row = [f"{curves.get(name, math.nan):.5g}" for name in CURVES]
        rate = config.learning_rate * schedule(state.step - 1, config)
        writer.writerow((state.step, f"{time.time():.1f}", f"{rate:.4g}", *row))


def _forget_curves(path: Path, step: int) -> None:
    """Drop the lines of steps after the last checkpoint; they are done again."""
    if path.is_file():
        head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        done = {str(number) for number in range(1, step + 1)}
        kept = [line for line in lines if line.partition(",")[0] in done]
        with atomic(path, overwrite=True) as part:
            part.write_text("".join([head, *kept]), encoding="utf-8")


def _one_thread(worker: int) -> None:
    # The processes that draw batches leave the cores to the network.
    torch.set_num_threads(1)
