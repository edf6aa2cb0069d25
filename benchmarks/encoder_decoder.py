"""Time encoder and decoder against ``segment-anything`` with the same weights.

Both networks stand in one process and take turns; in every second round the reference
goes first. A ratio is taken within each round, so that a machine that slows down
meanwhile slows both, and the median of the rounds is reported. On a machine that
others use, ``--clock cpu`` counts the seconds of this process only, over all its
threads. Before timing, the answers are compared: a faster network that answers
something else is not faster.

    python -m benchmarks.encoder_decoder --rounds 7 --output times.json
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.process import CLOCKS
from napari_sam.model import VARIANTS, Sam
from tests.reference import randomise, reference_sam, relative_error

Compute = Callable[[], Tensor]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one step.

    Attributes
    ----------
    step : str
        What was computed.
    ours_s, reference_s : list of float
        Seconds, one a round.
    ratio : float
        Median over the rounds of reference over ours; above 1 ours is faster.
    difference : float
        Norm of the difference of the answers over the norm of the reference's.
    """

    step: str
    ours_s: list[float]
    reference_s: list[float]
    ratio: float
    difference: float

    @property
    def row(self) -> str:
        """One line of the table, times in milliseconds."""
        ours, reference = (
            1000 * statistics.median(times) for times in (self.ours_s, self.reference_s)
        )
        return (
            f"{self.step:<34}{ours:>10.1f}{reference:>12.1f}{self.ratio:>8.2f}"
            f"{self.difference:>12.1e}"
        )


def measure(
    step: str, ours: Compute, reference: Compute, *, rounds: int, clock: Clock
) -> Timing:
    """Time two computations of the same thing in turns."""
    difference = relative_error(ours().float(), reference().float())  # warms up, too
    seconds: dict[Compute, list[float]] = {ours: [], reference: []}
    for index in range(rounds):
        order = (ours, reference) if index % 2 == 0 else (reference, ours)
        for compute in order:
            synchronise()
            start = clock()
            compute()
            synchronise()
            seconds[compute].append(clock() - start)
    ratios = [
        theirs / own
        for own, theirs in zip(seconds[ours], seconds[reference], strict=True)
    ]
    return Timing(
        step, seconds[ours], seconds[reference], statistics.median(ratios), difference
    )


def synchronise() -> None:
    """Wait until the GPU, if there is one, has done all that it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def encoder_pair(ours: Sam, reference: Any) -> tuple[Compute, Compute]:
    """One random frame through each encoder, in the precision of ours."""
    size = ours.config.image_size
    x = torch.randn(1, 3, size, size, device=ours.device)

    def theirs() -> Tensor:
        with torch.autocast(
            x.device.type, torch.bfloat16, enabled=ours.precision == "bfloat16"
        ):
            embedding: Tensor = reference.image_encoder(x)
        return embedding

    return lambda: ours.encode(x), theirs


def decoder_pair(
    ours: Sam, reference: Any, *, n_prompts: int, with_mask: bool
) -> tuple[Compute, Compute]:
    """Points, one a prompt, on one random embedding: three masks each.

    Ours has prepared the embedding, as a predictor does once for all its prompts;
    a mask prompt changes what could be prepared.
    """
    config, device = ours.config, ours.device
    side, mask_side = config.embedding_size, config.mask_size
    embedding = torch.randn(1, config.embed_dim, side, side, device=device)
    points = torch.rand(n_prompts, 1, 2, device=device) * config.image_size
    labels = torch.ones(n_prompts, 1, device=device)
    masks = None
    if with_mask:
        masks = torch.randn(n_prompts, 1, mask_side, mask_side, device=device)

    def theirs() -> Tensor:
        sparse, dense = reference.prompt_encoder(
            points=(points, labels), boxes=None, masks=masks
        )
        logits: Tensor = reference.mask_decoder(
            image_embeddings=embedding,
            image_pe=reference.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )[0]
        return logits

    prepared = embedding if with_mask else ours.prepare(embedding)

    def own() -> Tensor:
        return ours.decode(prepared, points=points, labels=labels, masks=masks)[0]

    return own, theirs


def networks(name: str, *, device: str, precision: str) -> tuple[Sam, Any]:
    """Build both networks with the same random weights."""
    torch.manual_seed(0)
    reference = reference_sam(VARIANTS[name])
    randomise(reference)
    ours = Sam(VARIANTS[name]).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    ours.precision = precision
    return ours.to(device), reference.to(device)


def machine(device: torch.device) -> dict[str, str | int]:
    """Describe what was measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            s for s in info.read_text().splitlines() if s.startswith("model name")
        ]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    facts: dict[str, str | int] = {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": str(device),
    }
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    if hasattr(os, "getloadavg"):
        facts["load"] = f"{os.getloadavg()[0]:.1f}"
    return facts


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--variant", default="vit_b", choices=["vit_b", "vit_l", "vit_h"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "bfloat16"]
    )
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--output", type=Path, help="JSON with every time")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write the file."""
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    ours, reference = networks(
        args.variant, device=args.device, precision=args.precision
    )
    facts = machine(ours.device) | {
        "variant": args.variant,
        "encoder_precision": args.precision,
        "rounds": args.rounds,
        "clock": args.clock,
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'step':<34}{'ours ms':>10}{'reference':>12}{'ratio':>8}{'difference':>12}")
    timings = []
    with torch.inference_mode():
        steps = {
            "encoder, 1 frame": encoder_pair(ours, reference),
            "decoder, 1 point": decoder_pair(
                ours, reference, n_prompts=1, with_mask=False
            ),
            "decoder, 1 point and mask": decoder_pair(
                ours, reference, n_prompts=1, with_mask=True
            ),
            "decoder, 32 points in a batch": decoder_pair(
                ours, reference, n_prompts=32, with_mask=False
            ),
        }
        for step, (own, theirs) in steps.items():
            timing = measure(
                step, own, theirs, rounds=args.rounds, clock=CLOCKS[args.clock]
            )
            timings.append(timing)
            print(timing.row, flush=True)
    if args.output:
        record = {"machine": facts, "timings": [asdict(t) for t in timings]}
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
