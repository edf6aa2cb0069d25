"""Where the time of automatic segmentation goes: share of each part.

    python -m benchmarks.shares --side 1536
    python -m benchmarks.shares slide.tif

CPU seconds of one thread, each part without the parts that it calls.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.mosaic import squares, write_mosaic
from napari_sam import load_model, open_image, run
from napari_sam.engine import automatic, embed, proposals
from napari_sam.engine.automatic import segment
from napari_sam.model import Sam
from napari_sam.model.mask_decoder import MaskDecoder
from napari_sam.model.proposal_head import ProposalHead

PARTS: dict[str, list[tuple[Any, str]]] = {
    "encoder": [(Sam, "encode")],
    "proposal head": [(ProposalHead, "features"), (Sam, "propose"), (Sam, "details")],
    "placing of windows": [(Sam, "place"), (proposals, "prepare_windows")],
    "decoder, tokens and places": [(MaskDecoder, "attend"), (MaskDecoder, "prepare")],
    "decoder, masks": [(MaskDecoder, "draw"), (MaskDecoder, "forward")],
    "reading and normalising": [(embed, "read_crop"), (Sam, "preprocess")],
    "prompts from votes": [(proposals, "find_meetings")],
    "duplicates and stitching": [
        (automatic, "without_duplicates"),
        (automatic, "stitch_views"),
    ],
}


EVERYTHING_ELSE = "everything else"


class Shares:
    """Seconds of parts that call each other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [EVERYTHING_ELSE]
        self._since = time.process_time()

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count what ``owner.name`` takes from now on as ``part``."""
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._open.append(part)
            try:
                return original(*args, **kwargs)
            finally:
                self._turn()
                self._open.pop()

        setattr(owner, name, watched)

    def of(self, work: Callable[[], object]) -> dict[str, float]:
        """Do some work; return the seconds of each part."""
        self._turn()
        self.seconds.clear()
        work()
        self._turn()
        return dict(self.seconds)


def main() -> None:
    """Segment once to warm up, once to measure; print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("image", type=Path, nargs="?", help="default: a mosaic")
    parser.add_argument("--side", type=int, default=1536, help="of the mosaic, pixels")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(device="cpu")
    shares = Shares()
    for part, functions in PARTS.items():
        for owner, name in functions:
            shares.watch(owner, name, part)
    with tempfile.TemporaryDirectory() as folder:
        path = given.image or Path(folder) / "mosaic.tif"
        if given.image is None:
            write_mosaic(path, given.side, squares(None))
        model.encode(torch.zeros(1, 3, 1024, 1024))
        found = []
        seconds = shares.of(
            lambda: found.append(run(segment(open_image(path), model), progress=False))
        )
    total = sum(seconds.values())
    print(f"{found[0].n_objects} objects, {total:.2f} s, {model.precision}")
    for part, each in sorted(seconds.items(), key=lambda pair: -pair[1]):
        print(f"{100 * each / total:5.1f} %  {each:6.2f} s  {part}")


if __name__ == "__main__":
    main()
