"""Identity of pixels and of weights, so that a stored embedding is never mistaken.

Both digests depend on content alone, not on names, places or times: a copied file
or a converted checkpoint finds its embeddings again.
"""

from __future__ import annotations

import hashlib
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_sam.errors import FormatError
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from torch import Tensor

    from napari_sam.images import ImageSource
    from napari_sam.model import Sam

FULL_BYTES = 32 * 2**20
"""A plane up to this size is read whole for its fingerprint (ours; 0.1 s)."""

_SAMPLE_SIDE = 256
_DIGEST_BYTES = 16


def fingerprint_plane(
    source: ImageSource, plane: tuple[int, int], channels: tuple[int, ...]
) -> dict[str, Any]:
    """Identify the pixels of a plane, without reading all of a large one.

    Parameters
    ----------
    source : ImageSource
        The image.
    plane : tuple of int
        (frame, slice).
    channels : tuple of int
        Channels that count.

    Returns
    -------
    dict
        JSON values. ``covers`` is "all pixels" up to 32 MiB; else "sample": nine
        blocks of 256 x 256 px spread over the plane, and the size of the file. It is
        "nothing" if some of these pixels cannot be decoded: others may, and whoever
        reads crops will say which.
    """
    dtype = np.dtype(source.array.dtype)
    height, width = source.plane_shape
    n_bytes = height * width * len(channels) * dtype.itemsize
    is_whole = n_bytes <= FULL_BYTES
    boxes = [Box.whole(source.plane_shape)] if is_whole else _sample_boxes(source)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    covers = "all pixels" if is_whole else "sample"
    try:
        for box in boxes:
            pixels = source.read(box, plane, channels=channels)
            digest.update(np.ascontiguousarray(pixels).data)
    except FormatError:
        covers, digest = "nothing", hashlib.blake2b(digest_size=_DIGEST_BYTES)
    file_bytes = None
    path = source.path
    if covers != "all pixels" and path is not None and path.is_file():
        file_bytes = path.stat().st_size
    return {
        "blake2b": digest.hexdigest(),
        "covers": covers,
        "shape": [height, width],
        "channels": list(channels),
        "dtype": dtype.str,
        "file_bytes": file_bytes,
    }


def encoder_digest(model: Sam) -> str:
    """Identify all that turns pixels into embeddings: weights and normalisation.

    Parameters
    ----------
    model : Sam
        The network; the digest follows changes of its parameters.

    Returns
    -------
    str
        sha256 of the image encoder's parameters, 64 hexadecimal digits.
    """
    tensors = {
        **model.image_encoder.state_dict(),
        "pixel_mean": model.pixel_mean,
        "pixel_std": model.pixel_std,
    }
    # a tensor that was neither replaced nor written to since then is the same
    state = tuple((name, t.data_ptr(), _version(t)) for name, t in tensors.items())
    known = _digests.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256(repr(model.config.encoder).encode())
    if model.can_place:
        digest.update(f"not placed, {model.embedding_shape}".encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        plain = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    _digests[model] = (state, digest.hexdigest())
    return digest.hexdigest()


_digests: weakref.WeakKeyDictionary[Sam, tuple[object, str]] = (
    weakref.WeakKeyDictionary()
)


def _version(tensor: Tensor) -> int:
    """Count the writes to a tensor; torch does not count those to inference tensors."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - documented


def _sample_boxes(source: ImageSource) -> list[Box]:
    height, width = source.plane_shape
    rows, columns = (
        np.linspace(0, max(0, length - _SAMPLE_SIDE), 3).astype(int).tolist()
        for length in (height, width)
    )
    return [
        Box(y, x, y + _SAMPLE_SIDE, x + _SAMPLE_SIDE).clip((height, width))
        for y in rows
        for x in columns
    ]
