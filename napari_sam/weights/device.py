"""Where to compute, and how precisely.

bfloat16 is chosen where the hardware multiplies in it, because elsewhere it is
emulated and slower than float32. float16 is not offered: on a CPU it is slower by a
factor of thirty, and on a GPU SAM's attention scores overflow it.
"""

import logging

import torch

from napari_sam.errors import DeviceError, InputError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")
_AMPERE = (8, 0)  # the first CUDA compute capability with bfloat16 arithmetic


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name, after trying it.

    Parameters
    ----------
    name : str, default "auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or any other name torch knows;
        ``"auto"`` is the first CUDA device, else MPS, else the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    DeviceError
        If there is no such device on this machine.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    # torch says "not compiled with CUDA" by an assertion and "no kernel for this
    # device" by NotImplementedError.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f"device {name!r} cannot be used: {reason}; this machine has "
            f"{', '.join(_available())}"
        ) from error
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision of the encoder, "float32" or "bfloat16".

    Parameters
    ----------
    name : {"auto", "float32", "bfloat16"}
        ``"auto"`` is bfloat16 where the device is faster with it.
    device : torch.device
        Where the encoder runs.

    Returns
    -------
    str

    Raises
    ------
    InputError
        If the name is another one.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is unknown; use one of {PRECISIONS}")
    is_fast = _has_fast_bfloat16(device)
    if name == "auto":
        return "bfloat16" if is_fast else "float32"
    if name == "bfloat16" and not is_fast:
        logger.warning("bfloat16 is emulated on %s; float32 would be faster", device)
    return name


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _available() -> list[str]:
    names = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    if device.type != "cpu":
        return False
    # Not public, but there in torch 2.6 to 2.13; without them float32 is right, too.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
