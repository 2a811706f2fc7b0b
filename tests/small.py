"""Small real models and corpora that several tests read: random weights, a trained tokenizer, nothing downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

WORDS = (  # noqa: SIM905 — a sentence is easier to read than a list
    "river stone light garden engine window paper winter music bridge silver orange market forest doctor camera"
).split()

TEXT = [
    "the river runs down to the sea, and the sea runs nowhere at all",
    "Sentiment: Positive. Sentiment: Negative. Review: a dull film",
    "one two three four five six seven eight nine ten; ünïcödé 漢字 🙂",
] * 4


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of 3 to 40 words, all different."""
    import numpy as np

    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 40, count)
    return [f"{number} " + " ".join(draw.choice(WORDS, length)) for number, length in enumerate(lengths)]


def save_tokenizer(folder: Path, texts: Sequence[str] = TEXT, *, bos: str | None = "<s>", add: bool = True) -> None:
    """A byte-level BPE of at most 320 tokens into a model's folder; it puts `bos` before a text (if `add`)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    if bos and add:
        begun = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))])
        inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), begun])
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos).save_pretrained(folder)


def save_model(folder: Path, seed: int = 0, **config: int) -> Path:
    """A random Llama of two layers with a byte-level BPE, as a Hugging Face folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "max_position_embeddings": 128, **config}  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    save_tokenizer(folder, sentences(200), add=False)
    return folder


def write_corpus(path: Path, texts: Sequence[str]) -> Path:
    """A JSONL file of texts."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the writers' lock files, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
