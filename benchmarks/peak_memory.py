"""Print how many MiB a ViT-B encoder takes above its weights, in a process of its own.

python -m benchmarks.peak_memory ours|reference
"""

import sys

import torch

from benchmarks.encoder_decoder import networks
from benchmarks.process import peak_mib


def main() -> None:
    """Encode one small frame, so that libraries are loaded, then one whole."""
    ours, reference = networks("vit_b", device="cpu", precision="float32")
    encode = ours.encode if sys.argv[1] == "ours" else reference.image_encoder
    x = torch.randn(1, 3, 1024, 1024)
    with torch.inference_mode():
        before = peak_mib()
        encode(x)
    print(f"{peak_mib() - before:.1f}")


if __name__ == "__main__":
    main()
