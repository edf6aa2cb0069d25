"""Embeddings kept in a zarr store, so that nothing is encoded twice.

An entry holds the embeddings of one set of crops under a key that names all they
depend on; the entry's folder is the hash of the key, so another key is another
entry and never a wrong hit. A crop is one chunk, sealed by a checksum, and counts
as present once its seal, a second small chunk, is written after it. Each chunk
appears in one step (zarr writes aside and renames), so a process may be killed at
any time and several may fill one store.

    store/                      group; attributes: what this is, format version
      <hash of the key>/        group; attributes: the key, readable
        embeddings              (n, C, e, e), one chunk a crop, blosc lz4, crc32c
        seals                   (n, 16) uint8, digest of the crop's pixels; 0 = absent,
                                255 = forgotten though a pack has it
        skipped                 (n, 16) uint8, the same of crops that are background
        packed-<number>/        the three again, in shards, once all crops are there

Loose chunks are not sharded: two writers in one shard lose each other's crops without
any error. In memory it is the same class on zarr's memory store.
"""

from napari_sam.cache.entry import SEAL_BYTES, CacheEntry, EntryState
from napari_sam.cache.store import FORMAT_VERSION, EmbeddingCache, EntryInfo

__all__ = [
    "FORMAT_VERSION",
    "SEAL_BYTES",
    "CacheEntry",
    "EmbeddingCache",
    "EntryInfo",
    "EntryState",
]
