"""The embedding store: one contract in memory and on disk; kills, damage, eviction."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from napari_sam.cache import CacheEntry, EmbeddingCache
from napari_sam.cache.files import DiskFiles
from napari_sam.errors import (
    CacheMismatchError,
    FileError,
    FormatError,
    InputError,
)

SHAPE = (4, 8, 8)
KEY = {"image": "cells", "limits": [[0.0, 255.0]]}
SEAL = bytes(range(16))


def embedding(seed):
    # multiples of 1/64: exact in float16
    return np.random.default_rng(seed).integers(-512, 512, SHAPE) / np.float32(64)


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    return EmbeddingCache(None if request.param == "memory" else tmp_path / "e.zarr")


class TestContract:
    def test_what_is_written_is_read(self, cache):
        entry = cache.entry(KEY, 3, SHAPE)
        entry.write(1, embedding(1), SEAL)
        np.testing.assert_array_equal(entry.read(1), embedding(1))
        assert entry.read(1).dtype == np.float16
        assert entry.seal(1) == SEAL

    def test_a_new_entry_is_empty(self, cache):
        entry = cache.entry(KEY, 3, SHAPE)
        assert entry.done().tolist() == [False, False, False]
        assert entry.seal(0) is None

    def test_an_absent_crop_is_not_read_as_numbers(self, cache):
        with pytest.raises(CacheMismatchError, match=r"crop 2 .* missing"):
            cache.entry(KEY, 3, SHAPE).read(2)

    def test_an_embedding_of_zeros_is_present(self, cache):
        entry = cache.entry(KEY, 1, SHAPE)
        entry.write(0, np.zeros(SHAPE), SEAL)
        np.testing.assert_array_equal(entry.read(0), np.zeros(SHAPE))
        assert entry.done().tolist() == [True]

    def test_the_same_key_is_the_same_entry(self, cache):
        cache.entry(KEY, 2, SHAPE).write(0, embedding(0), SEAL)
        again = cache.entry(dict(reversed(KEY.items())), 2, SHAPE)
        assert again.done().tolist() == [True, False]

    @pytest.mark.parametrize(
        "other", [{"image": "cells"}, {**KEY, "image": "Cells"}, {**KEY, "plane": 0}]
    )
    def test_another_key_is_another_entry(self, cache, other):
        cache.entry(KEY, 2, SHAPE).write(0, embedding(0), SEAL)
        assert not cache.entry(other, 2, SHAPE).done().any()
        assert len(cache.entries()) == 2

    def test_the_key_can_be_read(self, cache):
        entry = cache.entry(KEY, 2, SHAPE)
        assert entry.key == {"format": 2, "dtype": "float16", **KEY}

    def test_overwriting_replaces(self, cache):
        entry = cache.entry(KEY, 1, SHAPE)
        entry.write(0, embedding(0), SEAL)
        entry.write(0, embedding(1), bytes(reversed(SEAL)))
        np.testing.assert_array_equal(entry.read(0), embedding(1))
        assert entry.seal(0) == bytes(reversed(SEAL))

    def test_values_beyond_float16_are_refused(self, cache):
        entry = cache.entry(KEY, 1, SHAPE)
        with pytest.raises(InputError, match="float32"):
            entry.write(0, np.full(SHAPE, 1e6), SEAL)
        assert not entry.done().any()

    def test_a_seal_has_to_be_one(self, cache):
        entry = cache.entry(KEY, 1, SHAPE)
        for seal in (b"", b"short", bytes(16)):
            with pytest.raises(InputError, match="16 bytes"):
                entry.write(0, embedding(0), seal)

    def test_the_entry_has_the_shape_asked_for(self, cache):
        cache.entry(KEY, 2, SHAPE)
        with pytest.raises(CacheMismatchError, match="remove this folder"):
            cache.entry(KEY, 3, SHAPE)

    def test_list(self, cache):
        cache.entry(KEY, 2, SHAPE).write(0, embedding(0), SEAL)
        (info,) = cache.entries()
        assert (info.n_crops, info.n_done) == (2, 1)
        assert info.key["image"] == "cells"
        assert 0 < info.stored_bytes < 3000

    def test_evict_removes_what_was_not_used_for_longest(self, cache):
        for name in "abc":
            cache.entry({"image": name}, 1, SHAPE).write(0, embedding(0), SEAL)
            time.sleep(0.01)
        cache.entry({"image": "a"}, 1, SHAPE)
        size = cache.entries()[0].stored_bytes
        assert len(cache.evict(2 * size)) == 1
        assert {info.key["image"] for info in cache.entries()} == {"c", "a"}
        assert len(cache.evict(0)) == 2
        assert cache.entries() == []

    def test_reading_and_writing_are_use(self, cache):
        entries = [cache.entry({"image": name}, 2, SHAPE) for name in "abc"]
        for entry in entries:
            time.sleep(0.01)
            entry.write(0, embedding(0), SEAL)
        for use in (lambda: entries[0].read(0), lambda: entries[1].skip(1, SEAL)):
            time.sleep(0.01)
            use()
        names = [info.key["image"] for info in cache.entries()]
        assert names == ["c", "a", "b"]

    def test_an_entry_in_use_is_not_evicted(self, cache):
        held = cache.entry({"image": "a"}, 2, SHAPE)
        held.write(0, embedding(0), SEAL)
        time.sleep(0.01)
        cache.entry({"image": "b"}, 1, SHAPE).write(0, embedding(0), SEAL)
        assert len(cache.evict(0)) == 1
        assert [info.name for info in cache.entries()] == [held.name]
        del held
        assert len(cache.evict(0)) == 1

    def test_an_entry_that_is_removed_while_it_is_used_is_made_again(self, cache):
        entry = cache.entry(KEY, 3, SHAPE)
        entry.write(0, embedding(0), SEAL)
        cache.remove(entry.name)
        entry.write(1, embedding(1), SEAL)
        entry.skip(2, SEAL)
        (info,) = cache.entries()
        assert (info.n_done, info.n_skipped) == (1, 1)
        again = cache.entry(KEY, 3, SHAPE)
        np.testing.assert_array_equal(again.read(1), embedding(1))

    def test_verify_of_a_sound_store(self, cache):
        cache.entry(KEY, 2, SHAPE).write(0, embedding(0), SEAL)
        assert cache.verify() == {}


def test_float32_keeps_all_digits():
    cache = EmbeddingCache(dtype="float32")
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    entry = cache.entry(KEY, 1, SHAPE)
    entry.write(0, values, SEAL)
    np.testing.assert_array_equal(entry.read(0), values)


def test_stored_type_has_to_be_known():
    with pytest.raises(InputError, match="float16"):
        EmbeddingCache(dtype="int8")


def test_reopened_store_has_the_same_content(tmp_path):
    path = tmp_path / "föö bär.zarr"
    EmbeddingCache(path).entry(KEY, 2, SHAPE).write(1, embedding(5), SEAL)
    entry = EmbeddingCache(path).entry(KEY, 2, SHAPE)
    assert entry.done().tolist() == [False, True]
    np.testing.assert_array_equal(entry.read(1), embedding(5))


def test_a_folder_in_which_a_store_lies_can_become_one(tmp_path):
    EmbeddingCache(tmp_path / "inner").entry(KEY, 2, SHAPE)
    outer = EmbeddingCache(tmp_path, limit_bytes=10**6)
    outer.entry(KEY, 2, SHAPE).write(0, embedding(1), SEAL)
    assert len(outer.entries()) == 1
    assert len(outer.evict(0)) == 1
    assert outer.verify() == {}
    assert len(EmbeddingCache(tmp_path / "inner").entries()) == 1


def test_layout_is_plain_zarr_with_one_chunk_a_crop(tmp_path):
    entry = EmbeddingCache(tmp_path / "e").entry(KEY, 3, SHAPE)
    entry.write(2, embedding(5), SEAL)
    array = zarr.open_array(tmp_path / "e" / entry.name / "embeddings", mode="r")
    assert array.chunks == (1, *SHAPE)
    np.testing.assert_array_equal(array[2], embedding(5))
    files = sorted(p.name for p in (tmp_path / "e" / entry.name).rglob("c.*"))
    assert files == ["c.2.0", "c.2.0.0.0"]  # the seal and the chunk
    attributes = json.loads((tmp_path / "e" / entry.name / "zarr.json").read_text())
    assert attributes["attributes"]["key"]["image"] == "cells"


def test_metadata_is_not_rewritten_for_each_crop(tmp_path):
    entry = EmbeddingCache(tmp_path / "e").entry(KEY, 3, SHAPE)
    # zarr writes aside and renames, so a file that was rewritten is another one
    before = {p: p.stat().st_ino for p in tmp_path.rglob("zarr.json")}
    for i in range(3):
        entry.write(i, embedding(i), SEAL)
    assert before == {p: p.stat().st_ino for p in tmp_path.rglob("zarr.json")}


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path):
        entry = EmbeddingCache(tmp_path / "e").entry(KEY, 2, SHAPE)
        entry.write(0, embedding(0), SEAL)
        entry.write(1, embedding(1), SEAL)
        return tmp_path / "e" / entry.name

    @pytest.fixture
    def chunk(self, folder):
        return folder / "embeddings" / "c.0.0.0.0"

    def entry(self, folder):
        return EmbeddingCache(folder.parent).entry(KEY, 2, SHAPE)

    def test_a_flipped_bit_is_noticed(self, folder, chunk):
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 4
        chunk.write_bytes(content)
        with pytest.raises(CacheMismatchError, match=r"crop 0 .* damaged"):
            self.entry(folder).read(0)
        np.testing.assert_array_equal(self.entry(folder).read(1), embedding(1))
        assert EmbeddingCache(folder.parent).verify() == {folder.name: [0]}

    @pytest.mark.parametrize("length", [0, 2, 100])
    def test_a_short_chunk_is_noticed(self, folder, chunk, length):
        chunk.write_bytes(chunk.read_bytes()[:length])
        with pytest.raises(CacheMismatchError, match="damaged"):
            self.entry(folder).read(0)

    def test_a_chunk_that_is_gone_is_noticed(self, folder, chunk):
        chunk.unlink()
        with pytest.raises(CacheMismatchError, match="missing"):
            self.entry(folder).read(0)

    def test_a_damaged_seal_hides_only_its_own_crop(self, folder):
        (folder / "seals" / "c.0.0").write_bytes(b"nonsense")
        assert self.entry(folder).seal(0) is None
        assert self.entry(folder).seal(1) == SEAL
        assert EmbeddingCache(folder.parent).verify() == {folder.name: [0]}

    def test_damaged_metadata_names_the_folder(self, folder):
        (folder / "embeddings" / "zarr.json").write_text("{")
        with pytest.raises(CacheMismatchError, match=folder.name):
            self.entry(folder)

    def test_another_key_in_the_folder_is_noticed(self, folder):
        metadata = json.loads((folder / "zarr.json").read_text())
        metadata["attributes"]["key"]["image"] = "others"
        (folder / "zarr.json").write_text(json.dumps(metadata))
        with pytest.raises(CacheMismatchError, match="others"):
            self.entry(folder)


class TestStore:
    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("precious")
        with pytest.raises(FormatError, match="not a store of embeddings"):
            EmbeddingCache(tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "precious"

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "e.zarr").write_text("precious")
        with pytest.raises(FormatError, match="not a store of embeddings"):
            EmbeddingCache(tmp_path / "e.zarr")

    def test_another_zarr_is_refused(self, tmp_path):
        zarr.open_group(tmp_path / "image.zarr", mode="w")
        with pytest.raises(FormatError, match="not one of embeddings"):
            EmbeddingCache(tmp_path / "image.zarr")

    def test_a_zarr_array_is_refused(self, tmp_path):
        zarr.create_array(tmp_path / "image.zarr", shape=(4,), dtype="uint8")
        with pytest.raises(FormatError, match="not one of embeddings"):
            EmbeddingCache(tmp_path / "image.zarr")

    def test_another_format_version_is_refused(self, tmp_path):
        EmbeddingCache(tmp_path / "e")
        root = zarr.open_group(tmp_path / "e", mode="r+")
        root.attrs["format"] = 99
        with pytest.raises(CacheMismatchError, match="99"):
            EmbeddingCache(tmp_path / "e")

    def test_a_folder_that_another_process_makes_a_store_of_will_do(self, tmp_path):
        (tmp_path / "zarr.0123456789abcdef.partial").write_bytes(b"{")
        assert EmbeddingCache(tmp_path).entries() == []

    def test_an_empty_folder_will_do(self, tmp_path):
        assert EmbeddingCache(tmp_path).entries() == []

    def test_a_limit_makes_room_for_a_new_entry(self, tmp_path):
        # each entry holds 32 KiB of noise and some metadata
        noise = np.random.default_rng(0).normal(size=(64, 16, 16))
        cache = EmbeddingCache(tmp_path / "e", limit_bytes=90_000)
        for name in "abc":
            cache.entry({"image": name}, 1, noise.shape).write(0, noise, SEAL)
            time.sleep(0.01)
        assert [info.key["image"] for info in cache.entries()] == ["b", "c"]

    @pytest.mark.parametrize("on_disk", [True, False])
    def test_a_store_with_room_is_not_looked_through(
        self, tmp_path, monkeypatch, on_disk
    ):
        path = tmp_path / "e" if on_disk else None
        cache = EmbeddingCache(path, limit_bytes=10**6)
        looked = []
        entries = cache.entries
        monkeypatch.setattr(cache, "entries", lambda: looked.append(0) or entries())
        noise = np.random.default_rng(0).normal(size=(64, 16, 16))
        for number in range(12):
            cache.entry({"n": number}, 1, noise.shape).write(0, noise, SEAL)
        assert not looked
        for number in range(12, 60):
            cache.entry({"n": number}, 1, noise.shape).write(0, noise, SEAL)
        assert 0 < len(looked) < 40
        total = sum(info.stored_bytes for info in entries())
        assert 8e5 < total < 1e6

    def test_clean_removes_files_of_dead_writers(self, tmp_path):
        cache = EmbeddingCache(tmp_path / "e")
        entry = cache.entry(KEY, 2, SHAPE)
        entry.write(0, embedding(0), SEAL)
        folder = tmp_path / "e" / entry.name / "embeddings"
        old, new = folder / "c.0.0.0.1.partial", folder / "c.0.0.0.2.partial"
        old.write_text("torn")
        new.write_text("being written")
        pack = tmp_path / "e" / entry.name / "packing-1"
        pack.mkdir()
        os.utime(pack, (0, 0))
        os.utime(old, (0, 0))
        assert cache.clean() == 2
        assert not old.exists()
        assert not pack.exists()
        assert new.exists()

    def test_a_full_disk_is_said_in_words(self, tmp_path, monkeypatch):
        entry = EmbeddingCache(tmp_path / "e").entry(KEY, 1, SHAPE)

        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("zarr.storage._local._put", full)
        with pytest.raises(FileError, match=r"No space left.*free some space"):
            entry.write(0, embedding(0), SEAL)

    def test_an_entry_whose_maker_was_killed_is_completed(self, tmp_path):
        cache = EmbeddingCache(tmp_path / "e")
        entry = cache.entry(KEY, 1, SHAPE)
        (tmp_path / "e" / entry.name / "seals" / "zarr.json").unlink()
        assert EmbeddingCache(tmp_path / "e").entries() == []
        cache = EmbeddingCache(tmp_path / "e")
        cache.entry(KEY, 1, SHAPE).write(0, embedding(0), SEAL)
        assert cache.entries()[0].n_done == 1


def test_two_processes_make_room_at_once(tmp_path, monkeypatch):
    cache, other = EmbeddingCache(tmp_path), EmbeddingCache(tmp_path)
    for name in "abc":
        cache.entry({"image": name}, 1, SHAPE).write(0, embedding(0), SEAL)
    seen = cache.entries()
    other.remove(seen[0].name)
    monkeypatch.setattr(cache, "entries", lambda: seen)
    assert len(cache.evict(0)) == 3
    assert other.entries() == []


def test_an_entry_that_is_removed_while_it_is_listed_is_left_out(tmp_path, monkeypatch):
    cache, other = EmbeddingCache(tmp_path), EmbeddingCache(tmp_path)
    for name in "ab":
        cache.entry({"image": name}, 1, SHAPE).write(0, embedding(0), SEAL)
    sizes, gone = DiskFiles.sizes, []

    def removed_after(self, folder):
        found = sizes(self, folder)
        if not gone:
            gone.append(folder.partition("/")[0])
            other.remove(gone[0])
        return found

    monkeypatch.setattr(DiskFiles, "sizes", removed_after)
    assert [info.name for info in cache.entries()] == [
        info.name for info in other.entries()
    ]
    assert len(other.entries()) == 1


def test_two_makers_of_one_entry(tmp_path):
    def fill(indices):
        entry = EmbeddingCache(tmp_path / "e").entry(KEY, 16, SHAPE)
        for i in indices:
            entry.write(i, embedding(i), SEAL)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, [range(0, 16, 2), range(1, 16, 2), range(8), range(16)]))
    entry = EmbeddingCache(tmp_path / "e").entry(KEY, 16, SHAPE)
    assert entry.done().all()
    for i in range(16):
        np.testing.assert_array_equal(entry.read(i), embedding(i))


WRITER = """
    import sys
    import numpy as np
    from napari_sam.cache import EmbeddingCache

    entry = EmbeddingCache(sys.argv[1]).entry({"image": "x"}, 2000, (4, 32, 32))
    missing = np.flatnonzero(~entry.done())
    print("ready", flush=True)
    for i in missing:
        entry.write(i, np.full((4, 32, 32), i % 100 + 1), int(i + 1).to_bytes(16))
