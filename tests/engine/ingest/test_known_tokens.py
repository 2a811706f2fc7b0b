"""A token that the model has no embedding for is one line with the record, or leaves that record out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from headwater.cli import main
from headwater.store.feature_store import EXAMPLES, FeatureStore
from small import save_model

SMALL = ["--set", "rise.kr", "12", "--set", "rise.kh", "8", "--set", "rise.kg", "4"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose tokenizer has three tokens more than the model's vocabulary."""
    from transformers import PreTrainedTokenizerFast

    folder = save_model(tmp_path / "model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    missing = 320 - len(tokenizer)
    tokenizer.add_tokens([f"<|x{number}|>" for number in range(missing + 3)])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_token_without_an_embedding_names_its_record(model: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    last = tokenizer.convert_ids_to_tokens(322)
    corpus, texts = tmp_path / "c.jsonl", {"a": "the river runs", "b": f"the {last} runs", "c": "one two"}
    corpus.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    words = ["ingest", str(corpus), "--store", str(tmp_path / "s"), "--model", str(model), *SMALL]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and result.stderr.count("error:") == 1
    line = next(line for line in result.stderr.splitlines() if line.startswith("error:"))
    assert f"c.jsonl:2: b has the token '{last}' (322)" in line and "vocabulary has 320 tokens" in line
    result = CliRunner().invoke(main, [*words[:3], str(tmp_path / "t"), *words[4:], "--on-error", "skip"])
    assert result.exit_code == 0 and "c.jsonl:2: b has the token" in result.stderr
    assert FeatureStore.open(str(tmp_path / "t")).rows(EXAMPLES) == 2
