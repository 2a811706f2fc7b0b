"""A corpus at URLs gives the same store as the local one, byte for byte, killed and resumed too; wrong access is one line."""

from __future__ import annotations

import io
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import zstandard
from click.testing import CliRunner
from command_server import CommandServer
from headwater.cli import main
from headwater.engine.data import remote_bytes
from headwater.engine.data.sources import find_sources
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.store.errors import CorpusError
from headwater.store.feature_store import FeatureStore
from moto.server import ThreadedMotoServer
from range_server import serving
from small import save_model, sentences, tree

TEXTS = sentences(1500)
PARTS = {
    "0.jsonl.zst": zstandard.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:700]).encode()),
    "b/1.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[700:900]).encode(),
}


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS[900:], "n": range(600)}), sink, row_group_size=100)
    return sink.getvalue()


FILES = {**PARTS, "b/2.parquet": parquet(), "README.md": b"---\nlicense: mit\n---\n"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The corpus in a bucket of an S3 server on loopback, whose address and keys are in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no look for a role of the machine
        client = boto3.client("s3")
        client.create_bucket(Bucket="texts")
        for name, content in FILES.items():
            client.put_object(Bucket="texts", Key=f"corpus/{name}", Body=content)
        client.close()
        yield "s3://texts/corpus"
    server.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A store of the local corpus."""
    folder = tmp_path_factory.mktemp("local")
    for name, content in FILES.items():
        (folder / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "corpus" / name).write_bytes(content)
    prepare(job([str(folder / "corpus")], folder / "store", model)).ingest()
    return folder / "store"


def job(corpus: list[Any], store: Path, model: Path, **changes: Any) -> IngestJob:
    return IngestJob(corpus, str(store), ModelChoice(str(model), device="cpu"), {"rise": {}}, **changes)


def assert_same_but_paths(store: Path, other: Path) -> None:
    """Equal in every file but the root, and there in all but the paths of the corpus (and the seal over them)."""
    files, others = tree(store), tree(other)
    root, other_root = (json.loads(part.pop("zarr.json")) for part in (files, others))
    assert files == others
    for record in (root, other_root):
        attributes = record["attributes"]["headwater"]
        attributes.pop("seal")
        for source in attributes["provenance"]["sources"]:
            source.pop("path")
    assert root == other_root


def test_a_corpus_on_s3_gives_the_local_store_and_notes_what_is_left_out(
    bucket: str, whole: Path, model: Path, tmp_path: Path
) -> None:
    prepared = prepare(job([bucket], tmp_path / "store", model))
    assert any("README.md" in note and bucket in note for note in prepared.notes)
    assert "blocks of a file at a URL" in [part.name for part in prepared.plan.parts]
    prepared.ingest()
    assert_same_but_paths(tmp_path / "store", whole)
    paths = [source["path"] for source in FeatureStore.open(str(tmp_path / "store")).provenance["sources"]]
    assert paths == [f"{bucket}/0.jsonl.zst", f"{bucket}/b/1.jsonl", f"{bucket}/b/2.parquet"]
    by_glob = find_sources([f"{bucket}/**/*.jsonl*"])
    assert [source.path for source in by_glob] == paths[:2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_at_five_moments_and_resumed(bucket: str, whole: Path, model: Path, tmp_path: Path) -> None:
    store, draw, kills = tmp_path / "store", random.Random(1), 0
    words = ["ingest", bucket, "--store", str(store), "--model", str(model), "--device", "cpu", "--commit-seconds", "0"]
    with CommandServer() as server:
        while kills < 5:
            ended = server.run(*words, below=store, killed_at=draw.randint(1, 60))
            assert ended.code == -signal.SIGKILL, ended
            kills += 1
        ended = server.run(*words)
        assert ended.code == 0, ended
    assert_same_but_paths(store, whole)


def test_an_appended_file_at_a_signed_url_continues_after_it_broke_off(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_bytes, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(remote_bytes, "STREAM_BLOCK", 1 << 15)
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    store = tmp_path / "store"
    with serving(tmp_path) as server:
        size, server.cut_at = len("".join(lines)), None
        prepared = prepare(job([f"{server.url}/a.jsonl?sig=Zx81First"], store, model, commit_seconds=0.0))
        server.cut_at = 2 * size // 3
        with pytest.raises(
            CorpusError, match=rf"^{server.url}/a.jsonl:\d+: cannot read beyond this: broke off at byte"
        ) as broken:
            prepared.ingest()
        assert "Zx81" not in str(broken.value)
        assert FeatureStore.open(str(store)).rows("examples") >= 512
        server.cut_at = None
        prepare(job([f"{server.url}/a.jsonl?sig=Zx81Second"], store, model)).ingest()
        url = f"{server.url}/a.jsonl"
    prepare(job([str(tmp_path / "a.jsonl")], tmp_path / "local", model)).ingest()
    assert_same_but_paths(store, tmp_path / "local")
    assert [source["path"] for source in FeatureStore.open(str(store)).provenance["sources"]] == [url]
    assert not any(b"Zx81" in content for content in tree(store).values())


def test_refusals_of_s3_are_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for url, words in {
        f"{bucket}/absent.jsonl": "no such file or folder",
        "s3://absent-bucket/a.jsonl": "no such file or folder",
    }.items():
        with pytest.raises(CorpusError, match=rf"^{url}: {words}"):
            find_sources([url])
    with serving(tmp_path) as server:  # S3 answers so for an expired token
        server.status = 400
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", server.url)
            s3fs.S3FileSystem.clear_instance_cache()
            with pytest.raises(
                CorpusError,
                match=r"^s3://texts/a.jsonl: access was denied \(400\).*expired.*\nhint: set AWS_.*AWS_PROFILE",
            ):
                find_sources(["s3://texts/a.jsonl"])
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(remote_bytes, "WAITS", (0.0, 0.0))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CorpusError, match=r"^s3://texts/corpus: credentials are missing") as missing:
        find_sources([bucket])
    assert missing.value.hint.startswith("set AWS_ACCESS_KEY_ID")
    s3fs.S3FileSystem.clear_instance_cache()


def test_queries_at_a_signed_url_are_answered_and_the_url_is_nowhere(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(PARTS["b/1.jsonl"])
    store, output = str(tmp_path / "store"), str(tmp_path / "answers.jsonl")
    job_of_both = IngestJob(
        [str(tmp_path / "a.jsonl")], store, ModelChoice(str(model), device="cpu"), {"rise": {}, "grasp": {}}
    )
    prepare(job_of_both).ingest()
    with serving(tmp_path) as server:
        url = f"{server.url}/a.jsonl?sig=Zx81"
        for words in (["attribute", store, "--queries", url, "--top", "1", "-o", output, "--json"],
                      ["select", store, "--queries", url, "--count", "3", "-o", str(tmp_path / "chosen.jsonl")]):  # fmt: skip
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, done.output
            assert "Zx81" not in done.output
        absent = CliRunner().invoke(main, ["attribute", store, "--queries", f"{server.url}/b.jsonl?sig=Zx81"])
        assert absent.exit_code == 1 and absent.output.startswith(
            f"error: {server.url}/b.jsonl: no such file or folder (404)"
        )
        assert "Zx81" not in absent.output
    answers = [json.loads(line) for line in Path(output).read_text().splitlines()]
    assert [answer["example_id"] for answer in answers] == [f"a.jsonl:{line}" for line in range(1, 201)]
    assert "Zx81" not in Path(output).read_text()
    assert not any(b"Zx81" in content for content in tree(Path(store)).values())
