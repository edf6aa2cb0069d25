"""One entry of the store: the embeddings of one set of crops, and their seals."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import ContainsArrayError, ContainsGroupError

from napari_sam.errors import CacheMismatchError, FileError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEAL_BYTES = 16
"""Length of the digest that marks a crop as complete."""

logger = logging.getLogger(__name__)


class CacheEntry:
    """Embeddings of one set of crops; made by `EmbeddingCache.entry`.

    Parameters
    ----------
    group : zarr.Group
        The entry's folder.
    """

    def __init__(self, group: zarr.Group) -> None:
        self.name = group.basename
        self.key = cast("dict[str, Any]", group.attrs["key"])
        self._embeddings = cast("zarr.Array[Any]", group["embeddings"])
        self._seals = cast("zarr.Array[Any]", group["seals"])

    @property
    def n_crops(self) -> int:
        """Number of crops, present or not."""
        return int(self._embeddings.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one embedding, (C, e, e)."""
        return tuple(int(n) for n in self._embeddings.shape[1:])

    @property
    def stored_bytes(self) -> int:
        """Size after compression, in bytes."""
        return int(self._embeddings.nbytes_stored() + self._seals.nbytes_stored())

    def done(self) -> NDArray[np.bool_]:
        """Return which crops are present, (n,) bool."""
        try:
            seals = np.asarray(self._seals[:])
        except ValueError:
            # one damaged seal must not hide the others
            return np.array([self.seal(i) is not None for i in range(self.n_crops)])
        present: NDArray[np.bool_] = np.any(seals != 0, axis=1)
        return present

    def seal(self, index: int) -> bytes | None:
        """Return the digest written with a crop, or None if the crop is absent."""
        try:
            seal = np.asarray(self._seals[index])
        except ValueError:
            logger.warning("seal of crop %d in %s is damaged", index, self.name)
            return None
        return seal.tobytes() if seal.any() else None

    def read(self, index: int) -> NDArray[np.floating[Any]]:
        """Read the embedding of a crop that is present.

        Parameters
        ----------
        index : int
            Number of the crop.

        Returns
        -------
        (C, e, e) array, float16 or float32

        Raises
        ------
        CacheMismatchError
            If its chunk is damaged or missing.
        """
        try:
            embedding = np.asarray(self._embeddings[index])
        except ValueError as error:
            raise CacheMismatchError(
                f"crop {index} of the stored embeddings {self.name} is damaged "
                f"({error}); embed it again"
            ) from error
        # zarr fills in NaN for a chunk that is not there
        if np.isnan(embedding.flat[0]):
            raise CacheMismatchError(
                f"crop {index} of the stored embeddings {self.name} is missing; "
                "embed it again"
            )
        return embedding

    def write(self, index: int, embedding: NDArray[Any], seal: bytes) -> None:
        """Write the embedding of a crop, then its seal.

        Parameters
        ----------
        index : int
            Number of the crop.
        embedding : (C, e, e) array
            Rounded to the stored type.
        seal : bytes
            16 bytes, not all zero: the digest of the pixels that were encoded.

        Raises
        ------
        InputError
            If values do not fit the stored type, or the seal has another length.
        FileError
            If the store cannot be written, for example because the disk is full.
        """
        if len(seal) != SEAL_BYTES or not any(seal):
            raise InputError(f"seal {seal!r}; give {SEAL_BYTES} bytes, not all zero")
        dtype = self._embeddings.dtype
        with np.errstate(over="ignore"):
            stored = np.asarray(embedding).astype(dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                f"crop {index} has an embedding beyond the range of {dtype}; use "
                "EmbeddingCache(dtype='float32'), or other weights if it is not finite"
            )
        with writing(self.name):
            self._embeddings[index : index + 1] = stored[None]
            self._seals[index : index + 1] = np.frombuffer(seal, np.uint8)[None]


def open_entry(
    root: zarr.Group, name: str, key: dict[str, Any], shape: tuple[int, ...]
) -> CacheEntry:
    """Open an entry, or make it.

    Parameters
    ----------
    root : zarr.Group
        The store.
    name : str
        Folder of the entry.
    key : dict
        JSON values; ``dtype`` is the stored type.
    shape : tuple of int
        (n, C, e, e).

    Raises
    ------
    CacheMismatchError
        If the folder holds another key, or is damaged.
    FileError
        If it cannot be written.
    """
    try:
        with writing(name):
            group = require_group(root.store, name, {"key": key})
            _require_array(
                group,
                "embeddings",
                shape,
                str(key["dtype"]),
                # lz4 with bitshuffle was the fastest to come under 2 MiB (measured)
                [BloscCodec(cname="lz4", clevel=1, shuffle="bitshuffle")],
            )
            _require_array(group, "seals", (shape[0], SEAL_BYTES), "uint8", [])
            entry = CacheEntry(group)
    except (ValueError, KeyError) as error:
        raise CacheMismatchError(
            f"the stored embeddings {name} are damaged ({error}); "
            "remove this folder of the store"
        ) from error
    if entry.key != key or (entry.n_crops, *entry.shape) != shape:
        raise CacheMismatchError(
            f"the stored embeddings {name} belong to the key {entry.key}, not to "
            f"{key}; remove this folder of the store"
        )
    return entry


def require_group(store: Any, path: str, attributes: dict[str, Any]) -> zarr.Group:
    """Open a group of a store, or make it with these attributes."""
    try:
        return zarr.open_group(
            store, path=path, mode="a", zarr_format=3, attributes=attributes
        )
    except ContainsGroupError:
        # another process made it between our look and our write
        return zarr.open_group(store, path=path, mode="r+")


def _require_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    compressors: list[Any],
) -> None:
    if name in group:
        return
    # NaN marks a chunk that is absent, so even one full of zeros must be written
    fill_value = float("nan") if dtype.startswith("float") else 0
    with contextlib.suppress(ContainsArrayError):
        group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            dtype=dtype,
            compressors=[*compressors, Crc32cCodec()],
            fill_value=fill_value,
            config={"write_empty_chunks": True},
        )


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Say in words what went wrong where a block cannot write.

    Raises
    ------
    FileError
        In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise FileError(
            f"cannot write embeddings to {name}: {error.strerror or error}; free some "
            "space, or choose a folder that can be written"
        ) from error
