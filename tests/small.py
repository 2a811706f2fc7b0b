"""Small real models and corpora that several tests read: random weights, a trained tokenizer, nothing downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

WORDS = (  # noqa: SIM905 — a sentence is easier to read than a list
    "river stone light garden engine window paper winter music bridge silver orange market forest doctor camera"
).split()


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 40 words, all different."""
    import numpy as np

    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 40, count)
    return [f"{number} " + " ".join(draw.choice(WORDS, length)) for number, length in enumerate(lengths)]


def save_model(folder: Path, seed: int = 0, **config: int) -> Path:
    """A random Llama of two layers with a byte-level BPE, as a Hugging Face folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "max_position_embeddings": 128, **config}  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(200), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return folder


def write_corpus(path: Path, texts: Sequence[str]) -> Path:
    """A JSONL file of texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the writers' lock files, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".writers")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
