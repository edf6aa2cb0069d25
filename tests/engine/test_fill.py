"""Filling a plane: order of need, clicks in between, background, errors, kills."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import PlaneEmbedding, open_plane
from napari_sam.engine.jobs import run
from napari_sam.engine.turn import DeviceTurn, turn_of
from napari_sam.errors import FileError, FormatError
from napari_sam.images import ImageSource, Intensity
from napari_sam.tiling import Box, CropGrid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.model import Sam

GRAY = Intensity((0,), ((0.0, 255.0),))
SIDE = 128


@pytest.fixture
def plane() -> NDArray[np.uint8]:
    """3 x 3 crops of 128 px without halo; in each, the corner tells its number."""
    pixels = np.random.default_rng(0).integers(50, 200, (384, 384), dtype=np.uint8)
    for i in range(9):
        pixels[i // 3 * SIDE, i % 3 * SIDE] = i
    return pixels


@pytest.fixture
def opened(tiny_sam: Sam, plane: NDArray[np.uint8]) -> Callable[..., PlaneEmbedding]:
    grid = CropGrid((384, 384), size=SIDE, halo=0)

    def of(cache: EmbeddingCache | None = None, image: Any = plane) -> PlaneEmbedding:
        return open_plane(
            image, tiny_sam, cache=cache or EmbeddingCache(), grid=grid, intensity=GRAY
        )

    return of


@pytest.fixture
def order(tiny_sam: Sam, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the crops that the encoder gets, in order."""
    seen: list[int] = []
    encode, preprocess = tiny_sam.encode, tiny_sam.preprocess
    corners: list[int] = []

    def noted(pixels: torch.Tensor) -> torch.Tensor:
        corners.append(int(pixels[0, 0, 0, 0]))
        return preprocess(pixels)

    def counted(inputs: torch.Tensor) -> torch.Tensor:
        seen.extend(corners)
        corners.clear()
        return encode(inputs)

    monkeypatch.setattr(tiny_sam, "preprocess", noted)
    monkeypatch.setattr(tiny_sam, "encode", counted)
    return seen


