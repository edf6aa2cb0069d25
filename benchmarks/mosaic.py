"""Made-up slides: real pictures, turned and mirrored at random, side by side.

A mosaic is a tiled, compressed BigTIFF of 8 bit. Its pictures are those of a folder,
or the immunohistochemistry of scikit-image. Each is stretched to its own contrast and
cut into squares of 256 px; what is drawn, turned and mirrored is seeded, so that a
mosaic is the same in every run. It is gray if all pictures are.

    python -m benchmarks.mosaic slide.tif --side 20000 --folder data/nuclei
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import data

from napari_sam import open_image
from napari_sam.images import find_intensity, read_rgb

TILE = 256


def squares(folder: Path | None, pattern: str = "*") -> NDArray[np.uint8]:
    """Return squares of 256 px, (N, 256, 256) or (N, 256, 256, 3).

    Pictures that are smaller, and stacks, are left out.
    """
    if folder is None:
        return _cut(data.immunohistochemistry())
    found: list[NDArray[np.uint8]] = []
    is_gray = True
    for path in sorted(folder.glob(pattern)):
        if not path.is_file():
            continue
        source = open_image(path)
        if source.shape[:2] == (1, 1) and min(source.plane_shape) >= TILE:
            rgb = read_rgb(source, find_intensity(source))
            is_gray &= bool((rgb == rgb[..., :1]).all())
            found.append(_cut(rgb))
    if not found:
        sys.exit(
            f"{folder} holds no pictures of {TILE} px or more; give another folder"
        )
    together = np.concatenate(found)
    return together[..., 0] if is_gray else together


def write_mosaic(
    path: Path, side: int, choices: NDArray[np.uint8], seed: int = 0
) -> None:
    """Write a square mosaic of some squares, tile by tile."""
    rng = np.random.default_rng(seed)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for _ in range((-(-side // TILE)) ** 2):
            tile = np.rot90(choices[rng.integers(len(choices))], int(rng.integers(4)))
            yield np.ascontiguousarray(tile[::-1] if rng.random() < 0.5 else tile)

    tifffile.imwrite(
        path,
        tiles(),
        bigtiff=True,
        shape=(side, side, *choices.shape[3:]),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb" if choices.ndim == 4 else "minisblack",
        compression="zlib",
    )


def _cut(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut a picture (h, w, ...) into as many squares as fit."""
    rows, columns = (n // TILE for n in picture.shape[:2])
    whole = picture[: rows * TILE, : columns * TILE]
    parts = whole.reshape(rows, TILE, columns, TILE, *picture.shape[2:])
    return parts.swapaxes(1, 2).reshape(rows * columns, TILE, TILE, *picture.shape[2:])


def main() -> None:
    """Write a mosaic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", type=int, default=20_000, help="pixels")
    parser.add_argument("--folder", type=Path, help="pictures; default: scikit-image's")
    parser.add_argument("--pattern", default="*", help="which files of the folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    choices = squares(arguments.folder, arguments.pattern)
    write_mosaic(arguments.path, arguments.side, choices, arguments.seed)


if __name__ == "__main__":
    main()
