"""Files at URLs are read as local ones are: by ranges, through failures, to a message that holds no secret."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from headwater.engine.data import remote_bytes
from headwater.engine.data.array_files import is_array_path, open_arrays
from headwater.engine.data.sources import Source, find_sources, read_source
from headwater.engine.data.urls import is_url, name_in, shown
from headwater.store.errors import CorpusError
from hub_server import HubServer
from range_server import RangeServer, serving
from small import sentences, write_corpus

ROWS = [{"text": text} for text in sentences(500)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(autouse=True)
def without_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_bytes, "WAITS", (0.0, 0.0))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as running:
        yield running


def source_of(path: str) -> Source:
    (source,) = find_sources([path])
    return source


def rows_of(path: str, start: int = 0) -> list[dict[str, object]]:
    return [record.fields for record in read_source(source_of(path), start, None)]


def test_urls_are_shown_without_secrets() -> None:
    assert shown("https://user:word@host:8/a/x.jsonl.gz?sig=1#part") == "https://host:8/a/x.jsonl.gz"
    assert name_in("https://host/a/x.jsonl.gz?sig=/y.csv") == "x.jsonl.gz"
    assert shown("s3://key:word@bucket/a?.jsonl") == "s3://bucket/a?.jsonl"
    for same in ("hf://datasets/org/name@main/x.parquet", "a/b?.jsonl", "s3://bucket/*.jsonl"):
        assert shown(same) == same
    assert [is_url(path) for path in ("s3://b", "a://b c", "/a://b", "C:\\a", "hf:org/name")] == [True, *[False] * 4]


@pytest.mark.parametrize("ranges", [True, False])
def test_every_format_is_the_same_source_as_the_local_file(ranges: bool, server: RangeServer) -> None:
    server.ranges = ranges
    compressors = {
        "": bytes,
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
    }
    for suffix, compress in compressors.items():
        path = server.folder / f"corpus.jsonl{suffix}"
        path.write_bytes(compress(LINES))
        local, remote = source_of(str(path)), source_of(f"{server.url}/{path.name}?signature=secret")
        assert (remote.name, remote.format, remote.size, remote.digest) == (
            local.name,
            local.format,
            local.size,
            local.digest,
        )
        assert remote.path == f"{server.url}/{path.name}"
        assert rows_of(remote.address) == ROWS
        assert rows_of(remote.address, 480) == ROWS[480:]


def test_a_file_longer_than_a_block_is_read_without_ranges_too(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bytes, "STREAM_BLOCK", 4096)
    (server.folder / "corpus.jsonl").write_bytes(LINES)
    url = f"{server.url}/corpus.jsonl"
    assert rows_of(url) == ROWS
    ranged = len(server.requests)
    assert ranged > len(LINES) / 4096
    server.ranges = False
    assert rows_of(url) == ROWS
    assert len(server.requests) - ranged < 12


def test_servers_of_many_kinds(server: RangeServer) -> None:
    """Without HEAD, as of signed URLs; that compress for the transfer, or say so of a .gz; that do not say how long a file is."""
    (server.folder / "corpus.jsonl").write_bytes(LINES)
    (server.folder / "corpus.jsonl.gz").write_bytes(gzip.compress(LINES))
    url = f"{server.url}/corpus.jsonl"
    server.head = False
    assert rows_of(url) == ROWS
    server.headers = {"Content-Encoding": "gzip"}
    assert rows_of(f"{url}.gz") == ROWS
    assert source_of(f"{url}.gz").digest == source_of(str(server.folder / "corpus.jsonl.gz")).digest
    server.headers, server.length, server.ranges = {}, False, False
    assert rows_of(url) == ROWS
    assert source_of(url).digest == source_of(str(server.folder / "corpus.jsonl")).digest


def write_table(folder: Path) -> Path:
    """12 MB in 12 row groups: `text` is a twentieth of it."""
    draw = np.random.default_rng(0)
    table = pa.table(
        {"text": [f"text {row}" for row in range(12_000)], "other": [draw.bytes(950) for _ in range(12_000)]}
    )
    pq.write_table(table, folder / "table.parquet", row_group_size=1000, compression="none", use_dictionary=False)
    return folder / "table.parquet"


def test_of_a_parquet_file_only_the_needed_ranges_are_sent(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bytes, "PLACES_BLOCK", 1 << 16)
    path = write_table(server.folder)
    source = source_of(f"{server.url}/{path.name}")
    identified, server.sent = server.sent, 0
    texts = [record.fields["text"] for record in read_source(source, 0, {"text"})]
    of_column, server.sent = server.sent, 0
    assert texts == [f"text {row}" for row in range(12_000)]
    late = [record.fields for record in read_source(source, 11_990, None)]
    of_last_group = server.sent
    assert [len(row["other"]) for row in late] == [950] * 10  # type: ignore[arg-type]
    assert identified == 2 * (64 << 10)
    assert of_column < source.size / 4
    assert of_last_group < source.size / 6
    server.ranges = False
    with pytest.raises(
        CorpusError, match=r"/table\.parquet: this format is read in places, but the server sends no ranges"
    ):
        next(read_source(source, 0, {"text"}))


@pytest.mark.parametrize("ranges", [True, False])
def test_two_failures_are_survived_and_three_are_not(ranges: bool, server: RangeServer) -> None:
    server.ranges = ranges
    (server.folder / "corpus.jsonl").write_bytes(LINES)
    source = source_of(f"{server.url}/corpus.jsonl?signature=secret")
    for failures in ([503, 0], [0, 429]):
        server.failures = failures
        assert [record.fields for record in read_source(source, 0, None)] == ROWS
    server.failures = [503] * 9
    with pytest.raises(CorpusError, match=r"^http://127.0.0.1:\d+/corpus.jsonl: .*status 503") as refused:
        list(read_source(source, 0, None))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_half_downloaded_file_is_named_with_line_and_byte(
    ranges: bool, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bytes, "STREAM_BLOCK", 4096)
    server.ranges = ranges
    (server.folder / "corpus.jsonl").write_bytes(LINES)
    source = source_of(f"{server.url}/corpus.jsonl?signature=secret")
    server.cut_at = len(LINES) // 2
    read = []
    message = rf"/corpus.jsonl:\d+: cannot read beyond this: broke off at byte [\d,]+ of {len(LINES):,}: "
    with pytest.raises(CorpusError, match=message) as broken:
        for record in read_source(source, 0, None):
            read.append(record.fields)
    assert read == ROWS[: len(read)] and len(read) > (100 if ranges else 0) and "secret" not in str(broken.value)
    assert broken.value.hint
    server.cut_at = None
    assert [record.fields for record in read_source(source, len(read), None)] == ROWS[len(read) :]


def test_refusals_are_one_line_with_a_remedy(server: RangeServer) -> None:
    write_corpus(server.folder / "corpus.jsonl", ["a"])
    for status, words in (
        (403, r"access was denied \(403\)"),
        (401, r"denied \(401\)"),
        (500, "status 500"),
    ):
        server.status = status
        with pytest.raises(CorpusError, match=rf"^http://127.0.0.1:\d+/corpus.jsonl: .*{words}") as refused:
            find_sources([f"{server.url.replace('//', '//user:word@')}/corpus.jsonl?signature=secret"])
        assert not any(secret in str(refused.value) for secret in ("user", "word", "secret", "\n"))
        assert "a signed URL may have expired" in refused.value.hint or status == 500
    server.status = 0
    wrong = {
        f"{server.url}/absent.jsonl": r"no such file or folder \(404\)",
        "http://127.0.0.1:9/corpus.jsonl": r"127\.0\.0\.1:9 cannot be reached",
        "http://absent.invalid/corpus.jsonl": r"absent\.invalid cannot be reached",
        "nowhere://bucket/corpus.jsonl": r"no file system is known for nowhere://",
        "memory://absent.jsonl": "no such file or folder",
        "gs://bucket/corpus.jsonl": "the package that reads gs:// is not installed",
        f"{server.url}/corpus": "unknown suffix ''",
    }
    for url, words in wrong.items():
        with pytest.raises(CorpusError, match=words) as refused:
            find_sources([url])
        assert "\n" not in str(refused.value) and str(refused.value).startswith(url)


def test_folders_and_globs_are_listed_as_local_ones(tmp_path: Path) -> None:
    import fsspec

    memory, tmp_path = fsspec.filesystem("memory"), tmp_path / "corpus"
    files = {"a.jsonl": LINES, "b/a.jsonl": LINES[:-1], "b/c.txt": b"text", "README.md": b"---\na: 1\n---", ".hidden.txt": b"x",
             "z/zarr.json": b"{}", "z/a/b.txt": b"no", "empty.jsonl": b"", "photo.png": b"x"}  # fmt: skip
    for name, content in files.items():
        memory.pipe(f"/corpus/{name}", content)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for pattern in ("", "/*.jsonl", "/**/*.jsonl", "/b/?.txt"):
        local, remote = find_sources([f"{tmp_path}{pattern}"]), find_sources([f"memory://corpus{pattern}"])
        assert [(s.name, s.digest) for s in remote] == [(s.name, s.digest) for s in local]
    assert remote[0].path == "memory:///corpus/b/c.txt"
    with pytest.raises(CorpusError, match=r"memory://corpus/\*.csv: no corpus file there"):
        find_sources(["memory://corpus/*.csv"])


def test_arrays_at_a_url(server: RangeServer) -> None:
    arrays = {"vectors": np.arange(60_000.0).reshape(6000, 10), "id": np.arange(6000)}
    np.savez(server.folder / "a.npz", **arrays)
    url = f"{server.url}/a.npz?signature=secret"
    assert is_array_path(url) and not is_array_path(f"{server.url}/a.jsonl")
    (local, _), (remote, opened) = open_arrays(str(server.folder / "a.npz")), open_arrays(url)
    assert (remote.path, remote.name, remote.digest) == (f"{server.url}/a.npz", local.name, local.digest)
    assert np.array_equal(opened["vectors"][5990:6000], arrays["vectors"][5990:])
    (server.folder / "a.npz").write_bytes(b"no archive at all")
    with pytest.raises(CorpusError, match=r"/a\.npz cannot be read as arrays") as refused:
        open_arrays(url)
    assert "secret" not in str(refused.value)


HUB = """
import json, sys
from headwater.engine.data.sources import find_sources, read_source
from headwater.store.errors import CorpusError

