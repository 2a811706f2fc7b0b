"""Models by hub id, from a hub on this machine: downloaded once, read from the cache, and refused in one line without secrets."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_server import CommandServer, Ended
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.models.third_party_errors import without_credentials
from headwater.store.errors import ModelError
from safetensors.torch import load_file, save_file
from small import save_model, sentences, write_corpus
from small_hub import SmallHub

SECRET = "hf_abcdefghijklmnopqrstuvwxyz"
ENVIRONMENT = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1", "HF_HUB_ETAG_TIMEOUT": "1"}


class Site:
    """A hub, a process with an empty cache that runs commands and asks this hub, a corpus and queries."""

    def __init__(self, folder: Path, hub: SmallHub, server: CommandServer) -> None:
        self.folder, self.hub, self.server = folder, hub, server
        self.token = folder / "home" / "token"
        write_corpus(folder / "corpus.jsonl", sentences(12))

    def ingest(self, model: str, store: str) -> Ended:
        """Ingest the corpus through a model."""
        words = ["ingest", "corpus.jsonl", "--store", store, "--model", model, "--method", "repsim"]
        return self.server.run(*words, folder=self.folder)

    def attribute(self, store: str) -> Ended:
        """Ask a store."""
        words = ["attribute", store, "--method", "repsim", "--queries", "corpus.jsonl"]
        return self.server.run(*words, folder=self.folder)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("hub")
    save_model(folder / "tiny")
    before = dict(os.environ)
    with SmallHub() as hub:
        hub.models = {"org/tiny": folder / "tiny"}
        os.environ |= {**ENVIRONMENT, "HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home")}
        os.environ.pop("HF_TOKEN", None)
        with CommandServer() as server:
            yield Site(folder, hub, server)
        os.environ.clear()
        os.environ |= before


def refused(ended: Ended) -> str:
    """The only line of a command that failed."""
    lines = [line for line in ended.err.splitlines() if line]
    assert ended.code == 1 and len(lines) == 1 and SECRET not in ended.err, ended
    return lines[0]


def serve(site: Site, name: str, **changes: Any) -> str:
    """Serve the model under another hub id; its weights in two files if `split`."""
    folder = shutil.copytree(site.folder / "tiny", site.folder / name)
    if changes.get("split"):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        parts = {f"model-0000{part + 1}-of-00002.safetensors": sorted(tensors)[part::2] for part in range(2)}
        for file, names in parts.items():
            save_file({key: tensors[key] for key in names}, folder / file, metadata={"format": "pt"})
        places = {key: file for file, names in parts.items() for key in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    site.hub.models[f"org/{name}"] = folder
    return f"org/{name}"


def test_a_model_is_downloaded_once_and_asked_again_without_the_hub(site):
    made = site.ingest("org/tiny", "S")
    assert made.code == 0, made.err
    assert site.ingest(str(site.folder / "tiny"), "F").code == 0
    stores = [json.loads((site.folder / store / "zarr.json").read_text()) for store in "SF"]
    facts = [next(value for value in _records(store) if "model_path" in value) for store in stores]
    assert facts[0]["model"] == facts[1]["model"] and facts[0]["model_path"] == "org/tiny"
    downloads = [path for verb, path in site.hub.requests if verb == "GET" and "resolve" in path]
    assert len(downloads) == len(set(downloads)) and not any("README" in path for path in downloads)
    answer, count = site.attribute("S"), len(downloads)
    assert answer.code == 0, answer.err
    downloads = [path for verb, path in site.hub.requests if verb == "GET" and "resolve" in path]
    assert len(downloads) == count  # from the cache
    models, site.hub.models = site.hub.models, {}
    assert site.attribute("S").out == answer.out  # the hub has forgotten it
    site.hub.models = models


def _records(value: Any) -> Iterator[dict[str, Any]]:
    """All objects within a JSON value."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _records(part)


