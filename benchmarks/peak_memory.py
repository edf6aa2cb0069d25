"""Print how many MiB a ViT-B encoder takes above its weights, in a process of its own.

python -m benchmarks.peak_memory ours|reference
"""

import resource
import sys
from pathlib import Path

import torch

from benchmarks.encoder_decoder import networks


def peak_mib() -> float:
    """Return the most memory that this program has held.

    What `resource` knows begins with the memory of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


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
