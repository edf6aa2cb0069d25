"""The shared library of torch, loaded while the window goes on.

Python holds its interpreter lock while it loads a library, and that of torch takes a
third of a second and more to set itself up: an import in another thread would stop the
window for so long. A function called through ctypes lets the lock go, so the library
is loaded by one before the import, which then finds it in the process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

_ENDINGS = {"linux": ".so", "darwin": ".dylib"}


def load_torch_library() -> bool:
    """Load what ``import torch`` will need; for a thread beside that of the window.

    Returns
    -------
    bool
        Whether it was loaded. If not, as on Windows, the import does it.
    """
    spec = find_spec("torch")
    ending = _ENDINGS.get(sys.platform)
    if "torch" in sys.modules or spec is None or spec.origin is None or ending is None:
        return False
    folder = Path(spec.origin).parent / "lib"
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    # as torch itself does: the first one is seen by all libraries
    for name, seen in (
        ("libtorch_global_deps", os.RTLD_GLOBAL),
        ("libtorch", os.RTLD_LOCAL),
    ):
        path = os.fsencode(folder / f"{name}{ending}")
        if not load(path, os.RTLD_NOW | seen):
            return False
    return True