class TestOrder:
    def test_the_need_may_change_while_it_runs(
        self, opened: Callable[..., PlaneEmbedding], order: list[int]
    ) -> None:
        embedding = opened()
        job = embedding.fill()
        next(job)
        before = len(order)
        assert order == list(range(before))
        embedding.prefer(point=(300, 300), visible=Box(256, 128, 384, 384))
        run(job)
        rest = [8, 7]  # the crop of the point, then what is visible
        assert order[before : before + 2] == rest
        assert sorted(order) == list(range(9))

    def test_neighbours_come_before_the_rest(
        self, opened: Callable[..., PlaneEmbedding], order: list[int]
    ) -> None:
        embedding = opened()
        embedding.prefer(visible=Box(10, 10, 20, 20))
        run(embedding.fill())
        assert order[0] == 0
        assert set(order[1:4]) == {1, 3, 4}
        assert order[-1] == 8

    def test_a_click_goes_before_the_next_crop(
        self,
        opened: Callable[..., PlaneEmbedding],
        order: list[int],
        tiny_sam: Sam,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        embedding = opened()
        encoding, clicked = threading.Event(), threading.Event()
        encode = tiny_sam.encode

        def slow(inputs: torch.Tensor) -> torch.Tensor:
            encoding.set()
            assert clicked.wait(60)
            return encode(inputs)

        monkeypatch.setattr(tiny_sam, "encode", slow)
        filling = threading.Thread(target=lambda: run(embedding.fill()))
        filling.start()
        assert encoding.wait(60)
        click = threading.Thread(target=lambda: embedding.of(embedding.grid[7]))
        click.start()
        turn = turn_of(tiny_sam)
        while turn.n_urgent == 0:
            threading.Event().wait(0.001)
        clicked.set()
        click.join()
        filling.join()
        assert order[:2] == [0, 7]
        assert sorted(order) == list(range(9))  # and 7 is not encoded twice

    def test_a_turn_goes_to_one_thread_at_a_time(self) -> None:
        turn, inside, most = DeviceTurn(), [], []

        def work(urgent: bool) -> None:
            for _ in range(200):
                with turn.take(urgent=urgent), turn.take(urgent=not urgent):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()

        threads = [threading.Thread(target=work, args=(i > 1,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 800


class TestBackground:
    @pytest.fixture
    def sparse(self) -> NDArray[np.uint8]:
        """Noise everywhere, a disc in crop 4, a faint one of 10 px in crop 8."""
        rng = np.random.default_rng(1)
        pixels = rng.normal(20, 2, (384, 384))
        y, x = np.mgrid[:384, :384]
        pixels[(y - 190) ** 2 + (x - 190) ** 2 < 20**2] += 60
        pixels[(y - 320) ** 2 + (x - 330) ** 2 < 5**2] += 5
        return pixels.round().clip(0, 255).astype(np.uint8)

    def test_is_skipped_and_recorded(
        self,
        opened: Callable[..., PlaneEmbedding],
        sparse: NDArray[np.uint8],
        order: list[int],
        tmp_path: Path,
    ) -> None:
        cache = EmbeddingCache(tmp_path / "e")
        steps = list(opened(cache, sparse).fill(skip_background=True))
        assert len(order) == 2
        assert steps[-1].done == 9
        again = opened(EmbeddingCache(tmp_path / "e"), sparse)
        expected = ["skipped"] * 9
        expected[4] = expected[8] = "done"
        assert [again.state(crop) for crop in again.grid] == expected
        assert again.missing() == []
        assert [again.is_background(crop) for crop in again.grid] == [
            state == "skipped" for state in expected
        ]
        (info,) = cache.entries()
        assert (info.n_done, info.n_skipped) == (2, 7)

    def test_can_be_forced(
        self,
        opened: Callable[..., PlaneEmbedding],
        sparse: NDArray[np.uint8],
        order: list[int],
    ) -> None:
        embedding = opened(image=sparse)
        run(embedding.fill(skip_background=True))
        run(embedding.fill())
        assert len(order) == 9
        assert {embedding.state(crop) for crop in embedding.grid} == {"done"}

    def test_a_click_encodes_it(
        self,
        opened: Callable[..., PlaneEmbedding],
        sparse: NDArray[np.uint8],
        order: list[int],
    ) -> None:
        embedding = opened(image=sparse)
        run(embedding.fill(skip_background=True))
        embedding.of(embedding.grid[0])
        assert len(order) == 3
        assert embedding.state(embedding.grid[0]) == "done"


class TestErrors:
    def test_of_reading_name_the_crop(
        self, opened: Callable[..., PlaneEmbedding], plane: NDArray[np.uint8]
    ) -> None:
        class Damaged:
            shape, dtype = plane.shape, plane.dtype

            def __getitem__(self, key: Any) -> Any:
                if key[0].start == 128 and key[1].start == 256:
                    raise FormatError("cannot be decoded")
                return plane[key]

        source = ImageSource(Damaged())
        embedding = opened(image=source)
        with pytest.raises(
            FormatError, match=r"crop 5 \(rows 128 to 256, columns 256 to 384\): cannot"
        ):
            run(embedding.fill())
        states = [embedding.state(crop) for crop in embedding.grid]
        assert states[5:] == ["missing"] * 4

    def test_of_encoding_name_the_crop(
        self,
        opened: Callable[..., PlaneEmbedding],
        tiny_sam: Sam,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(inputs: torch.Tensor) -> torch.Tensor:
            raise KeyError("a fault of ours")

        monkeypatch.setattr(tiny_sam, "encode", broken)
        with pytest.raises(KeyError) as raised:
            run(opened().fill())
        assert raised.value.__notes__ == ["in crop 0 (rows 0 to 128, columns 0 to 128)"]

    def test_of_a_full_disk_leave_a_store_that_goes_on(
        self,
        opened: Callable[..., PlaneEmbedding],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        order: list[int],
    ) -> None:
        embedding = opened(EmbeddingCache(tmp_path / "e"))
        put, n_written = zarr.storage._local._put, []

        def nearly_full(path: Path, *args: Any, **kwargs: Any) -> Any:
            n_written.append(path)
            if len(n_written) > 7:
                raise OSError(28, os.strerror(28))
            return put(path, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr("zarr.storage._local._put", nearly_full)
            with pytest.raises(FileError, match=r"crop \d .*No space left"):
                run(embedding.fill())
        assert EmbeddingCache(tmp_path / "e").verify() == {}
        assert not list(tmp_path.rglob("*.partial"))
        run(opened(EmbeddingCache(tmp_path / "e")).fill())
        whole = opened()
        run(whole.fill())
        for crop in whole.grid:
            torch.testing.assert_close(
                opened(EmbeddingCache(tmp_path / "e")).of(crop), whole.of(crop)
            )


FILL = """
import os, sys, time
import numpy as np
import torch
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import embed
from napari_sam.engine.jobs import run
from napari_sam.images import Intensity
from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.tiling import CropGrid

torch.set_num_threads(1)
torch.manual_seed(0)
model = Sam(VARIANTS["tiny"]).eval()
image = np.random.default_rng(0).integers(0, 256, (640, 640), dtype=np.uint8)
grid = CropGrid((640, 640), size=128, halo=16)
def fill(path):
    gray, cache = Intensity((0,), ((0.0, 255.0),)), EmbeddingCache(path)
    return run(embed(image, model, cache=cache, grid=grid, intensity=gray))

def contents(path):
    cache = EmbeddingCache(path)
    embedding = fill(path)
    return torch.cat([embedding.of(crop) for crop in grid])
"""

KILLS = (
    FILL
    + """
import signal
start = time.perf_counter()
expected = None
child = os.fork()
if child == 0:
    fill(sys.argv[1] + "/undisturbed")
    os._exit(0)
os.waitpid(child, 0)
whole_s = time.perf_counter() - start
killed, done, kept = sys.argv[1] + "/killed", 0, {}
for delay in np.random.default_rng(0).uniform(0, whole_s / 4, 20):
    child = os.fork()
    if child == 0:
        fill(killed)
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    chunks = {}
    for folder, _, names in os.walk(killed):
        if folder.endswith("seals"):
            chunks |= {n: os.stat(os.path.join(folder, n)).st_mtime_ns
                       for n in names if n.startswith("c.") and n.endswith(".0")}
    assert kept.items() <= chunks.items(), "a crop was lost or encoded again"
    kept = chunks
print(len(grid), len(kept))
assert torch.equal(contents(killed), contents(sys.argv[1] + "/undisturbed"))
assert EmbeddingCache(killed).verify() == {}
"""
)

TWO = (
    FILL
    + """
children = []
for _ in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        fill(sys.argv[1] + "/both")
        os._exit(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert EmbeddingCache(sys.argv[1] + "/both").entries()[0].n_done == len(grid)
assert torch.equal(contents(sys.argv[1] + "/both"), contents(sys.argv[1] + "/one"))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, so that it is quick")
@pytest.mark.parametrize("script", [KILLS, TWO], ids=["20-kills", "two-processes"])
def test_real_processes_leave_what_an_undisturbed_one_leaves(
    script: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr


def test_the_pipeline_writes_while_it_encodes(
    opened: Callable[..., PlaneEmbedding],
    tiny_sam: Sam,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedding = opened()
    second = threading.Event()
    encode, write, n_encoded = tiny_sam.encode, embedding._write, []

    def noted(inputs: torch.Tensor) -> torch.Tensor:
        n_encoded.append(1)
        if len(n_encoded) == 2:
            second.set()
        return encode(inputs)

    def slow(kept: Any) -> None:
        assert second.wait(60)  # crop 0 is not written before crop 1 is being encoded
        write(kept)

    monkeypatch.setattr(tiny_sam, "encode", noted)
    monkeypatch.setattr(embedding, "_write", slow)
    run(embedding.fill())
    assert embedding.missing() == []
