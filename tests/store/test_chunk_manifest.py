"""Manifests survive JSON, are small, and cover what is committed alone."""

import json

import numpy as np
from headwater.store.checksums import crc32c
from headwater.store.chunk_manifest import ArrayChecksums, ChunkManifest, text_checksum
from headwater.store.store_record import GroupRecord, ShardEntry, StoreRecord, method_group
from numcodecs import VLenUTF8

SUMS = np.random.default_rng(0).integers(0, 1 << 32, 5000, dtype=np.uint32)


def manifest(sums: np.ndarray = SUMS, **notes: object) -> ChunkManifest:
    return ChunkManifest(len(sums), notes, {"id": ArrayChecksums(7, sums[:1]), "ids/values": ArrayChecksums(9, sums)})


def test_a_manifest_survives_json_and_takes_less_than_six_bytes_a_chunk() -> None:
    text = json.dumps(manifest(place=[0, 1, 2]).to_json(), separators=(",", ":"))
    again = ChunkManifest.from_json(json.loads(text))
    assert len(text) < 6 * len(SUMS)
    assert again.digest == manifest(place=[0, 1, 2]).digest and again.notes == {"place": [0, 1, 2]}
    assert again.arrays["ids/values"].rows == 9 and np.array_equal(again.arrays["ids/values"].sums, SUMS)


def test_the_digest_is_of_everything() -> None:
    changed = SUMS.copy()
    changed[4321] ^= 1
    others = [manifest(changed), manifest(place=1), manifest(SUMS[:-1]), ChunkManifest(3), ChunkManifest()]
    assert len({manifest().digest, *(other.digest for other in others)}) == 6


def test_the_checksum_of_strings_is_that_of_what_they_are_encoded_to() -> None:
    strings = ["", "a\0", "ünïcödé 🙂"]
    encoded = bytes(VLenUTF8().encode(np.array([*strings, "", ""], object)))
    length = len(bytes(VLenUTF8().encode(np.array(strings, object))))
    assert text_checksum(strings) == crc32c(encoded[4:length])
    assert text_checksum(["ab", "c"]) != text_checksum(["a", "bc"])


def test_a_shard_of_five_groups_takes_less_than_500_bytes_in_the_root() -> None:
    root = StoreRecord(3, "0.1", {})
    for name in ("rise", "repsim", "tfidf", "trak", "trackstar"):
        entry = ShardEntry(1_234_567, True, "0123456789abcdef01234567")
        root = root.with_group(method_group(name), GroupRecord(()), entry)
    assert len(json.dumps(root.to_json()["shards"], separators=(",", ":"))) <= 500
