"""Folders as people have them: parts, shards, cards and foreign files; nothing is left out without a line that names it."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from headwater.engine.data.array_files import open_arrays
from headwater.engine.data.documents import Document, RecordErrors, Template, read_documents
from headwater.engine.data.sources import Source, find_sources, left_out_notes
from headwater.store.errors import CorpusError, DataError


def record(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


def folder_of(path: Path, files: dict[str, bytes]) -> list[Source]:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return find_sources([str(path)])


def texts(sources: list[Source]) -> dict[str, list[str]]:
    return {
        source.name: [d.text for d in read_documents(source, Template(), RecordErrors("fail"))] for source in sources
    }


def test_parts_and_shards_are_read_by_name_and_content(tmp_path: Path) -> None:
    table = tmp_path / "d" / "t-00000-of-00001"
    table.parent.mkdir()
    pq.write_table(pa.table({"text": ["g"]}), table)
    files = folder_of(tmp_path / "d", {
        "b.jsonl.xz": lzma.compress(record("b")), "c.jsonl.bz2": bz2.compress(record("c")), "part-00000": record("d"),
        "x.jsonl-00000-of-00002": record("e"), "x.jsonl-00001-of-00002.gz": gzip.compress(record("f")),
        "part-00001": b"plain text\n", "part-r-00002.bz2": bz2.compress(record("h")),
        "y.jsonl.gz-00000-of-00001": gzip.compress(record("i")), "z.csv-00000-of-00001": b"text\nj\n",
    })  # fmt: skip
    assert texts(files) == {
        "b.jsonl.xz": ["b"], "c.jsonl.bz2": ["c"], "part-00000": ["d"], "x.jsonl-00000-of-00002": ["e"],
        "x.jsonl-00001-of-00002.gz": ["f"], "part-00001": ["plain text"], "part-r-00002.bz2": ["h"],
        "t-00000-of-00001": ["g"], "y.jsonl.gz-00000-of-00001": ["i"], "z.csv-00000-of-00001": ["j"],
    }  # fmt: skip
    assert left_out_notes([str(tmp_path / "d")]) == []


def test_files_without_a_reader_are_counted_and_named(tmp_path: Path) -> None:
    foreign = {f"{n}.pdf": b"%PDF" for n in range(6)}
    files = folder_of(tmp_path, {"a.jsonl": record("a"), "_SUCCESS": b"", "store/zarr.json": b"{}", **foreign})
    assert texts(files) == {"a.jsonl": ["a"]}
    assert left_out_notes([str(tmp_path)]) == [
        f"{tmp_path}: 8 files are not read: 7 of unknown suffix (0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf, …), "
        "1 in a Zarr group (store/zarr.json); a file that is named itself is read"
    ]
    assert left_out_notes([f"{tmp_path}/*"]) == [
        f"{tmp_path}/*: 7 files are not read: 7 of unknown suffix (0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf, …); "
        "a file that is named itself is read"
    ]
    with pytest.raises(
        CorpusError, match=r"no corpus file there .*; 1 file is not read: 1 of unknown suffix \(5\.pdf\)"
    ):
        find_sources([f"{tmp_path}/5*"])


def test_cards_beside_data_are_left_out(tmp_path: Path) -> None:
    card = b"---\nlicense: mit\n---\n# A corpus\n"
    files = folder_of(tmp_path / "tables", {
        "data/train.jsonl": record("a"), "README.md": card, "LICENSE.txt": b"MIT", "docs/notes.md": b"# Notes",
        "dataset_infos.json": b"{}", "config.yaml": b"a: 1", "essay.txt": b"an essay",
    })  # fmt: skip
    assert texts(files) == {"data/train.jsonl": ["a"], "essay.txt": ["an essay"]}
    assert left_out_notes([str(tmp_path / "tables")]) == [
        f"{tmp_path}/tables: 5 files are not read: 1 of unknown suffix (config.yaml), "
        "4 about the data (LICENSE.txt, README.md, dataset_infos.json, docs/notes.md); a file that is named itself is read"
    ]
    card_path = [str(tmp_path / "tables/README.md")]
    assert find_sources(card_path)[0].name == "README.md" and left_out_notes(card_path) == []
    pages = folder_of(tmp_path / "pages", {"README.md": b"# Home", "a.md": b"A page"})
    assert texts(pages) == {"README.md": ["# Home"], "a.md": ["A page"]} and not left_out_notes([f"{tmp_path}/pages"])
    with_card = folder_of(tmp_path / "essays", {"README.md": card, "a.txt": b"An essay"})
    assert texts(with_card) == {"a.txt": ["An essay"]}
    assert "1 about the data (README.md)" in left_out_notes([f"{tmp_path}/essays"])[0]


def test_empty_parts_of_a_folder_are_skipped(tmp_path: Path) -> None:
    empty = {
        "p1.jsonl": b"", "p2.csv.gz": gzip.compress(b""), "p3.json.xz": lzma.compress(b""), "part-00004": b"",
        "p5.jsonl.zst": zstandard.ZstdCompressor().compress(b""),
    }  # fmt: skip
    files = folder_of(tmp_path, {"p0.jsonl": record("a"), **empty})
    assert texts(files) == {"p0.jsonl": ["a"]}
    assert left_out_notes([str(tmp_path)]) == [
        f"{tmp_path}: 5 files are not read: 5 empty (p1.jsonl, p2.csv.gz, p3.json.xz, p5.jsonl.zst, part-00004); "
        "a file that is named itself is read"
    ]
    with pytest.raises(CorpusError, match=r"p1\.jsonl: is empty$"):
        find_sources([str(tmp_path / "p1.jsonl")])


def read(path: Path, content: bytes) -> list[Document]:
    path.write_bytes(content)
    return list(read_documents(find_sources([str(path)])[0], Template(), RecordErrors("skip")))


def test_long_zstd_windows_and_many_frames(tmp_path: Path) -> None:
    long = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True, hash_log=6, chain_log=6)
    packer = zstandard.ZstdCompressor(
        compression_params=long
    ).compressobj()  # of unknown size: the frame names its window
    frame = packer.compress(record("a") * 1000) + packer.flush()
    assert zstandard.get_frame_parameters(frame).window_size == 1 << 30
    plain = zstandard.ZstdCompressor().compress(record("b"))
    assert [d.text for d in read(tmp_path / "a.jsonl.zst", frame + plain)] == ["a"] * 1000 + ["b"]


def test_a_zstd_file_cut_at_any_byte_is_an_error(tmp_path: Path) -> None:
    packer = zstandard.ZstdCompressor(level=1)
    noise = bytes(range(1, 9)) * 2 + b"\n"
    whole = packer.compress(record("a" * 50) + record(noise.hex())) + packer.compress(record("b"))
    cut_between_frames = len(packer.compress(record("a" * 50) + record(noise.hex())))
    for size in range(1, len(whole)):
        if size == cut_between_frames:
            continue
        with pytest.raises(CorpusError, match="cannot read"):
            read(tmp_path / "a.jsonl.zst", whole[:size])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".csv", ".tsv", ".json"])
def test_wide_text_is_named(tmp_path: Path, encoding: str, suffix: str) -> None:
    with pytest.raises(CorpusError, match=r"is UTF-16 or UTF-32 text; expected UTF-8: convert it with iconv"):
        read(tmp_path / f"a{suffix}", '{"text": "a"}\n{"text": "b"}\n'.encode(encoding))


def test_tsv_without_quoting(tmp_path: Path) -> None:
    content = b'id\ttext\n1\t"Hello\n2\tsaid" she\n3\t"whole"\n4\ta ""b"" c\n'
    assert [d.text for d in read(tmp_path / "a.tsv", content)] == ['"Hello', 'said" she', '"whole"', 'a ""b"" c']
    quoted = b'"id"\t"text"\n"1"\t"two\nlines"\n"2"\t"a ""b"" c"\n'
    assert [d.text for d in read(tmp_path / "b.tsv", quoted)] == ["two\nlines", 'a "b" c']


def test_equal_names_of_columns_are_refused(tmp_path: Path) -> None:
    errors = RecordErrors("skip")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a", "text": "b"}\n{"text": "c", "x": {"y": 1, "y": 2}}\n{"text": "d"}\n')
    assert [d.text for d in read_documents(find_sources([str(path)])[0], Template(), errors)] == ["d"]
    assert errors.first == [
        f"{path}:1: field 'text' appears twice in one JSON object", f"{path}:2: field 'y' appears twice in one JSON object"
    ]  # fmt: skip
    for suffix, content in ((".csv", b"text,n,text\na,1,b\n"), (".tsv", b"text\ttext\na\tb\n")):
        with pytest.raises(CorpusError, match=r":1: column 'text' appears twice in the header"):
            read(tmp_path / f"a{suffix}", content)
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: column 'text' appears twice"):
        read(tmp_path / "a.parquet", (tmp_path / "a.parquet").read_bytes())
    with pytest.raises(CorpusError, match=r"field 'text' appears twice in one JSON object"):
        read(tmp_path / "a.json", b'[{"text": "a", "text": "b"}]')


def test_equal_names_of_arrays_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for member in ("hidden.npy", "hidden"):
            with archive.open(member, "w") as file:
                np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"a\.npz: array hidden appears twice"):
        open_arrays(str(tmp_path / "a.npz"))


def test_a_note_is_one_printable_line(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a.jsonl": record("a"), "b\n\x1b[31m.pdf": b"x"})
    assert r"(b\n\x1b[31m.pdf)" in left_out_notes([str(tmp_path)])[0]
