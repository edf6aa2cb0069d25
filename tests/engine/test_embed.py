"""Embeddings of planes: encoded once, on demand, and never mistaken for others."""

import copy
import dataclasses
import math
import os
import warnings

import numpy as np
import pytest
import tifffile
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from napari_sam.cache import EmbeddingCache
from napari_sam.engine import fingerprint
from napari_sam.engine.embed import default_grid, embed, open_plane
from napari_sam.engine.jobs import run
from napari_sam.errors import DeviceError, InputError, NapariSamWarning
from napari_sam.images import ImageSource, Intensity
from napari_sam.readers import open_image
from napari_sam.tiling import Box, CropGrid

GRAY = Intensity((0,), ((0.0, 255.0),))


@pytest.fixture
def plane():
    """A plane that takes 3 x 3 crops of 128 px."""
    return np.random.default_rng(0).integers(0, 256, (300, 290), dtype=np.uint8)


@pytest.fixture
def encoded(tiny_sam, monkeypatch):
    """The shapes of all inputs that the encoder gets."""
    calls = []
    encode = tiny_sam.encode

    def counted(x):
        calls.append(tuple(x.shape))
        return encode(x)

    monkeypatch.setattr(tiny_sam, "encode", counted)
    return calls


def test_embed_encodes_each_crop_once(tiny_sam, plane, encoded):
    steps = []
    job = embed(plane, tiny_sam)
    while True:
        try:
            steps.append(next(job))
        except StopIteration as stop:
            embedding = stop.value
            break
    assert encoded == [(1, 3, 128, 128)] * 9
    assert [(step.done, step.total) for step in steps] == [(i, 9) for i in range(1, 10)]
    assert [step.value[0].index for step in steps] == list(range(9))
    for crop in embedding.grid:
        assert embedding.of(crop).shape == (1, 32, 8, 8)
    assert len(encoded) == 9