def facts(path):
    try:
        sources = find_sources([path])
        return [[s.name, s.path, s.digest, sum(1 for _ in read_source(s, 0, {"text"}))] for s in sources]
    except CorpusError as error:
        return f"{error}; {error.hint}"

print(json.dumps([facts(path) for path in sys.argv[1:]]))
"""


def test_files_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "org/name"
    (folder / "data").mkdir(parents=True)
    for split, count in (("train", 1000), ("test", 5)):
        pq.write_table(pa.table({"text": ["a"] * count}), folder / f"data/{split}.parquet", row_group_size=100)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    root = "hf://datasets/org/name"
    paths = [root, f"{root}/data/tr*.parquet", f"{root}@main/data/test.parquet", "hf://datasets/org/absent"]
    with serving(tmp_path, HubServer) as hub:
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_secret",
        }
        done = subprocess.run(
            [sys.executable, "-c", HUB, *paths],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
        hub.status = 401
        denied = subprocess.run(
            [sys.executable, "-c", HUB, root],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
    whole, glob, revision, absent = json.loads(done.stdout)
    local = {source.name: source.digest for source in find_sources([str(folder)])}
    assert [entry[:2] for entry in whole] == [
        [name, f"{root}/{name}"] for name in ("data/test.parquet", "data/train.parquet")
    ]
    assert [entry[2:] for entry in whole] == [[local["data/test.parquet"], 5], [local["data/train.parquet"], 1000]]
    assert [entry[0] for entry in glob] == ["train.parquet"] and glob[0][2:] == whole[1][2:]
    assert revision[0][2:] == whole[0][2:]
    assert absent == "hf://datasets/org/absent: no such file or folder (404); "
    (message,) = json.loads(denied.stdout)
    assert message.startswith(f"{root}: access was denied (401)") and "HF_TOKEN" in message and "secret" not in message


def test_plain_paths_load_no_library_for_urls(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.jsonl", ["a"])
    code = (
        "import sys; from headwater.engine.data.sources import find_sources, read_source;"
        f"list(read_source(find_sources([{str(path)!r}])[0], 0, None)); sys.exit('fsspec' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
