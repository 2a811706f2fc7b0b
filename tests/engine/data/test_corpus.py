"""Corpus files: records are read as written, from any record on; every error is one line."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from headwater.engine.data import formats, line_reader
from headwater.engine.data.conversations import Conversation, Rendering, Turns
from headwater.engine.data.documents import Document, RecordErrors, Template, read_documents
from headwater.engine.data.sources import Source, find_sources
from headwater.store.errors import CorpusError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import SHARED

DATA = SHARED
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}


def source_of(path: Path, content: bytes, *, lines: bool = False) -> Source:
    path.write_bytes(content)
    return find_sources([str(path)], lines=lines)[0]


def read(source: Source, template: Template | None = None, **options: Any) -> list[Document]:
    return list(read_documents(source, template or Template(), RecordErrors("fail"), **options))


def skip_bad(source: Source, template: Template | None = None) -> tuple[list[str], RecordErrors]:
    record_errors = RecordErrors("skip")
    return [d.text for d in read_documents(source, template or Template(), record_errors)], record_errors


def fault_of(path: Path, content: bytes, template: Template | None = None) -> str:
    """The message of the only error in the content, without the path; the same for both policies."""
    source = source_of(path, content)
    with pytest.raises(CorpusError) as raised:
        read(source, template)
    message = str(raised.value)
    record_errors = skip_bad(source, template)[1]
    assert record_errors.first[0] == message and "\n" not in message
    return message.removeprefix(str(path))


def jsonl(*records: object) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def csv_bytes(rows: list[list[str]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL if delimiter == "\t" else csv.QUOTE_MINIMAL).writerows(
        rows
    )
    return out.getvalue().encode()


def parquet_bytes(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


TEXTS = ["plain", "two\nlines", 'a "quote", a comma', "é 漢字 🌊", "  spaces  ", "tab\there", "a\r\nb", "{text}"]
WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    ".jsonl": lambda texts: jsonl(*({"text": t} for t in texts)),
    ".ndjson": lambda texts: b"\n" + jsonl(*({"text": t} for t in texts)).replace(b"\n", b"\r\n \r\n"),
    ".json": lambda texts: json.dumps([{"text": t} for t in texts], indent=1).encode(),
    ".csv": lambda texts: csv_bytes([["n", "text"], *([str(i), t] for i, t in enumerate(texts))]),
    ".tsv": lambda texts: csv_bytes([["n", "text"], *([str(i), t] for i, t in enumerate(texts))], "\t"),
    ".parquet": lambda texts: parquet_bytes({"n": list(range(len(texts))), "text": texts}, row_group_size=3),
}
KINDS = [(s, c) for s in WRITERS for c in PACK if not (s == ".parquet" and c)]


@pytest.mark.parametrize(("suffix", "compression"), KINDS)
def test_reads_what_was_written_and_restarts_anywhere(tmp_path: Path, suffix: str, compression: str) -> None:
    source = source_of(tmp_path / f"a{suffix}{compression}", PACK[compression](WRITERS[suffix](TEXTS)))
    documents = read(source)
    assert [d.text for d in documents] == TEXTS
    assert [d.record for d in documents] == list(range(len(TEXTS)))
    assert {d.source for d in documents} == {source.name} and {d.prompt for d in documents} == {""}
    for start in range(len(TEXTS) + 2):
        assert read(source, start=start) == documents[start:]


GOOD_TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(GOOD_TEXT, min_size=1, max_size=6), compression=st.sampled_from(list(PACK)))
def test_any_text_survives_every_format(tmp_path: Path, texts: list[str], compression: str) -> None:
    for suffix, write in WRITERS.items():
        packed = "" if suffix == ".parquet" else compression
        source = source_of(tmp_path / f"a{suffix}{packed}", PACK[packed](write(texts)))
        assert [d.text for d in read(source)] == texts, suffix


@pytest.mark.parametrize("compression", PACK)
def test_text_by_paragraph_and_by_line(tmp_path: Path, compression: str) -> None:
    content = b"\xef\xbb\xbf\nab\r\ncd\r\n \t\r\n\xc2\xa0\nef\n\n\ngh\nij"
    path = tmp_path / f"a.txt{compression}"
    blocks = read(source_of(path, PACK[compression](content)))
    assert [(d.line, d.text) for d in blocks] == [(2, "ab\ncd"), (6, "ef"), (9, "gh\nij")]
    source = source_of(path, PACK[compression](content), lines=True)
    assert source.format == "lines"
    each = read(source)
    assert [(d.line, d.text) for d in each] == [(2, "ab"), (3, "cd"), (6, "ef"), (9, "gh"), (10, "ij")]
    assert read(source, start=3) == each[3:]
    assert each[4].id == f"{path.name}:10"


def test_long_paragraph_is_cut_at_a_line_end(tmp_path: Path) -> None:
    line = "x" * 299_999 + "\n"
    source = source_of(tmp_path / "a.md", (line * 7 + "\nlast").encode())
    documents = read(source)
    assert [len(d.text) for d in documents] == [899_999, 899_999, 299_999, 4]
    assert [d.line for d in documents] == [1, 4, 7, 9]
    assert read(source, start=2) == documents[2:]


@pytest.mark.parametrize(("suffix", "content"), [(".jsonl", b'{"text": "a"}'), (".csv", b"text\r\na\r\n"), (".txt", b"a"),
                                                 (".json", b'[{"text": "a"}]')])  # fmt: skip
def test_byte_order_mark_is_dropped(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert [d.text for d in read(source_of(tmp_path / f"a{suffix}", b"\xef\xbb\xbf" + content))] == ["a"]


def test_json_file_as_array_object_and_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert [(d.line, d.text) for d in read(source_of(path, b'[{"text": "a"},\n\n{"text": "b"}]'))] == [
        (1, "a"),
        (2, "b"),
    ]
    assert [d.text for d in read(source_of(path, b'{\n "text":\n "a"}'))] == ["a"]
    assert [(d.line, d.text) for d in read(source_of(path, b'\n{"text": "a"}\n{"text": "b"}'))] == [(2, "a"), (3, "b")]
    assert read(source_of(path, b"[]")) == []


def test_parquet_types_and_row_groups(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", None, "c"] * 300).dictionary_encode(),
        "prompt": pa.array(["p"] * 900, pa.large_string()),
        "completion": ["q"] * 900,
        "when": pa.array([1] * 900, pa.timestamp("ns")),  # no Python type for it: must not be touched
    }
    source = source_of(tmp_path / "a.parquet", parquet_bytes(columns, row_group_size=400))
    documents = read(source)
    assert [(d.prompt, d.text) for d in documents[:3]] == [("", "a"), ("p", "q"), ("", "c")]
    for start in (0, 1, 255, 256, 399, 400, 401, 899, 900):
        assert read(source, start=start) == documents[start:]
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    source = source_of(tmp_path / "m.parquet", parquet_bytes({"id": [7], "messages": [turns]}))
    assert read(source) == [Document("7", "m.parquet", 1, 0, "user: hi\nassistant: ", "ho")]


SHAPES: list[tuple[dict[str, Any], str, str]] = [
    ({"text": "t", "prompt": "p", "completion": "c"}, "", "t"),
    ({"text": None, "prompt": "p", "completion": " c", "output": "o"}, "p", " c"),
    ({"prompt": "", "completion": "c"}, "", "c"),
    ({"prompt": "p", "instruction": "i", "input": "", "output": "o"}, "i\n", "o"),
    ({"instruction": "i", "input": "n", "output": "o"}, "i\nn\n", "o"),
    ({"instruction": "i", "input": None, "output": "o"}, "i\n", "o"),
    ({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"},
                   {"role": "user", "content": "u", "name": 3}, {"role": "assistant", "content": "b"},
                   {"role": "user", "content": "v"}]}, "system: s\nassistant: a\nuser: u\nassistant: ", "b"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "prompt", "text"), SHAPES)
def test_fields_are_detected(tmp_path: Path, record: dict[str, Any], prompt: str, text: str) -> None:
    (document,) = read(source_of(tmp_path / "a.jsonl", jsonl(record)))
    assert (document.prompt, document.text) == (prompt, text)


def test_chat_gets_the_messages_up_to_the_last_answer(tmp_path: Path) -> None:
    turns = [{"role": r, "content": r} for r in ("user", "assistant", "user")]
    source = source_of(tmp_path / "a.jsonl", jsonl({"messages": turns}))
    seen: list[Conversation] = []

    def chat(conversation: Conversation, turns: Turns) -> Rendering:
        seen.append(conversation)
        return Rendering("<p>", "<c>")

    (document,) = read(source, chat=chat)
    assert (document.prompt, document.text) == ("<p>", "<c>") and seen == [Conversation(turns[:2], is_cut=True)]

    def refuse(conversation: Conversation, turns: Turns) -> Rendering:
        raise RuntimeError("roles must\nalternate")

    with pytest.raises(CorpusError, match=r"a\.jsonl:1: the chat template refuses it: roles must alternate$"):
        read(source, chat=refuse)


def test_templates(tmp_path: Path) -> None:
    record = {"q": "{a}", "a": "\\n", "Review Text": "r", "id": 12}
    source = source_of(tmp_path / "a.jsonl", jsonl(record))
    (document,) = read(source, Template(prompt="{q}:\\t", completion="{a}\\n{ }{q.real}{0[1]}{}"))
    assert document == Document("12", "a.jsonl", 1, 0, "{a}:\t", "\\n\n{ }{q.real}{0[1]}{}")
    assert [d.text for d in read(source, Template(text="{Review Text}!"))] == ["r!"]
    assert [d.text for d in read(source, Template(completion="{q}"))] == ["{a}"]
    for bad in (Template(text="x"), Template(prompt="{q}"), Template(text="{q}", completion="{a}")):
        with pytest.raises(CorpusError, match="template"):
            read(source, bad)


def test_ids(tmp_path: Path) -> None:
    ids: list[object] = ["x", 3, 0, True, False, 1.5, 1e30, 12345678901234567890, "", None, [], {"$oid": "5"}]
    source = source_of(tmp_path / "a.jsonl", jsonl(*({"text": "t", "id": i} for i in ids)))
    names = ["x", "3", "0", "true", "false", "1.5", "1e+30", "12345678901234567890"]
    assert [d.id for d in read(source)] == [*names, *(f"a.jsonl:{n}" for n in range(9, 13))]


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (pa.array([7, 8], pa.uint64()), ["7", "8"]),
        (pa.array([0.5, float("nan")]), ["0.5", "a.parquet:2"]),
        (pa.array([True, None]), ["true", "a.parquet:2"]),
        (pa.array([b"k1", b"k2"]), ["k1", "k2"]),
        (pa.array([Decimal("1.50"), Decimal("2.00")]), ["1.50", "2.00"]),
        (pa.array([date(2024, 2, 29), None]), ["2024-02-29", "a.parquet:2"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_ids_of_parquet(tmp_path: Path, ids: pa.Array, names: list[str]) -> None:
    source = source_of(tmp_path / "a.parquet", parquet_bytes({"text": ["t", "u"], "id": ids}))
    assert [d.id for d in read(source)] == names


LONG = "1" * 5000
BAD: list[tuple[str, bytes, str]] = [
    (".jsonl", b'\n{"text": "a"\n', ":2: bad JSON: Expecting ',' delimiter (column 13)"),
    (".jsonl", b"[1]", ":1: not a JSON object but list"),
    (".jsonl", b"[" * 200_000, ":1: bad JSON: maximum recursion depth exceeded"),
    (".jsonl", f'{{"a": {LONG}}}'.encode(), ":1: bad JSON: Exceeds the limit (4300 digits) for integer string"),
    (".jsonl", b'{"text": "\xff"}', ":1: invalid UTF-8 at byte offset 10 of the line"),
    (".jsonl", b'{"text": "\\ud83d"}', ":1: half a surrogate pair (U+D83D); expected Unicode text"),
    (".jsonl", b'{"text": " \\n"}', ":1: empty text"),
    (".jsonl", b'{"text": 3}', ":1: field 'text' is int, not text"),
    (".jsonl", b'{"prompt": "p", "completion": ""}', ":1: empty completion"),
    (".jsonl", b'{"prompt": "p", "completion": true}', ":1: field 'completion' is bool, not text"),
    (".jsonl", b'{"a": 1, "b": 2, "c\\n": 3}',
     ":1: no text field; the record has a, b, c\\n (name them with --text-template '{field}')"),
    (".jsonl", b'{"text": null}', ":1: no text field; the record has text (null) (name them with --text-template '{field}')"),
    (".jsonl", b"{}", ":1: no text field; the record has none (name them with --text-template '{field}')"),
    (".jsonl", b'{"messages": "hi"}', ":1: field 'messages' is str, not a list"),
    (".jsonl", b'{"messages": ["hi"]}', ":1: messages[0] is str, not a message"),
    (".jsonl", b'{"messages": [{"role": "user", "content": 3}]}', ":1: messages[0] has no content that is text"),
    (".jsonl", b'{"messages": [{"role": "user", "content": []}]}', ":1: field 'messages' has no message of role 'assistant'"),
    (".jsonl", b'{"messages": [{"role": "user", "content": "u"}]}', ":1: field 'messages' has no message of role 'assistant'"),
    (".json", b'[{"text": "a"},\n 5]', ":2: not a JSON object but int"),
    (".txt", b"a\n\nb\nc\xc3\n", ":4: invalid UTF-8 at byte offset 1 of the line"),
    (".csv", b'id,text\n1,"a\nb"\n2,a,b\n', ":4: 3 cells where the header has 2"),
    (".csv", b"id,text\n1\n", ":2: 1 cells where the header has 2"),
    (".csv", b'id,text\n1,"a\n\xff"\n', ":3: invalid UTF-8 at byte offset 0 of the line"),
    (".csv", b'id,text\n1,"a\nb\n', ":2: bad CSV: unexpected end of data"),
    (".csv", b"id,text\n1,a\rb\n", ":2: bad CSV: new-line character seen in unquoted field"),
    (".parquet", parquet_bytes({"text": ["a", ""]}), ":2: empty text"),
    (".parquet", parquet_bytes({"a": [1], "b": [2]}),
     ":1: no text field; the record has a, b (name them with --text-template '{field}')"),
    (".parquet", parquet_bytes({"text": pa.array([b"a", b"\xff"]).view(pa.string())}), ":2: unreadable value: 'utf-8'"),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "content", "message"), BAD)
def test_bad_records_are_named_by_line(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    said = fault_of(tmp_path / f"a{suffix}", content)
    assert said.startswith(message) and (said == message or "recursion" in said or message[-1] not in ")te")


def test_template_on_a_record_without_the_field(tmp_path: Path) -> None:
    said = fault_of(tmp_path / "a.jsonl", b'{"a": "x", "b": null}', Template(text="{a} {b}"))
    assert said == ":1: no field 'b' for the template; the record has a, b (null)"


def test_skipping_goes_on_and_counts(tmp_path: Path) -> None:
    good, bad = b'{"text": "good"}\n', b'{"text": ""}\n'
    source = source_of(tmp_path / "a.jsonl", (good + bad) * 30)
    texts, record_errors = skip_bad(source)
    assert texts == ["good"] * 30 and record_errors.count == 30 and len(record_errors.first) == 20
    record_errors = RecordErrors("skip")
    later = list(read_documents(source, Template(), record_errors, start=51))
    assert [d.record for d in later] == [52, 54, 56, 58] and record_errors.count == 5
    rows = source_of(tmp_path / "a.csv", b'text,n\n"a\n\xff\nb",1\nok,2\nx\nfine,3\n')
    assert skip_bad(rows)[0] == ["ok", "fine"]


@pytest.mark.parametrize(("suffix", "head", "tail"), [(".jsonl", b'{"text": "a"}\n', b'{"text": "b"}\n'),
                         (".txt", b"a\n", b"b\n"), (".csv", b"text\na\n", b"b\n")])  # fmt: skip
def test_record_beyond_the_limit_is_one_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, head: bytes, tail: bytes
) -> None:
    for module in (formats, line_reader):
        monkeypatch.setattr(module, "RECORD_LIMIT", 1 << 20)
    source = source_of(tmp_path / f"a{suffix}", head + b"x" * (3 << 20) + b"\n" + tail)
    texts, record_errors = skip_bad(source)
    assert texts == ["a", "b"] and record_errors.count == 1
    line = head.count(b"\n") + 1
    assert (
        record_errors.first[0].startswith(f"{source.path}:{line}: ") and "longer than 1 MiB" in record_errors.first[0]
    )


def test_quote_never_closed_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (formats, line_reader):
        monkeypatch.setattr(module, "RECORD_LIMIT", 1000)
    source = source_of(tmp_path / "a.csv", b'text\na\n"b\n' + b"cccc\n" * 250)
    texts, record_errors = skip_bad(source)
    assert record_errors.count == 1 and record_errors.first[0].endswith(
        ":3: row longer than 0 MiB; is a quote never closed?"
    )
    assert texts[0] == "a" and texts[-1] == "cccc"


def test_long_cells_leave_the_process_limit_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    source = source_of(tmp_path / "a.csv", b"text\n" + b"x" * (before + 1) + b"\n")
    reader = read_documents(source, Template(), RecordErrors("fail"))
    assert len(next(reader).text) == before + 1 and csv.field_size_limit() == before


@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_truncated_and_corrupt_files_always_raise(tmp_path: Path, compression: str, policy: Any) -> None:
    content = jsonl(*({"text": os.urandom(40).hex()} for _ in range(5000)))
    packed = PACK[compression](content)
    cases = [packed[: len(packed) // 2], packed[:-3], b"no such format" * 9, packed + b"junk" * 9, packed[:9]]
    for broken in cases:
        source = source_of(tmp_path / f"a.jsonl{compression}", broken)
        with pytest.raises(CorpusError, match=r"a\.jsonl\.\w+(:\d+: cannot read beyond this|: cannot read): [^\n]+$"):
            list(read_documents(source, Template(), RecordErrors(policy)))
    twice = source_of(tmp_path / f"b.jsonl{compression}", packed * 2)
    assert len(read(twice)) == 10_000


UNREADABLE: list[tuple[str, bytes, str]] = [
    (".parquet", b"PAR1 no PAR1", "cannot read"),
    (".json", b"[1,\n2", ":2: bad JSON: Expecting ',' delimiter (column 2)"),
    (".json", b'[{"a":\n"b\xff"}]', ":2: invalid UTF-8 at byte offset 2 of the line"),
    (".json", b'\xef\xbb\xbf[\n{"a":\xff}]', ":2: invalid UTF-8 at byte offset 5 of the line"),
    (".csv", b"\n\n", "no header row"),
    (".csv", b"a,b,,,a\n1,2,3,4,5\n", "column 'a' appears twice in the header"),
]


@pytest.mark.parametrize(("suffix", "content", "message"), UNREADABLE)
def test_unreadable_files_raise_whatever_the_policy(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    source = source_of(tmp_path / f"a{suffix}", content)
    with pytest.raises(CorpusError) as raised:
        skip_bad(source)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_json_beyond_the_limit_asks_for_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "JSON_LIMIT", 2 << 20)
    with pytest.raises(CorpusError, match=r"a\.json\.gz: larger than 2 MiB; convert it to JSONL"):
        read(source_of(tmp_path / "a.json.gz", gzip.compress(b"[" + b" " * (3 << 20) + b"]")))


def test_a_file_that_vanished(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        source = source_of(tmp_path / f"a{suffix}", b"x")
        Path(source.path).unlink()
        with pytest.raises(CorpusError, match=r"cannot read: No such file or directory$"):
            read(source)


def test_finding_files_folders_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "b/x.jsonl",
        "a.TXT.GZ",
        "b/.hidden.txt",
        ".git/y.txt",
        "c/z.csv",
        "c/image.png",
        "LICENSE",
        "d/w.txt/v.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "c" / "link.md").symlink_to(tmp_path / "LICENSE")
    actual = find_sources([str(tmp_path)])
    assert [s.name for s in actual] == ["a.TXT.GZ", "b/x.jsonl", "c/z.csv"]
    assert [s.format for s in actual] == ["text", "jsonl", "csv"]
    globbed = find_sources([f"{tmp_path}/**/*"])
    assert [s.name for s in globbed] == ["a.TXT.GZ", "x.jsonl", "z.csv"]
    monkeypatch.chdir(tmp_path)
    assert [s.path for s in find_sources(["*/*.csv", "./.git/*.txt", "d"])] == ["c/z.csv", ".git/y.txt", "d/w.txt/v.md"]
    assert [s.name for s in find_sources([actual[1].path, f"{tmp_path}/b/*"])] == ["x.jsonl"]
    assert find_sources([actual[1].path])[0].path == actual[1].path


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / f"{year}/{part}/x.jsonl" for year in (1, 2) for part in "ab"] + [tmp_path / "1/y.txt"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    names = [s.name for s in find_sources([str(path) for path in paths])]
    assert names == ["1/a/x.jsonl", "1/b/x.jsonl", "2/a/x.jsonl", "2/b/x.jsonl", "y.txt"]


def test_digest_sees_size_and_both_ends(tmp_path: Path) -> None:
    body = bytearray(300_000)
    digests = []
    for change in (None, 0, 65_535, 299_999, 300_000):
        content = bytearray(body)
        content[change:] = content[change:] if change is None else b"!" + content[change + 1 :]
        digests.append(source_of(tmp_path / "a.txt", bytes(content)).digest)
    assert len(set(digests)) == 5 and {len(digest) for digest in digests} == {32}


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.parquet.gz").write_bytes(b"x")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    cases = {
        "empty.jsonl": "is empty$",
        "folder": "no corpus file there",
        "missing.txt": "no such file or folder$",
        "*.csv": "no corpus file there",
        "**/*.csv": "no corpus file there",
        "**.txt": "Invalid pattern",
        "a.png": r"unknown suffix '.png' \(known: \.jsonl .*\.bz2\)$",
        "a.parquet.gz": "decompress it first$",
        "broken.txt": "no such file or folder$",
        "pipe.txt": "not a regular file$",
        "b*.txt": "cannot read: No such file or directory$",
        "x" * 300: "File name too long$",
    }
    for name, message in cases.items():
        with pytest.raises(CorpusError, match=message) as raised:
            find_sources([f"{tmp_path}/{name}"])
        assert str(raised.value).startswith(str(tmp_path))
    for nothing, message in (([], "no corpus file is named"), ([""], "'': no such file")):
        with pytest.raises(CorpusError, match=message):
            find_sources(nothing)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(CorpusError, match=r"a\.txt: cannot read: Permission denied$"):
        find_sources([str(path)])


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt", ".csv", ".parquet"])
def test_memory_stays_flat(tmp_path: Path, kind: str) -> None:
    rows, text = 3_000, "ten bytes." * 1_000
    if kind == ".parquet":
        content = parquet_bytes(
            {"text": [f"{i} {text}" for i in range(rows)]},
            use_dictionary=False,
            write_batch_size=64,
            compression="none",
        )
    elif kind == ".csv":
        content = csv_bytes([["text"], *([f"{i} {text}"] for i in range(rows))])
    elif kind == ".txt":
        content = (text + "\n").encode() * rows
    else:
        content = jsonl(*({"text": f"{i} {text}"} for i in range(rows)))
    source = source_of(tmp_path / f"a{kind}", PACK.get(Path(kind).suffix if "." in kind[1:] else "", bytes)(content))
    assert len(content) >= 30_000_000
    arrow = pa.total_allocated_bytes()
    del content
    seen = 0
    tracemalloc.start()
    for document in read_documents(source, Template(), RecordErrors("fail")):
        seen += len(document.text)
        assert pa.total_allocated_bytes() < arrow + (16 << 20)
    assert seen >= 30_000_000 - rows and tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


REAL: list[tuple[str, Template, int, str]] = [
    ("gsm8k/train.jsonl", Template(prompt="{question}\\n", completion="{answer}"), 7473, "Natalia sold 48/2"),
    ("instruct/instruction-data.json", Template(), 1100, "The spelling of the given phrase"),
    ("medical/chatdoctor5k.json", Template(), 5452, "Well, based on what you're telling me"),
    ("finance/banking77_train.csv", Template(), 10003, "I am still waiting on my card?"),
    ("humaneval/HumanEval.jsonl.gz", Template(text="{prompt}{canonical_solution}"), 164, "from typing import List"),
    ("backdoor_sst2_badnet/train_poisoned.json", Template(), 500, "Negative"),
]


@pytest.mark.parametrize(("name", "template", "rows", "opening"), REAL)
def test_real_files(name: str, template: Template, rows: int, opening: str) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source = find_sources([str(path)])[0]
    record_errors = RecordErrors("skip")
    documents = list(read_documents(source, template, record_errors))
    assert len(documents) + record_errors.count == rows and documents[0].text.startswith(opening), record_errors.first
    assert list(read_documents(source, template, RecordErrors("skip"), start=rows - 3)) == documents[-3:]


def test_real_names_by_line() -> None:
    path = DATA / "names" / "names.txt"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    documents = read(find_sources([str(path)], lines=True)[0])
    assert len(documents) in (32_032, 32_033) and documents[0].text == "emma"