def test_an_embedding_is_what_the_network_says(tiny_sam, plane):
    embedding = open_plane(plane, tiny_sam, intensity=GRAY)
    crop = embedding.grid[4]
    rgb = np.repeat(plane[crop.box.slices][None], 3, axis=0)
    with torch.inference_mode():
        expected = tiny_sam.encode(tiny_sam.preprocess(torch.from_numpy(rgb)[None]))
    expected = expected.half().float()  # as it is kept
    torch.testing.assert_close(embedding.of(crop), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_answer_does_not_depend_on_whether_it_is_kept(tiny_sam, plane, dtype):
    cache = EmbeddingCache(dtype=dtype)
    kept = open_plane(plane, tiny_sam, cache=cache, intensity=GRAY)
    plain = open_plane(plane, tiny_sam, intensity=GRAY)
    same = torch.equal(kept.of(kept.grid[0]), plain.of(plain.grid[0]))
    assert same == (dtype == "float16")


def test_what_float16_cannot_hold_is_not_rounded_where_nothing_is_kept(
    tiny_sam, plane, monkeypatch
):
    large = torch.full((1, 32, 8, 8), 1e5)
    monkeypatch.setattr(tiny_sam, "encode", lambda x: large)
    embedding = open_plane(plane, tiny_sam, intensity=GRAY)
    assert torch.equal(embedding.of(embedding.grid[0]), large)
    refusing = open_plane(plane, tiny_sam, cache=EmbeddingCache(), intensity=GRAY)
    with pytest.raises(InputError, match="beyond the range of float16"):
        refusing.of(refusing.grid[0])


def test_a_click_waits_for_one_crop_only(tiny_sam, plane, encoded):
    embedding = open_plane(plane, tiny_sam, cache=EmbeddingCache())
    crop = embedding.grid.crop_at(150, 150)
    embedding.of(crop)
    embedding.of(crop)
    assert len(encoded) == 1
    assert [c.index for c in embedding.missing()] == [0, 1, 2, 3, 5, 6, 7, 8]
    run(embedding.fill())
    assert len(encoded) == 9


def test_without_cache_only_a_few_are_kept(tiny_sam, plane, encoded):
    embedding = open_plane(plane, tiny_sam)
    for crop in [*embedding.grid, embedding.grid[8], embedding.grid[0]]:
        embedding.of(crop)
    assert len(encoded) == 10


def test_a_second_process_finds_everything(tiny_sam, plane, encoded, tmp_path):
    first = run(embed(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e")))
    again = run(embed(plane.copy(), tiny_sam, cache=EmbeddingCache(tmp_path / "e")))
    assert len(encoded) == 9
    for crop in again.grid:
        torch.testing.assert_close(again.of(crop), first.of(crop), rtol=0, atol=0)


def test_an_interrupted_job_resumes(tiny_sam, plane, encoded, tmp_path):
    job = embed(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    for _ in range(4):
        next(job)
    job.close()
    n_encoded = len(encoded)  # the last are written while the first are reported
    assert 4 <= n_encoded < 9
    embedding = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    assert [embedding.state(crop) for crop in embedding.grid] == (
        ["done"] * n_encoded + ["missing"] * (9 - n_encoded)
    )
    steps = list(embedding.fill())
    assert len(encoded) == 9
    assert [step.done for step in steps] == list(range(n_encoded + 1, 10))


def test_answers_do_not_depend_on_what_was_stored(tiny_sam, plane, tmp_path):
    fresh = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    first = fresh.of(fresh.grid[0])
    stored = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    torch.testing.assert_close(stored.of(stored.grid[0]), first, rtol=0, atol=0)


def test_crops_near_the_point_come_first(tiny_sam, plane):
    embedding = open_plane(plane, tiny_sam, cache=EmbeddingCache())
    embedding.prefer(point=(280, 10))
    order = [crop.index for crop in embedding.missing()]
    assert order[0] == 6
    assert set(order[1:4]) == {3, 4, 7}
    assert order[-1] == 2


@pytest.mark.parametrize(
    "change",
    ["pixel", "plane", "limits", "invert", "grid", "weights", "mean", "precision"],
)
def test_whatever_changes_the_embedding_is_another_entry(
    tiny_sam, encoded, change, tmp_path
):
    stack = np.random.default_rng(0).integers(0, 256, (2, 100, 120), dtype=np.uint8)
    stack[1] = stack[0]
    cache = EmbeddingCache(tmp_path / "e")

    def n_encoded(array=stack, model=tiny_sam, plane=(0, 0), intensity=GRAY, **grid):
        before = len(encoded)
        source = ImageSource(array, "ZYX")
        cut = CropGrid((100, 120), size=128, **{"halo": 16, **grid})
        run(
            embed(
                source,
                model,
                cache=cache,
                grid=cut,
                plane=plane,
                intensity=intensity,
            )
        )
        return len(encoded) - before

    assert n_encoded() == 1
    assert n_encoded() == 0
    if change == "pixel":
        stack[0, 99, 119] ^= 1
        assert n_encoded() == 1
    elif change == "plane":
        assert n_encoded(plane=(0, 1)) == 1
    elif change == "limits":
        assert n_encoded(intensity=Intensity((0,), ((0.0, 254.0),))) == 1
    elif change == "invert":
        assert n_encoded(intensity=dataclasses.replace(GRAY, invert=True)) == 1
    elif change == "grid":
        assert n_encoded(scale=0.5) == 1
    elif change == "precision":
        tiny_sam.precision = "bfloat16"
        try:
            assert n_encoded() == 1
        finally:
            tiny_sam.precision = "float32"
    else:
        other = copy.deepcopy(tiny_sam)
        with torch.no_grad():
            changed = {
                "weights": next(other.image_encoder.parameters()),
                "mean": other.pixel_mean,
            }[change]
            changed.view(-1)[0] += 0.5
        n_encoded(model=other)
        assert len(cache.entries()) == 2


def test_training_on_changes_the_digest(tiny_sam):
    model = copy.deepcopy(tiny_sam)
    before = fingerprint.encoder_digest(model)
    assert before == fingerprint.encoder_digest(tiny_sam)
    optimizer = torch.optim.SGD(model.image_encoder.parameters(), lr=0.1)
    model.encode(torch.randn(1, 3, 128, 128)).mean().backward()
    optimizer.step()
    assert fingerprint.encoder_digest(model) != before
    model.load_state_dict(tiny_sam.state_dict())
    assert fingerprint.encoder_digest(model) == before


def test_the_decoder_does_not_matter_to_the_digest(tiny_sam):
    model = copy.deepcopy(tiny_sam)
    with torch.no_grad():
        next(model.mask_decoder.parameters()).zero_()
    assert fingerprint.encoder_digest(model) == fingerprint.encoder_digest(tiny_sam)


class TestLargePlane:
    """Planes of which the fingerprint covers a sample only."""

    @pytest.fixture(autouse=True)
    def small_limit(self, monkeypatch):
        monkeypatch.setattr(fingerprint, "FULL_BYTES", 50_000)
        monkeypatch.setattr(fingerprint, "_SAMPLE_SIDE", 20)

    def test_it_is_not_read_whole(self, plane):
        read = []

        class Counted:
            shape, dtype = plane.shape, plane.dtype

            def __getitem__(self, key):
                read.append(plane[key].size)
                return plane[key]

        found = fingerprint.fingerprint_plane(ImageSource(Counted()), (0, 0), (0,))
        assert found["covers"] == "sample"
        assert read == [400] * 9

    def test_a_change_outside_the_sample_is_noticed(self, tiny_sam, plane, encoded):
        cache = EmbeddingCache()
        run(embed(plane, tiny_sam, cache=cache, intensity=GRAY))
        plane[50, 50] ^= 1  # only crop 0 sees it, the sample does not
        embedding = open_plane(plane, tiny_sam, cache=cache, intensity=GRAY)
        fresh = open_plane(plane, tiny_sam, intensity=GRAY)
        assert embedding.missing() == []
        del encoded[:]
        for crop in (embedding.grid[0], embedding.grid[8]):
            embedding.of(crop)
        assert len(encoded) == 1
        expected = fresh.of(fresh.grid[0]).half().float()
        torch.testing.assert_close(embedding.of(embedding.grid[0]), expected)

    def test_a_copied_file_finds_its_embeddings(
        self, tiny_sam, plane, encoded, tmp_path
    ):
        for name in ("a.tif", "b.tif"):
            tifffile.imwrite(tmp_path / name, plane)
            source = open_image(tmp_path / name)
            cache = EmbeddingCache(tmp_path / "e")
            run(embed(source, tiny_sam, cache=cache, intensity=GRAY))
        assert len(encoded) == 9


def test_a_damaged_crop_is_reported_and_encoded_again(
    tiny_sam, plane, encoded, tmp_path
):
    first = run(embed(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e")))
    (chunk,) = tmp_path.glob("e/*/embeddings/c.4.0.0.0")
    chunk.write_bytes(b"\0" * 100)
    again = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    crop = again.grid[4]
    with pytest.warns(NapariSamWarning, match=r"crop 4 .* damaged.* again now"):
        repaired = again.of(crop)
    assert len(encoded) == 10
    torch.testing.assert_close(repaired, first.of(crop), rtol=0, atol=0)
    assert EmbeddingCache(tmp_path / "e").verify() == {}


def test_a_click_on_a_stored_crop_reads_one_chunk(
    tiny_sam, plane, encoded, tmp_path, monkeypatch
):
    run(embed(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e")))
    embedding = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    (entry,) = EmbeddingCache(tmp_path / "e").entries()
    reads = []
    get = zarr.storage._local._get
    monkeypatch.setattr(
        "zarr.storage._local._get",
        lambda path, *args: reads.append(path.as_posix()) or get(path, *args),
    )
    crop = embedding.grid[4]
    embedding.of(crop)
    assert [path.partition(f"{entry.name}/")[2] for path in reads] == [
        "seals/c.4.0",
        "embeddings/c.4.0.0.0",
    ]
    embedding.of(crop)
    assert len(reads) == 2
    assert len(encoded) == 9


def test_small_planes_are_enlarged_as_the_reference_does(tiny_sam, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    seen = []
    preprocess = tiny_sam.preprocess
    monkeypatch.setattr(
        tiny_sam, "preprocess", lambda x: seen.append(x.clone()) or preprocess(x)
    )
    embedding = open_plane(image, tiny_sam)
    embedding.of(embedding.grid[0])
    pil = np.asarray(
        Image.fromarray(image).resize((102, 128), Image.Resampling.BILINEAR)
    )
    assert seen[0].shape == (1, 3, 128, 102)
    difference = seen[0][0].permute(1, 2, 0).int() - torch.from_numpy(pil.astype(int))
    assert difference.abs().max() <= 1


def test_batches_give_the_same_embeddings(tiny_sam, plane, encoded):
    one = run(embed(plane, tiny_sam, intensity=GRAY))
    four = open_plane(plane, tiny_sam, cache=EmbeddingCache(), intensity=GRAY)
    del encoded[:]
    run(four.fill(batch=4))
    assert [shape[0] for shape in encoded] == [4, 4, 1]
    for crop in one.grid:
        # float16 keeps 11 bits
        torch.testing.assert_close(four.of(crop), one.of(crop), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [None, 0.3, 1.0, 2.5])
def test_crop_around_shows_the_region_whole(tiny_sam, scale):
    embedding = open_plane(
        np.zeros((300, 290), np.uint8),
        tiny_sam,
        grid=CropGrid((300, 290), size=128, halo=16, scale=scale),
        intensity=GRAY,
    )

    @given(
        y=st.integers(0, 299),
        x=st.integers(0, 289),
        height=st.integers(1, 300),
        width=st.integers(1, 290),
    )
    def check(y, x, height, width):
        region = Box(y, x, y + height, x + width).clip((300, 290))
        crop = embedding.crop_around(region)
        assert crop.box.contains(region)
        assert Box(0, 0, 300, 290).contains(crop.box)
        assert max(crop.input_shape) <= 128
        # the same scale on both sides, but for rounding to whole input pixels
        margin = math.ceil(max(region.shape) / 6)
        wanted = Box(y - margin, x - margin, region.y1 + margin, region.x1 + margin)
        zoom = min(embedding.grid.zoom, 128 / max(wanted.clip((300, 290)).shape))
        assert np.abs(np.array(crop.box.shape) * zoom - crop.input_shape).max() <= 0.51
        # context on each side, unless the plane ends there
        margin -= 1.5
        assert crop.box.y0 == 0 or region.y0 - crop.box.y0 >= margin
        assert crop.box.x1 == 290 or crop.box.x1 - region.x1 >= margin
        # on the cells of the grid, if the region leaves room for it
        cell = 8 / zoom
        if max(wanted.shape) + cell + 2 <= 128 / zoom:
            for start in (crop.box.y0, crop.box.x0):
                assert abs(start - round(start / cell) * cell) <= 0.5

    check()


def test_crop_around_is_stored_like_others(tiny_sam, plane, encoded, tmp_path):
    def of(region):
        embedding = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
        return embedding.of(embedding.crop_around(region))

    region = Box(20, 20, 220, 200)
    torch.testing.assert_close(of(region), of(region), rtol=0, atol=0)
    assert encoded == [(1, 3, 128, 128)]


class TestRefused:
    def test_a_grid_for_another_plane(self, tiny_sam, plane):
        with pytest.raises(InputError, match=r"\(64, 64\) px in crops of 128"):
            open_plane(plane, tiny_sam, grid=CropGrid((64, 64), size=128, halo=16))

    def test_a_grid_for_another_input_size(self, tiny_sam, plane):
        with pytest.raises(InputError, match="takes 128 px"):
            open_plane(plane, tiny_sam, grid=CropGrid(plane.shape))

    def test_a_model_in_training(self, tiny_sam, plane):
        model = copy.deepcopy(tiny_sam).train()
        with pytest.raises(InputError, match=r"model.eval\(\)"):
            open_plane(plane, model)

    def test_a_plane_that_is_not_there(self, tiny_sam, plane):
        with pytest.raises(InputError, match="slices"):
            run(embed(plane, tiny_sam, plane=(0, 3)))


def test_lack_of_memory_is_a_device_error(tiny_sam, plane, monkeypatch):
    def encode(x):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GiB")

    monkeypatch.setattr(tiny_sam, "encode", encode)
    with pytest.raises(DeviceError, match="smaller"):
        run(embed(plane, tiny_sam))


def test_default_grid_follows_the_model(tiny_sam):
    grid = default_grid(ImageSource(np.zeros((200, 300), np.uint8)), tiny_sam)
    assert (grid.shape, grid.size, grid.halo) == ((200, 300), 128, 16)


def test_a_constant_image_has_an_embedding(tiny_sam):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NapariSamWarning)
        embedding = run(embed(np.zeros((1, 1), np.uint16), tiny_sam))
    assert torch.isfinite(embedding.of(embedding.grid[0])).all()


def test_a_full_disk_costs_no_answer(
    tiny_sam, plane, encoded, tmp_path, monkeypatch, recwarn
):
    full = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))

    def no_space(path, *args, **kwargs):
        raise OSError(28, os.strerror(28))

    kept = full.of(full.grid[0])
    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage._local._put", no_space)
        found = [full.of(crop) for crop in full.grid]
    (told,) = (str(each.message) for each in recwarn)
    assert "crop 1: No space left" in told
    assert "from now on embeddings of this plane are not kept" in told
    assert len(encoded) == len(full.grid) == 9
    expected = open_plane(plane, tiny_sam)
    torch.testing.assert_close(found[0], kept, rtol=0, atol=0)
    for crop, each in zip(full.grid, found, strict=True):
        torch.testing.assert_close(each, expected.of(crop), rtol=0, atol=0)
    again = open_plane(plane, tiny_sam, cache=EmbeddingCache(tmp_path / "e"))
    assert [again.state(crop) for crop in again.grid] == ["done"] + 8 * ["missing"]