def test_an_adapter_by_id_finds_its_base_by_id(site, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(site.folder / "tiny")
    settings = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers for a name that it deprecates
        adapted: Any = get_peft_model(model, settings)
    adapted.peft_config["default"].base_model_name_or_path = "org/tiny"
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    site.hub.models["org/adapter"] = tmp_path / "adapter"
    made = site.ingest("org/adapter", "A")
    assert made.code == 0, made.err


def test_a_download_that_stops_is_said_and_continued(site):
    name = serve(site, "cut", split=True)
    weights = "model-00002-of-00002.safetensors"
    site.hub.breaks_off.add(weights)
    line = refused(site.ingest(name, "C"))
    assert "the download of org/cut" in line and "stopped" in line and "run the command again to continue it" in line
    assert not (site.folder / "C").exists()
    site.hub.breaks_off.clear()
    made = site.ingest(name, "C")
    assert made.code == 0, made.err
    assert ("GET", f"/org/cut/resolve/{site.hub.commit('org/cut')}/{weights}") in site.hub.requests


def test_missing_expired_and_insufficient_credentials_are_named_and_not_printed(site):
    name = serve(site, "private")
    site.hub.tokens[name] = SECRET
    assert "neither a model folder nor a public model on the hub (401)" in refused(site.ingest("org/absent", "P"))
    line = refused(site.ingest(name, "P"))
    assert "if it is private, give an access token by HF_TOKEN or `hf auth login`" in line
    site.token.write_text(SECRET[::-1])
    line = refused(site.ingest(name, "P"))
    assert "refuses the access token for org/private" in line and SECRET[::-1] not in line
    site.hub.gated.add(name)
    line = refused(site.ingest(name, "P"))
    assert "org/private is gated: accept its terms on the hub, and give another access token by HF_TOKEN" in line
    site.hub.gated.clear()
    site.token.write_text(SECRET)
    made = site.ingest(name, "P")
    assert made.code == 0 and SECRET not in made.out + made.err, made.err
    site.token.unlink()
    assert site.attribute("P").code == 0  # from the cache, without the token


def test_what_no_model_can_be_read_from_is_refused(site):
    folder = site.folder / "pickled"
    shutil.copytree(site.folder / "tiny", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    site.hub.models["org/pickled"] = folder
    assert "org/pickled on the hub has no safetensors weights" in refused(site.ingest("org/pickled", "N"))
    (site.folder / "ggufs").mkdir()
    (site.folder / "ggufs" / "m.gguf").touch()
    site.hub.models["org/ggufs"] = site.folder / "ggufs"
    assert "no config.json): download its GGUF file and name this" in refused(site.ingest("org/ggufs", "N"))
    assert "neither a model folder nor a model on the hub" in refused(site.ingest("no id!", "N"))


def test_a_hub_that_does_not_answer_or_is_not_there_costs_little_time(site):
    """The hub does not listen any more afterwards."""
    assert site.ingest("org/tiny", "S").code == 0
    answer = site.attribute("S")
    for stop in ("silent", "stopped"):
        site.hub.silent = True
        if stop == "stopped":
            site.hub.stop()
        start = time.monotonic()
        line = refused(site.ingest("org/other", "X"))
        assert (
            "org/other is no folder" in line and "cannot be reached" in line and "no copy of it: give a folder" in line
        )
        assert time.monotonic() - start < 15  # the library alone retries for 23 seconds
        assert site.attribute("S").out == answer.out  # from the cache


def test_offline_the_cache_is_read(site):
    assert site.ingest("org/tiny", "S").code == 0
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    words = ["attribute", "S", "--method", "repsim", "--queries", "corpus.jsonl"]
    ended = subprocess.run(
        [sys.executable, "-m", "headwater", *words], cwd=site.folder, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_offline_a_model_that_is_not_there_is_named(tmp_path):
    """This process is offline."""
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set, and the cache holds no copy of it: unset it"):
        load(ModelChoice("org/nowhere", "cpu"))


def test_credentials_are_taken_out_of_messages(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain-words")
    text = (
        f"Illegal header b'Bearer x.y' {SECRET} https://me:pw@hub/a?X-Signature=abc 'plain-words' https://hub/b?sig=1"
    )
    shown = without_credentials(text)
    assert not any(secret in shown for secret in ("x.y", SECRET, "pw", "abc", "plain-words", "sig=1"))
    assert "https://…@hub/a?…" in shown
