"""How much time and space it costs to keep embeddings.

    python benchmarks/embedding_store.py [folder]

Prints milliseconds to write and to read a crop of the default model, bytes a crop, how
long a store of 10,000 crops takes to open, and what share of the encoder's time
everything else takes, for a made-up plane of noise and discs. Then other ways to
compress a crop: milliseconds and bytes of each, the store's own first.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numcodecs import Blosc

from napari_sam import load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

N_CROPS = 20
N_MANY = 10_000


def main(folder: Path) -> None:
    """Measure and print, in a folder that is empty."""
    values = measure_plane(folder / "plane")
    measure_crops(folder / "speed", values)
    measure_codecs(values)
    measure_many(folder / "many")


def measure_plane(store: Path) -> NDArray[np.float32]:
    """Embed a plane; return one of its embeddings."""
    model = load_model(device="cpu", precision="float32")
    size = model.config.image_size
    plane = np.random.default_rng(0).integers(0, 60, (size, 2 * size), dtype=np.uint8)
    y, x = np.mgrid[:size, : 2 * size]
    plane[(y % 80 - 40) ** 2 + (x % 80 - 40) ** 2 < 20**2] += 120

    encoder_s = 0.0
    encode = model.encode

    def timed(inputs: Tensor) -> Tensor:
        nonlocal encoder_s
        start = time.perf_counter()
        encoded = encode(inputs)
        encoder_s += time.perf_counter() - start
        return encoded

    model.encode = timed  # type: ignore[method-assign,assignment]
    embedding = open_plane(plane, model, cache=EmbeddingCache(store))
    start = time.perf_counter()
    run(embedding.fill())
    whole_s = time.perf_counter() - start
    n_crops = len(embedding.grid)
    (info,) = EmbeddingCache(store).entries()
    print(f"{n_crops} crops: {whole_s:.2f} s, encoder {encoder_s:.2f} s, ", end="")
    print(f"all else {100 * (whole_s / encoder_s - 1):.1f} %")
    print(f"a crop: {info.stored_bytes / n_crops / 2**20:.2f} MiB on disk")
    return embedding.of(embedding.grid[0])[0].numpy()


def measure_crops(store: Path, values: NDArray[np.float32]) -> None:
    """Write and read one crop after the other."""
    entry = EmbeddingCache(store).entry({"x": 1}, N_CROPS, values.shape)
    writing, reading = [], []
    for i in range(N_CROPS):
        start = time.perf_counter()
        entry.write(i, values, bytes([1] * 16))
        writing.append(time.perf_counter() - start)
    for i in range(N_CROPS):
        start = time.perf_counter()
        entry.read(i)
        reading.append(time.perf_counter() - start)
    print(f"write {1e3 * np.median(writing):.1f} ms, read ", end="")
    print(f"{1e3 * np.median(reading):.1f} ms a crop (median of {N_CROPS})")


def measure_codecs(values: NDArray[np.float32]) -> None:
    """Compress one crop in several ways; medians."""
    raw = np.ascontiguousarray(values, np.float16)
    ways = [("lz4", 1, Blosc.BITSHUFFLE), ("lz4", 5, Blosc.BITSHUFFLE)]
    ways += [("lz4", 1, Blosc.SHUFFLE), ("lz4", 1, Blosc.NOSHUFFLE)]
    ways += [(name, 1, Blosc.BITSHUFFLE) for name in ("blosclz", "zstd", "zlib")]
    names = {Blosc.BITSHUFFLE: "bits", Blosc.SHUFFLE: "bytes", Blosc.NOSHUFFLE: "none"}
    for name, level, shuffle in ways:
        codec, writing, reading = Blosc(name, level, shuffle), [], []
        for _ in range(N_CROPS):
            start = time.perf_counter()
            packed = codec.encode(raw)
            middle = time.perf_counter()
            codec.decode(packed)
            writing.append(middle - start)
            reading.append(time.perf_counter() - middle)
        times = f"{1e3 * np.median(writing):.1f} + {1e3 * np.median(reading):.1f} ms"
        way = f"{name} {level}, shuffled {names[shuffle]}"
        print(f"{way}: {times}, {len(packed) / 2**20:.2f} MiB")


def measure_many(store: Path) -> None:
    """Open a store of many crops."""
    many = EmbeddingCache(store).entry({"x": 1}, N_MANY, (1, 2, 2))
    marks = store / many.name / "seals"
    many.write(0, np.ones((1, 2, 2)), bytes([1] * 16))
    for i in range(1, N_MANY):
        (marks / f"c.{i}.0").write_bytes((marks / "c.0.0").read_bytes())
    start = time.perf_counter()
    entry = EmbeddingCache(store).entry({"x": 1}, N_MANY, (1, 2, 2))
    n_done = int(entry.done().sum())
    print(f"open a store and list {n_done} crops: {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as path:
        main(Path(path))
