"""Data sets by name are streamed from a hub on loopback, or from a local folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from headwater.engine.data.hub_datasets import hub_dataset, is_hub_dataset
from headwater.engine.data.sources import find_sources, left_out_notes, read_source
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.store.errors import CorpusError
from headwater.store.feature_store import FeatureStore
from hub_server import HubServer
from range_server import serving
from small import save_model, sentences, write_corpus

datasets.disable_progress_bars()
CODE = """
import json, sys
from headwater.engine.data.sources import find_sources, read_source
from headwater.store.errors import CorpusError

def facts(path):
    try:
        (source,) = find_sources([path])
        return [source.name, [r.fields["text"] for r in read_source(source, 995, None)]]
    except CorpusError as error:
        return f"{error}; {error.hint}"

print(json.dumps([facts(path) for path in sys.argv[1:]]))
"""


def test_which_paths_are_names_of_data_sets() -> None:
    names = ("hf:org/name", "hf:./folder?split=train", "hf:org/name?split=train&config=en")
    assert all(map(is_hub_dataset, names))
    assert not any(map(is_hub_dataset, ("hf://datasets/org/name", "hf:", "hf: a", "org/name", "s3://hf:x")))


def test_a_data_set_of_the_hub_is_streamed_from_any_record_on(tmp_path: Path) -> None:
    folder = tmp_path / "org/name/data"
    folder.mkdir(parents=True)
    for split, part, count in (
        ("train", "00000-of-00002", 990),
        ("train", "00001-of-00002", 10),
        ("test", "00000-of-00001", 5),
    ):
        rows = [f"{split} {part} {row}" for row in range(count)]
        pq.write_table(pa.table({"text": rows}), folder / f"{split}-{part}.parquet", row_group_size=100)
    names = [
        "hf:org/name?split=train",
        "hf:org/name",
        "hf:org/name?split=dev",
        "hf:org/absent?split=train",
        "hf:org/name?a=b",
    ]
    with serving(tmp_path, HubServer) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", CODE, *names],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
        )
    read, several, unknown, absent, option = json.loads(done.stdout)
    assert read == ["org/name/train", [f"train 00001-of-00002 {row}" for row in range(5, 10)]]
    assert several == "hf:org/name has the splits train, test; name one, as in hf:org/name?split=train"
    assert unknown.startswith("hf:org/name?split=dev: ") and "dev" in unknown[22:]
    assert absent.startswith("hf:org/absent?split=train: ") and "\n" not in absent
    assert option == "hf:org/name?a=b: unknown option 'a'; the options are split, config, revision"


def test_a_local_folder_gives_the_rows_of_its_file(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    (tmp_path / "texts").mkdir()
    path = write_corpus(tmp_path / "texts/train.jsonl", sentences(60))
    reference = f"hf:{tmp_path}/texts?split=train"
    (source,), (file,) = find_sources([reference]), find_sources([str(path)])
    for start in (0, 57):
        rows = [[record.fields for record in read_source(part, start, None)] for part in (source, file)]
        assert rows[0] == rows[1]
    for corpus in (reference, str(path)):
        store = tmp_path / source.digest if corpus == reference else tmp_path / "file"
        job = IngestJob([corpus], str(store), ModelChoice(str(model), device="cpu"), {"rise": {}})
        prepared = prepare(job)
        assert prepared.notes == []
        assert prepared.ingest().rows == 60
    assert (
        prepare(IngestJob([reference], str(tmp_path / source.digest), ModelChoice(str(model)), {"rise": {}}))
        .ingest()
        .added
        == 0
    )
    (record,) = FeatureStore.open(str(tmp_path / source.digest)).provenance["sources"]
    assert (record["name"], record["path"]) == (f"{tmp_path}/texts/train", reference)
    assert left_out_notes([reference]) == []


def test_damage_is_named_with_the_record_reached(tmp_path: Path) -> None:
    write_corpus(tmp_path / "train.jsonl", sentences(20))
    source = hub_dataset(f"hf:{tmp_path}?split=train")
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"/train:0: cannot read beyond this: no such file"):
        list(source.records(0))