"""


@pytest.mark.parametrize(
    "n_kills", [2, pytest.param(20, marks=pytest.mark.slow)], ids="{}-kills".format
)
def test_kill_at_any_moment_leaves_only_whole_crops(tmp_path, n_kills):
    counts = []
    for delay in np.random.default_rng(0).uniform(0, 0.1, n_kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "e")],
            stdout=subprocess.PIPE,
        )
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        entry = EmbeddingCache(tmp_path / "e").entry({"image": "x"}, 2000, (4, 32, 32))
        present = np.flatnonzero(entry.done())
        counts.append(len(present))
        for i in present:
            assert (entry.read(i) == i % 100 + 1).all()
            assert entry.seal(i) == int(i + 1).to_bytes(16)
    assert counts == sorted(counts)
    assert 0 < counts[-1] < 2000


def test_reading_a_crop_reads_one_chunk_and_no_metadata(tmp_path, monkeypatch):
    entry: CacheEntry = EmbeddingCache(tmp_path / "e").entry(KEY, 4, SHAPE)
    entry.write(3, embedding(3), SEAL)
    reads = []
    get = zarr.storage._local._get

    def counted(path, *args):
        reads.append(path.relative_to(tmp_path / "e" / entry.name).as_posix())
        return get(path, *args)

    monkeypatch.setattr("zarr.storage._local._get", counted)
    entry.read(3)
    assert reads == ["embeddings/c.3.0.0.0"]


class TestPack:
    @pytest.fixture
    def packed(self, tmp_path, monkeypatch):
        """A store of 7 crops, one of them skipped, packed three to a shard."""
        monkeypatch.setattr("napari_sam.cache.packing.CROPS_PER_SHARD", 3)
        cache = EmbeddingCache(tmp_path / "e")
        entry = cache.entry(KEY, 7, SHAPE)
        for i in range(6):
            entry.write(i, embedding(i), bytes([i + 1] * 16))
        with pytest.raises(InputError, match=r"1 of 7 crops .* missing"):
            cache.pack(entry.name)
        entry.skip(6, SEAL)
        assert cache.pack(entry.name)
        return tmp_path / "e" / entry.name

    def entry(self, folder):
        return EmbeddingCache(folder.parent).entry(KEY, 7, SHAPE)

    def test_content_is_equal_and_files_are_few(self, packed):
        entry = self.entry(packed)
        for i in range(6):
            np.testing.assert_array_equal(entry.read(i), embedding(i))
            assert entry.seal(i) == bytes([i + 1] * 16)
        assert [entry.state(i) for i in range(7)] == ["done"] * 6 + ["skipped"]
        assert entry.done().tolist() == [True] * 6 + [False]
        assert entry.skip_seal(6) == SEAL
        assert len(list(packed.rglob("c.*"))) == 3 + 2
        array = zarr.open_array(packed / "packed-1" / "embeddings", mode="r")
        assert (array.shards, array.chunks) == ((3, *SHAPE), (1, *SHAPE))
        np.testing.assert_array_equal(array[4], embedding(4))
        assert EmbeddingCache(packed.parent).verify() == {}
        assert not EmbeddingCache(packed.parent).pack(packed.name)

    def test_what_is_written_later_wins_and_is_packed_with_the_rest(self, packed):
        self.entry(packed).write(2, embedding(50), SEAL)
        self.entry(packed).write(6, embedding(60), SEAL)
        for _ in range(2):
            entry = self.entry(packed)
            np.testing.assert_array_equal(entry.read(2), embedding(50))
            np.testing.assert_array_equal(entry.read(6), embedding(60))
            np.testing.assert_array_equal(entry.read(3), embedding(3))
            assert entry.state(6) == "done"
            assert not entry.skipped().any()
            EmbeddingCache(packed.parent).pack(packed.name)
        assert self.entry(packed).is_packed
        assert sorted(p.name for p in packed.glob("packed*")) == ["packed-2"]

    def test_a_crop_embedded_again_meanwhile_is_the_newer(self, tmp_path, monkeypatch):
        cache = EmbeddingCache(tmp_path / "e")
        entry = cache.entry(KEY, 3, SHAPE)
        for i in range(3):
            entry.write(i, embedding(i), SEAL)
        newer, read = bytes(range(1, 17)), CacheEntry.read

        def read_and_be_overtaken(self, index):
            found = read(self, index)
            if index == 1:
                cache.entry(KEY, 3, SHAPE).write(1, embedding(70), newer)
            return found

        monkeypatch.setattr(CacheEntry, "read", read_and_be_overtaken)
        assert cache.pack(entry.name)
        monkeypatch.undo()
        packed = EmbeddingCache(tmp_path / "e").entry(KEY, 3, SHAPE)
        assert [packed.seal(i) for i in range(3)] == [SEAL, newer, SEAL]
        for i, value in enumerate((0, 70, 2)):
            np.testing.assert_array_equal(packed.read(i), embedding(value))

    def test_damage_in_a_shard_strikes_one_crop(self, packed):
        shard = packed / "packed-1" / "embeddings" / "c.1.0.0.0"
        content = bytearray(shard.read_bytes())
        content[3] ^= 1
        shard.write_bytes(content)
        cache = EmbeddingCache(packed.parent)
        assert cache.verify(repair=True) == {packed.name: [3]}
        assert cache.verify() == {}
        assert self.entry(packed).state(3) == "missing"
        self.entry(packed).write(3, embedding(3), SEAL)
        assert cache.pack(packed.name)
        np.testing.assert_array_equal(self.entry(packed).read(3), embedding(3))

    def test_a_reader_from_before_misses_but_is_never_wrong(self, tmp_path):
        cache = EmbeddingCache(tmp_path / "e")
        old = cache.entry(KEY, 1, SHAPE)
        old.write(0, embedding(0), SEAL)
        cache.pack(old.name)
        assert old.seal(0) is None
        with pytest.raises(CacheMismatchError, match="missing"):
            old.read(0)

    def test_damaged_crops_are_not_packed(self, tmp_path):
        cache = EmbeddingCache(tmp_path / "e")
        entry = cache.entry(KEY, 2, SHAPE)
        for i in range(2):
            entry.write(i, embedding(i), SEAL)
        chunk = tmp_path / "e" / entry.name / "embeddings" / "c.1.0.0.0"
        chunk.write_bytes(b"torn")
        with pytest.raises(CacheMismatchError, match=r"crop 1 .* damaged"):
            cache.pack(entry.name)
        assert not list((tmp_path / "e").glob("*/pack*"))
        np.testing.assert_array_equal(cache.entry(KEY, 2, SHAPE).read(0), embedding(0))

    def test_a_store_in_memory_is_not_packed(self):
        with pytest.raises(InputError, match="in memory"):
            EmbeddingCache().pack("x")


def test_a_skipped_crop_is_recorded_until_it_is_encoded(cache):
    entry = cache.entry(KEY, 3, SHAPE)
    entry.skip(1, SEAL)
    assert entry.skipped().tolist() == [False, True, False]
    assert [entry.state(i) for i in range(3)] == ["missing", "skipped", "missing"]
    entry.write(1, embedding(1), SEAL)
    assert entry.state(1) == "done"
    assert not entry.skipped().any()
    entry.forget(1)
    assert entry.state(1) == "missing"
