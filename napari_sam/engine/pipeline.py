"""Reading, encoding and writing side by side, so that the encoder never waits.

Other threads read crops ahead of the encoder and write behind it; the caller's thread
encodes. Which crop comes next is asked anew each time: what was read ahead for an
older need waits until its turn comes.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_sam.errors import NapariSamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_sam.tiling import Crop

Part = TypeVar("Part")
Encoded = TypeVar("Encoded")


@dataclass(frozen=True)
class Stages(Generic[Part, Encoded]):
    """What is done with each crop.

    Parameters
    ----------
    choose : callable
        Returns the next crops, at most so many; none at the end.
    read : callable
        Reads a crop; in another thread.
    encode : callable
        Encodes parts together, in the caller's thread; `choose` must not return their
        crops again. Returns as many, with None for one that needs no writing.
    write : callable
        Stores what was encoded; in another thread.
    """

    choose: Callable[[int], list[Crop]]
    read: Callable[[Crop], Part]
    encode: Callable[[list[Crop], list[Part]], list[Encoded | None]]
    write: Callable[[Encoded], None]


def work_ahead(
    stages: Stages[Part, Encoded], batch: int, threads: int
) -> Iterator[list[Crop]]:
    """Take crops through all stages, several at a time.

    Parameters
    ----------
    stages : Stages
        What is done with each crop.
    batch : int
        Crops encoded together.
    threads : int
        Threads that read, and threads that write.

    Yields
    ------
    list of Crop
        After they were written, in the order in which they were encoded. Closing the
        generator waits for what is being written.

    Raises
    ------
    NapariSamError
        Of a stage, with the crop named. What was encoded before is written first.
    """
    with (
        ThreadPoolExecutor(threads) as readers,
        ThreadPoolExecutor(threads) as writers,
    ):
        line = _Line(stages, readers, writers, batch + threads)
        while crops := line.read_ahead(batch):
            line.encode(crops)
            if len(line.written) > threads:
                yield line.finish_oldest()
        while line.written:
            yield line.finish_oldest()


@dataclass
class _Line(Generic[Part, Encoded]):
    stages: Stages[Part, Encoded]
    readers: ThreadPoolExecutor
    writers: ThreadPoolExecutor
    depth: int
    reading: dict[Crop, Future[Part]] = field(default_factory=dict)
    written: deque[tuple[list[Crop], list[Future[None]]]] = field(default_factory=deque)

    def read_ahead(self, batch: int) -> list[Crop]:
        """Begin to read what comes next; return the crops to encode now."""
        coming = self.stages.choose(self.depth)
        for crop in coming:
            if crop not in self.reading:
                self.reading[crop] = self.readers.submit(self._read, crop)
        # a need that changes again and again must not fill the memory
        for crop in [crop for crop in self.reading if crop not in coming][
            : -self.depth
        ]:
            self.reading.pop(crop).cancel()
        return coming[:batch]

    def encode(self, crops: list[Crop]) -> None:
        parts = [self.reading.pop(crop).result() for crop in crops]
        with naming(crops):
            encoded = self.stages.encode(crops, parts)
        writes = [
            self.writers.submit(self._write, crop, each)
            for crop, each in zip(crops, encoded, strict=True)
            if each is not None
        ]
        self.written.append((crops, writes))

    def finish_oldest(self) -> list[Crop]:
        crops, writes = self.written.popleft()
        for write in writes:
            write.result()
        return crops

    def _read(self, crop: Crop) -> Part:
        with naming([crop]):
            return self.stages.read(crop)

    def _write(self, crop: Crop, encoded: Encoded) -> None:
        with naming([crop]):
            self.stages.write(encoded)


@contextmanager
def naming(crops: list[Crop]) -> Iterator[None]:
    """Say in an error of this block which crops it struck.

    Raises
    ------
    NapariSamError
        Of the class that was raised, with crops and their places in the message.
    """
    where = ", ".join(
        f"crop {crop.index} (rows {crop.box.y0} to {crop.box.y1}, columns "
        f"{crop.box.x0} to {crop.box.x1})"
        for crop in crops
    )
    try:
        yield
    except NapariSamError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        error.add_note(f"in {where}")
        raise
