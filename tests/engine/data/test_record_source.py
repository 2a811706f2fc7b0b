"""Records that do not lie in a file are read like those of a file."""

import json

from headwater.engine.data.documents import RecordErrors, Template, read_documents
from headwater.engine.data.record_source import RecordSource
from headwater.engine.data.sources import find_sources, read_source

ROWS = [{"prompt": "a ", "completion": "b"}, {"text": "c"}, {"text": "d", "id": 7}]
RECORDS = RecordSource("rows", "0f", 3, lambda start: iter(ROWS[start:]))


def test_records_become_the_documents_of_a_file_with_the_same_records(tmp_path):
    path = tmp_path / "rows"
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    errors = RecordErrors("fail")
    (memory,) = find_sources([RECORDS])
    (file,) = find_sources([str(path.with_suffix(".jsonl"))])
    documents = [list(read_documents(source, Template(), errors)) for source in (memory, file)]
    texts = [[(d.prompt, d.text, d.record) for d in part] for part in documents]
    assert texts[0] == texts[1] == [("a ", "b", 0), ("", "c", 1), ("", "d", 2)]
    assert [d.id for d in documents[0]] == ["rows:1", "rows:2", "7"]


def test_records_are_read_from_any_record_on():
    (source,) = find_sources([RECORDS])
    assert [record.ordinal for record in read_source(source, 1, None)] == [1, 2]
    assert (source.size, source.digest, source.format) == (3, "0f", "records")
