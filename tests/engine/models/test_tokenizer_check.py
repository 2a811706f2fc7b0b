"""A loaded tokenizer gives the tokens of its tokenizer.json, or is refused in one line."""

import json
import shutil

import pytest
from headwater.engine.models.model_files import read_tokenizer
from headwater.store.errors import ModelError
from tokenizers import Tokenizer

TEXT = "the river  runs\n\n  down to 12345 seas"


@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize(
    "name", ["TokenizersBackend", "PreTrainedTokenizerFast", "LlamaTokenizerFast", "Qwen2Tokenizer"]
)
def test_tokens_are_those_of_the_file_or_the_tokenizer_is_refused(kind, name, model_folder, tmp_path):
    folder = shutil.copytree(model_folder(kind), tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": name}))
    try:
        tokenizer = read_tokenizer(str(folder), False)
    except ModelError as error:
        assert name not in ("TokenizersBackend", "PreTrainedTokenizerFast")
        assert "other tokens than its tokenizer.json" in str(error) and "set tokenizer_class" in str(error)
        assert "\n" not in str(error)
        return
    assert name != "Qwen2Tokenizer"  # that class cuts texts by its own rule
    by_file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer(TEXT, add_special_tokens=False)["input_ids"] == by_file.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.decode(by_file.encode(TEXT, add_special_tokens=False).ids) == TEXT
    assert tokenizer.bos_token_id == 0


def test_a_tokenizer_with_a_setting_of_another_type_is_refused(model_folder, tmp_path):
    folder = shutil.copytree(model_folder("Llama"), tmp_path / "m")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": {}}))
    with pytest.raises(ModelError, match="has no tokenizer that loads"):
        read_tokenizer(str(folder), False)
