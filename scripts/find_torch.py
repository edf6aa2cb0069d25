"""Print the folder from which this Python imports a torch that is new enough.

Exit status 1, without a word, where there is none: setup_env.sh then installs one.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    """Look for torch >= 2.6 and import it, so that a broken one does not count."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return 1
    try:
        import torch
    except (ImportError, OSError):
        return 1
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 6):
        return 1
    print(Path(spec.origin).parent.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
