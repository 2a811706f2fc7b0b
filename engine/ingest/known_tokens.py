"""Leaves out examples with tokens that the model has no embedding for. Knows no method and no store."""

from __future__ import annotations

from collections.abc import Iterator

from ..data.documents import RecordErrors
from ..models.language_model import LanguageModel
from .examples import Example


def known_tokens(
    examples: Iterator[Example], model: LanguageModel, path: str, record_errors: RecordErrors
) -> Iterator[Example]:
    """The examples of the file `path` whose token ids are all below the model's vocabulary; others are reported.

    Raises:
        CorpusError: there is another one, and the policy of `record_errors` is "fail".
    """
    vocabulary = min(model.head.model_shape.vocabulary, model.trunk.get_input_embeddings().weight.shape[0])
    for example in examples:
        largest = max(example.payload[0], default=0)
        if largest < vocabulary:
            yield example
            continue
        record_errors.report(
            f"{path}:{example.line}: {example.id} has the token {model.tokenizer.convert_ids_to_tokens(largest)!r} "
            f"({largest}), but the model's vocabulary has {vocabulary} tokens: give the tokenizer that the model was trained "
            "with, or train the model with a resized vocabulary (resize_token_embeddings)"
        )
