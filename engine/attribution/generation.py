"""Queries whose completion is the model's own greedy answer to a prompt. Knows no method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ...store.errors import CorpusError, SettingsError
from ...store.feature_store import FeatureStore
from ..data.documents import Template
from ..data.python_data import data_of
from ..data.record_source import Data, RecordSource, name_of_data
from ..data.sources import find_sources, read_source
from ..ingest.examples import Place
from ..ingest.open_provider import is_plain, query_provider
from ..ingest.text_provider import TextProvider
from ..ingest.text_settings import TextSettings
from ..models.language_model import LanguageModel, ModelChoice
from ..models.transformers_types import HfTokenizer

NEW_TOKENS = 64
"""Default of the most tokens of an answer."""
_ANSWER = "."  # stands for the answer while a record is read


@dataclass(frozen=True, slots=True)
class Generation:
    """How answers are made."""

    model: ModelChoice
    text: TextSettings
    """How the prompts' records are read."""
    tokens: int = NEW_TOKENS
    """Most tokens of an answer."""


def with_answers(prompts: Data, store: FeatureStore, generation: Generation) -> RecordSource:
    """Prompts with the greedy answers of the store's model, as records with `prompt` and `completion`.

    A prompt is a text, a record with `prompt`, with the fields of the store's template, or a conversation whose last message is
    the user's. A record's own completion is not read.

    Raises:
        CorpusError: a record has no prompt, or the model answers it with nothing. SettingsError: the store is of arrays, or a
            field is in the templates of both prompt and completion.
    """
    if store.provenance["kind"] != "text":
        raise SettingsError(f"{store.url} was made from arrays: it has no model that answers")
    template = generation.text.completed_from(store.provenance).template
    records = [_with_place(fields, template) for fields in _records(prompts)]
    plain = is_plain(prompts)
    source = RecordSource(name_of_data(prompts), "", len(records), lambda start: iter(records[start:]), plain)
    provider = query_provider(source, store, generation.model, generation.text)
    assert isinstance(provider, TextProvider)
    answers = list(_answers(provider, generation.tokens))
    (data,) = data_of(answers, texts=True, name=name_of_data(prompts))
    assert isinstance(data, RecordSource)
    return RecordSource(data.name, data.digest, data.size, data.records, plain=True)


def _records(prompts: Data) -> Iterator[Mapping[str, object]]:
    for source in find_sources([prompts]):
        for record in read_source(source, 0, None):
            if record.error:
                raise CorpusError(f"{source.path}:{record.line}: {record.error}")
            yield record.fields


def _with_place(fields: Mapping[str, object], template: Template) -> dict[str, object]:
    """A record with a stand-in where its answer would be."""
    record = dict(fields)
    if template.completion and all(isinstance(record.get(name), str) for name in template.fields_of_prompt):
        if both := set(template.fields_of_prompt).intersection(template.fields_of_completion):
            raise SettingsError(
                f"the field {min(both)} is in the templates of prompt and completion, where the answer takes its place",
                hint="give another --completion-template",
            )
        return record | {name: record.get(name) or _ANSWER for name in template.fields_of_completion}
    for name, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        if isinstance(turns := record.get(name), list):
            last = turns[-1] if turns else None  # what is no message is reported where records are read
            before = turns[:-1] if isinstance(last, Mapping) and last.get(role) in ("assistant", "gpt") else turns
            return {**record, name: [*before, {role: "gpt" if role == "from" else "assistant", content: _ANSWER}]}
    if record.get("instruction") is not None:
        return {**record, "output": _ANSWER}
    if record.get("prompt") is None and isinstance(record.get("text"), str):
        return {"id": record.get("id"), "prompt": record["text"], "completion": _ANSWER}
    return {**record, "completion": _ANSWER}


def _answers(provider: TextProvider, tokens: int) -> Iterator[dict[str, str]]:
    """The prompt of each example of a provider, with the model's answer."""
    for example in provider.examples(Place()):
        where = f"{example.source}:{example.line}"
        if not example.prompt:
            raise CorpusError(f"{where} has no prompt to answer", hint="give a text, or a record with a prompt")
        completion = greedy_answer(provider.model, example.prompt, tokens)
        if not completion.strip():
            raise CorpusError(f"{where}: the model answers this prompt with nothing", hint="give a completion")
        yield {"id": example.id, "prompt": example.prompt, "completion": completion}


def greedy_answer(model: LanguageModel, prompt: str, tokens: int) -> str:
    """The most probable next token after a prompt, again and again, until the model ends its text or for `tokens` tokens.

    Raises:
        CorpusError: the prompt leaves no room in the model's context.
    """
    tokenizer, context = model.tokenizer, model.head.model_shape.max_length
    ids = [*model.prefix, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    if len(ids) >= context:
        raise CorpusError(f"the prompt has {len(ids)} tokens, and the model's context {context}: shorten it")
    ends = {*model.ends, tokenizer.eos_token_id}
    answer, cache = list[int](), None
    step = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        while len(answer) < min(tokens, context - len(ids)):
            out = model.trunk(input_ids=step, use_cache=True, past_key_values=cache)
            cache = out.past_key_values
            best = int(model.head.logits(out.last_hidden_state[:, -1]).argmax())
            if best in ends:
                break
            answer.append(best)
            step = torch.tensor([[best]], device=model.device)
    return _continuation(tokenizer, ids, answer)


def _continuation(tokenizer: HfTokenizer, prompt: list[int], answer: list[int]) -> str:
    """The text of an answer's tokens as they follow a prompt: many tokenizers drop the space before the first token of a text."""
    before, whole = (
        str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for ids in (prompt, prompt + answer)
    )
    return whole.removeprefix(before)
