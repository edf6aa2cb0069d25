"""How faint the faintest labelled object is, for the threshold of background crops.

    python -m benchmarks.background data

Reads every image of a collection (`napari_sam.training.collection`) with its labels,
cuts it into windows of 128 px and prints, for windows with a labelled object and for
empty ones, how many there are, the lowest contrast (`napari_sam.images.background`),
and what share lies below `MIN_CONTRAST` and would be skipped.
"""

import argparse
from pathlib import Path

import numpy as np

from napari_sam import open_image
from napari_sam.images import find_intensity, read_rgb
from napari_sam.images.background import MIN_CONTRAST, block_means, contrast
from napari_sam.tiling import Box
from napari_sam.training.collection import list_images

SIDE = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the collection")
    arguments = parser.parse_args()
    found: dict[bool, list[float]] = {True: [], False: []}
    for each in list_images(arguments.data):
        source, labels = open_image(each.path), open_image(each.labels_path)
        intensity = find_intensity(source)
        height, width = source.plane_shape
        for plane in source.plane_indices():
            for y in range(0, max(height - SIDE, 0) + 1, SIDE):
                for x in range(0, max(width - SIDE, 0) + 1, SIDE):
                    box = Box(y, x, y + SIDE, x + SIDE).clip(source.plane_shape)
                    rgb = read_rgb(source, intensity, box, plane)
                    is_labelled = bool(labels.read(box, plane).any())
                    found[is_labelled].append(contrast([block_means(rgb)]))
    for is_labelled, values in found.items():
        name = "with an object" if is_labelled else "empty"
        below = np.mean(np.array(values) < MIN_CONTRAST)
        print(
            f"{len(values)} windows {name}: lowest contrast {min(values):.1f}, "
            f"{100 * below:.1f} % below {MIN_CONTRAST:g}"
        )


if __name__ == "__main__":
    main()
