"""Embed a plane with micro-sam; run by the Python of an environment that has it.

    python micro_sam_embed.py WEIGHTS.pth IMAGE.npy THREADS

Prints its version and the seconds. Imports nothing of ours.
"""

import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Tiles of 1024 px that overlap by 256, as its documentation advises."""
    import micro_sam
    import numpy as np
    import torch
    from micro_sam.util import get_sam_model, precompute_image_embeddings

    weights, pixels, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    predictor = get_sam_model("vit_b", device="cpu", checkpoint_path=weights)
    image = np.load(pixels)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        precompute_image_embeddings(
            predictor,
            image,
            save_path=str(Path(folder) / "embeddings.zarr"),
            ndim=2,
            tile_shape=(768, 768),
            halo=(128, 128),
            verbose=False,
        )
        seconds = time.perf_counter() - start
    print(micro_sam.__version__, seconds)


if __name__ == "__main__":
    main()
