"""Labels of planes too large to be painted as one layer: levels in zarr.

A change touches the chunks of its box and nothing else: each level is the one before
without every second row and column, so the box of each level follows from the new
values alone, without reading. Where each object lies is known without searching.

Chunks are small and not sharded, since a change rewrites whole shards. Averaging or
most frequent ids were rejected for the levels: the first invents ids, the second reads
more than the box.

zarr is imported where it is used, so that a window is not kept waiting for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_sam.errors import FormatError, InputError
from napari_sam.labels import LabelEdit, PlaneIndex, region_of
from napari_sam.tiling import Box
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import zarr
    from numpy.typing import ArrayLike, NDArray

# Small enough that an object touches few pixels beside its own (measured: with 512 px
# a commit takes twice as long, see benchmarks/napari_plugin.py).
_CHUNK = 256

# Pixels a side of the smallest level: it is shown whole.
_SMALLEST_LEVEL = 1024

# Pixels a side of what is read at a time to find objects.
_SCAN = 2048


class LabelStore:
    """Object ids in zarr, whose smaller levels follow each change.

    It is read and written by index like an array, so that an edit and its inverse
    apply to it as to any other; and it is a `LabelTarget`.

    Parameters
    ----------
    levels : sequence of zarr arrays
        uint32, (..., Y, X), the largest first; each has every second row and column
        of the one before.
    chunks : dict of str to buffer, optional
        What a store in memory keeps them in. Default: they lie on disk.

    Raises
    ------
    FormatError
        If the levels do not fit together.

    Examples
    --------
    >>> store = LabelStore.create((2000, 3000))
    >>> store[10:14, 20:22] = 7
    >>> [level.shape for level in store.levels], store.levels[1][5:7, 10].tolist()
    ([(2000, 3000), (1000, 1500), (500, 750)], [7, 7])
    """

    def __init__(
        self,
        levels: Sequence[zarr.Array[Any]],
        chunks: dict[str, Any] | None = None,
    ) -> None:
        expected = _level_shapes(levels[0].shape, len(levels)) if levels else []
        found = [tuple(level.shape) for level in levels]
        if not levels or found != expected or levels[0].dtype != np.uint32:
            kinds = [str(level.dtype) for level in levels]
            raise FormatError(
                f"levels of shapes {found} and types {kinds} are no label store; "
                "expected uint32, each level half as large as the one before"
            )
        self.levels = list(levels)
        self._chunks = chunks
        # viewers read the smallest level of a plane once and keep it; this one follows
        self._smallest = np.array(levels[-1][...]) if self.ndim == 2 else None
        self._last_id = 0
        # of each plane: a box that holds all pixels of an object, and perhaps more
        self._bounds: dict[PlaneIndex, dict[int, Box]] = {}

    @classmethod
    def create(
        cls, shape: tuple[int, ...], path: str | os.PathLike[str] | None = None
    ) -> LabelStore:
        """Make labels without objects.

        Parameters
        ----------
        shape : tuple of int
            (..., Y, X); only the last two are made smaller.
        path : path, optional
            A folder that does not exist yet. Default: in memory, compressed.

        Raises
        ------
        InputError
            If there are fewer than two axes.
        """
        if len(shape) < 2 or min(shape) < 1:
            raise InputError(f"labels of shape {shape}; give (..., height, width)")
        import zarr
        from zarr.codecs import BloscCodec
        from zarr.storage import MemoryStore

        chunks: dict[str, Any] = {}
        group = zarr.create_group(MemoryStore(chunks) if path is None else path)
        # ten times smaller than lz4 on labels, and as fast
        codec = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
        levels = []
        for number, level in enumerate(_level_shapes(shape)):
            side = [min(_CHUNK, n) for n in level[-2:]]
            levels.append(
                group.create_array(
                    str(number),
                    shape=level,
                    dtype=np.uint32,
                    chunks=(*[1] * (len(shape) - 2), *side),
                    compressors=codec,
                )
            )
        return cls(levels, chunks if path is None else None)

    @classmethod
    def load(cls, path: Path) -> LabelStore:
        """Read labels into memory that `write_chunks` wrote.

        Raises
        ------
        FormatError
            If there are none.
        """
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore

        from_bytes = default_buffer_prototype().buffer.from_bytes
        chunks = {
            file.relative_to(path).as_posix(): from_bytes(file.read_bytes())
            for file in path.rglob("*")
            if file.is_file()
        }
        return cls._opened(MemoryStore(chunks), path, chunks)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LabelStore:
        """Open labels that `create` made, and look through them once.

        Raises
        ------
        FormatError
            If there are none.
        """
        return cls._opened(path, path)

    @classmethod
    def _opened(
        cls,
        place: Any,
        path: str | os.PathLike[str],
        chunks: dict[str, Any] | None = None,
    ) -> LabelStore:
        import zarr

        try:
            arrays = dict(zarr.open_group(place, mode="r+").arrays())
            store = cls([arrays[name] for name in sorted(arrays, key=int)], chunks)
            store._note_all()
        except (OSError, ValueError) as error:
            raise FormatError(
                f"{path} holds no label store ({error}); give the folder that was "
                "chosen when the labels were made"
            ) from error
        return store

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, of the largest level."""
        return tuple(self.levels[0].shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[np.uint32]:
        """Type of the ids."""
        return np.dtype(np.uint32)

    def copied_chunks(self) -> dict[str, Any]:
        """Return the compressed chunks of a store in memory, for `write_chunks`.

        They never change, so the copy costs nothing and stays as it is.

        Raises
        ------
        InputError
            If the store lies on disk.
        """
        if self._chunks is None:
            raise InputError("these labels are on disk already; copy their folder")
        return dict(self._chunks)

    @property
    def shown_levels(self) -> list[Any]:
        """The levels for a viewer; of a single plane the last one is in memory."""
        if self._smallest is None:
            return list(self.levels)
        return [*self.levels[:-1], self._smallest]

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:
        return np.asarray(self.levels[0][key], np.uint32)

    def __setitem__(self, key: Any, values: ArrayLike) -> None:
        parts = key if isinstance(key, tuple) else (key,)
        plane, sides = parts[:-2], parts[-2:]
        if (
            len(parts) != self.ndim
            or not all(isinstance(part, slice) for part in sides)
            or any(isinstance(part, slice) for part in plane)
        ):
            raise InputError(
                f"index {key} of labels with {self.ndim} axes; give a slice for the "
                "last two axes and a number for each other"
            )
        y, x = (_span(side, n) for side, n in zip(sides, self.shape[-2:], strict=True))
        box = Box(y[0], x[0], y[1], x[1])
        if box.area == 0:
            return
        ids = np.broadcast_to(np.asarray(values, np.uint32), box.shape)
        self._note((*plane, None, None), box, ids)
        self._put(plane, box, ids)

    def read(self, index: PlaneIndex, box: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels of a box of a plane."""
        return np.array(self[region_of(index, box)])

    def write(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits, in order."""
        for edit in edits:
            edit.apply(self)

    def draw(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits that are no step yet."""
        self.write(edits)

    def undo(self, edits: Sequence[LabelEdit]) -> None:
        """Take edits back, the last first."""
        for edit in reversed(edits):
            edit.inverse().apply(self)

    def redo(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits again."""
        self.write(edits)

    def fresh_ids(self, n: int) -> list[int]:
        """Return ids above all that were ever used."""
        return list(range(self._last_id + 1, self._last_id + 1 + n))

    def box_of(self, index: PlaneIndex, object_id: int) -> Box | None:
        """Return the smallest box around an object of a plane; None without it."""
        bounds = self._bounds.get(tuple(index), {})
        if object_id not in bounds:
            return None
        outer = bounds.pop(object_id)
        inner = Box.around(self.read(index, outer) == object_id)
        if inner is None:
            return None
        bounds[object_id] = inner.shift(outer.y0, outer.x0)
        return bounds[object_id]

    def boxes(self, index: PlaneIndex) -> dict[int, Box]:
        """Return where the objects of a plane lie; a box may be larger than needed."""
        return dict(self._bounds.get(tuple(index), {}))

    def _put(self, plane: tuple[Any, ...], box: Box, ids: NDArray[np.uint32]) -> None:
        for number, level in enumerate(self.levels):
            if number > 0:
                # what an odd row or column begins with is not on the next level
                ids = ids[box.y0 % 2 :: 2, box.x0 % 2 :: 2]
                sides = (-(-edge // 2) for edge in (box.y0, box.x0, box.y1, box.x1))
                box = Box(*sides)
            if 0 in ids.shape:
                return
            level[(*plane, *box.slices)] = ids
        if self._smallest is not None:
            self._smallest[box.slices] = ids

    def _note_all(self) -> None:
        """Look where objects lie; chunks in memory that do not exist have none."""
        if self._chunks is None:
            for index in _plane_indices(self.shape):
                for box in _blocks(self.shape[-2:]):
                    self._note(index, box, self.read(index, box))
            return
        height, width = self.levels[0].chunks[-2:]
        plane_shape = self.shape[-2], self.shape[-1]
        for name in self._chunks:
            if name.startswith("0/c/"):
                *plane, row, column = (int(part) for part in name.split("/")[2:])
                y0, x0 = row * height, column * width
                box = Box(y0, x0, y0 + height, x0 + width).clip(plane_shape)
                index = (*plane, None, None)
                self._note(index, box, self.read(index, box))

    def _note(self, index: PlaneIndex, box: Box, ids: NDArray[np.uint32]) -> None:
        """Remember where objects lie that are written."""
        highest = int(ids.max(initial=0))
        if highest == 0:
            return
        self._last_id = max(self._last_id, highest)
        lowest = int(ids[ids > 0].min())
        numbers: Sequence[int]
        places: NDArray[np.signedinteger[Any]]
        if highest - lowest < ids.size:  # sorting all pixels takes ten times as long
            numbers = range(lowest, highest + 1)
            places = np.where(ids > 0, ids - np.uint32(lowest - 1), 0).astype(np.int32)
        else:
            found, places = np.unique(ids, return_inverse=True)
            numbers = found[found > 0].tolist()
            places = places.reshape(ids.shape) + int(found[0] > 0)
        bounds = self._bounds.setdefault(tuple(index), {})
        for number, region in zip(numbers, ndimage.find_objects(places), strict=True):
            if region is not None:
                rows, columns = region
                part = Box(rows.start, columns.start, rows.stop, columns.stop)
                part = part.shift(box.y0, box.x0)
                bounds[number] = part.union(bounds.get(number, part))


def write_chunks(chunks: Mapping[str, Any], path: Path) -> None:
    """Write what `LabelStore.copied_chunks` gave, as a Zarr folder.

    Parameters
    ----------
    chunks : mapping of str to buffer
    path : Path
        A folder; one that exists is replaced as a whole.
    """
    with atomic(path, overwrite=True) as part:
        for name, chunk in chunks.items():
            file = part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(chunk.to_bytes())


def _level_shapes(
    shape: tuple[int, ...], n_levels: int | None = None
) -> list[tuple[int, ...]]:
    """Shapes of the levels; by default down to one that is shown whole."""
    shapes = [tuple(shape)]
    while (
        max(shapes[-1][-2:]) > _SMALLEST_LEVEL
        if n_levels is None
        else len(shapes) < n_levels
    ):
        half = tuple(-(-n // 2) for n in shapes[-1][-2:])
        shapes.append((*shapes[-1][:-2], *half))
    return shapes


def _span(part: slice, length: int) -> tuple[int, int]:
    start, stop, step = part.indices(length)
    if step != 1:
        raise InputError(f"slice {part}; use a step of 1")
    return start, max(start, stop)


def _plane_indices(shape: tuple[int, ...]) -> Iterator[PlaneIndex]:
    return ((*plane, None, None) for plane in np.ndindex(*shape[:-2]))


def _blocks(shape: tuple[int, ...]) -> Iterator[Box]:
    height, width = shape
    for y0 in range(0, height, _SCAN):
        for x0 in range(0, width, _SCAN):
            yield Box(y0, x0, y0 + _SCAN, x0 + _SCAN).clip((height, width))
