"""Text with a language model as a provider: documents → pieces of tokens → outputs. Knows no method and no store.

A document without a prompt that is longer than `max_length` tokens is cut into consecutive examples, each with its character
offset in the document. A document with a prompt stays one example: if it is too long, it is truncated where the settings allow
this, and is otherwise reported as a bad record with its file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import torch

from ...store.json_values import ParsedJson
from ..data.documents import Document, RecordErrors, read_documents
from ..data.pretokenised import TokenRecord
from ..data.remote_bytes import MOST_BYTES
from ..data.sources import Source
from ..data.urls import is_url
from ..interface.model_view import LinearIO, OutputSpec
from ..models.batch_outputs import FurtherOutputs, LinearHead, PackedOutputs, TargetPositions
from ..models.chat_template import ChatTemplate
from ..models.language_model import LanguageModel
from ..models.linear_io import PaddedTokens, forward_with_linear_io
from ..models.transformers_types import HfOutput
from ..models.upper_layers import TrunkUpperLayers
from ..runtime.memory import Part, Plan
from .examples import Example, Place, TextPayload
from .known_tokens import known_tokens
from .provider import remaining
from .text_settings import TextSettings
from .tokenization import DocumentTokenizer, Tokens, target_tokens

_DOCUMENTS_AT_ONCE = 64  # documents that are tokenised together
ENCODE_CHARACTERS = 1 << 17
"""Characters that are tokenised together."""
ENCODED_BYTES = 200
"""Upper bound of the memory per character during tokenisation, in bytes: at worst each character is a token, which both the
tokenizer's library and Python hold."""


class TextProvider:
    """Reads files of text through a language model."""

    by_row = False

    def __init__(
        self, model: LanguageModel, sources: list[Source], settings: TextSettings, record_errors: RecordErrors
    ) -> None:
        """`settings`: as :meth:`TextSettings.resolved` returns them for the model."""
        self.model, self.sources, self.settings, self.record_errors = model, sources, settings, record_errors
        self.notes: list[str] = list(model.notes)
        """Remarks on how texts are read, for the user."""
        self._upper_layers_checked = False
        self._tokenizer = DocumentTokenizer(model.tokenizer, model.prefix, apart=settings.boundary == "apart")
        day = date.fromisoformat(settings.clock) if settings.clock else date.today()
        self.chat = ChatTemplate(model.tokenizer, day) if getattr(model.tokenizer, "chat_template", None) else None

    @property
    def head(self) -> LinearHead:
        """The model's head."""
        return self.model.head

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    def provenance(self) -> ParsedJson:
        """Fingerprints of the model, and the text settings."""
        recorded = self.settings.provenance()
        if not (self.chat and self.chat.reads_clock):
            del recorded["clock"]  # rows do not depend on it
        if self.chat and self.chat.has_marks:
            recorded["marked_targets"] = True  # which only token ids keep
        template, dtype = recorded.pop("template"), str(self.head.weight.dtype).removeprefix("torch.")
        return {"kind": "text", **self.model.fingerprint, **recorded, "dtype": dtype, "template": template}

    def origin(self) -> ParsedJson:
        """The model's path, from which later commands load it."""
        return {"model_path": self.model.path}

    def memory(self, tokens: int) -> Plan:
        """The memory of weights, one layer's activations, last hidden states, a tile of logits, and tokenisation."""
        head, copies = self.model.head, 2 if self.device.type == "cpu" else 3
        tile = 4 * head.model_shape.vocabulary * min(tokens, head.tile_rows())
        return Plan.of(
            Part("model weights", self.model.memory["weights"]),
            Part("activations", tokens * self.model.memory["activations"]),
            Part("hidden states", tokens * head.model_shape.hidden * 8),
            Part("logits tile", copies * tile),
            Part("texts being tokenised", ENCODED_BYTES * self._characters_at_once),
            Part("blocks of a file at a URL", MOST_BYTES * any(is_url(source.path) for source in self.sources)),
        )

    def longest(self) -> int:
        """Number of tokens of the longest possible example."""
        return self.settings.length

    def examples(self, start: Place) -> Iterator[Example]:
        """The examples after a place: documents are tokenised and cut into pieces."""
        for source_index, source in remaining(self.sources, start):
            first = start if source_index == start.source else Place(source_index)
            documents = read_documents(
                source, self.settings.template, self.record_errors, start=max(0, first.record), chat=self.chat,
                keep=self.settings.keep,
            )  # fmt: skip
            for example in self.encoded(documents, source_index):
                if (example.place.record, example.place.piece) > (first.record, first.piece) or first.record < 0:
                    yield example

    def encoded(self, documents: Iterator[Document], source_index: int) -> Iterator[Example]:
        """Examples of a source's documents; one with a token that the model has no embedding for is reported and left out."""
        path = self.sources[source_index].path
        return known_tokens(self._encoded(documents, source_index), self.model, path, self.record_errors)

    def _encoded(self, documents: Iterator[Document], source_index: int) -> Iterator[Example]:
        for group in _groups(documents):
            if len(group) == 1 and _characters(group[0]) > self._characters_at_once:
                yield from self._long_document(group[0], source_index)
                continue
            for document, tokens in zip(group, self._tokenizer.documents(group), strict=True):
                if document.tokens:
                    yield from self._token_record(document, document.tokens, source_index)
                elif document.prompt or document.targets:
                    yield from self._whole_example(document, tokens, source_index)
                else:
                    yield from self._pieces(document, iter([tokens]), source_index)

    @property
    def _characters_at_once(self) -> int:
        """Characters of the longest document that is tokenised whole; always more than an example has."""
        return max(ENCODE_CHARACTERS, 16 * self.settings.length)

    def _long_document(self, document: Document, source_index: int) -> Iterator[Example]:
        """Examples of a document too long to be tokenised whole.

        A plain one is tokenised in parts. One with a prompt is shortened first, or reported if the settings forbid truncation.
        """
        if not document.prompt and not document.targets:
            yield from self._pieces(
                document, self._tokenizer.parts(document.text, self._characters_at_once), source_index
            )
        elif self.settings.truncate:
            half = self._characters_at_once // 2
            prompt, text = document.prompt[-half:], document.text[:half]
            cut = len(document.prompt) - len(prompt)
            targets = document.targets and tuple((begin - cut, end - cut) for begin, end in document.targets)
            shorter = replace(document, prompt=prompt, text=text, targets=targets)
            yield from self._whole_example(shorter, next(self._tokenizer.documents([shorter])), source_index)
        else:
            self._too_long(document, f"{_characters(document):,} characters", source_index)

    def _pieces(self, document: Document, parts: Iterator[Tokens], source_index: int) -> Iterator[Example]:
        """Pieces of a plain text, made while its tokens are read."""
        prefix, room = self.model.prefix, self.settings.length - len(self.model.prefix)
        ids, spans, piece = list[int](), list[tuple[int, int]](), 0

        def piece_example(example_id: str, begin: int, end: int) -> Example:
            payload = TextPayload([*prefix, *ids[at : at + room]], len(prefix))
            part = replace(document, id=example_id, text=document.text[begin:end])
            return _example(part, begin, payload, Place(source_index, document.record, piece))

        for part_ids, part_spans, _ in parts:
            ids, spans, at = ids + part_ids, spans + part_spans, 0
            while len(ids) - at > room:
                yield piece_example(f"{document.id}#{piece}", spans[at][0] if piece else 0, spans[at + room][0])
                at, piece = at + room, piece + 1
            ids, spans = ids[at:], spans[at:]
        at = 0
        if ids or not piece:
            name = f"{document.id}#{piece}" if piece else document.id
            yield piece_example(name, spans[0][0] if piece else 0, len(document.text))

    def _whole_example(self, document: Document, tokens: Tokens, source_index: int) -> Iterator[Example]:
        """The one example of a document with a prompt. One that is too long is truncated, or else reported and left out."""
        ids, spans, first = tokens
        prefix, room = self.model.prefix, self.settings.length - len(self.model.prefix)
        prompt_end, prompt, text = len(document.prompt), document.prompt, document.text
        if first is None:
            first = next((i for i, (_, end) in enumerate(spans) if end > prompt_end), len(ids))
        if len(ids) > room:
            if not self.settings.truncate:
                self._too_long(document, f"{len(ids) + len(prefix)} tokens", source_index)
                return
            cut = min(first, len(ids) - room)
            begin, end = spans[cut - 1][1] if cut else 0, spans[cut + room - 1][1]
            prompt, text = prompt[begin:], text[max(0, begin - prompt_end) : max(0, end - prompt_end)]
            ids, spans, first = ids[cut : cut + room], spans[cut : cut + room], first - cut
        payload = TextPayload([*prefix, *ids], len(prefix))
        if self.settings.attribute == "completion":
            first_target = len(prefix) + first
            ignored: tuple[int, ...] = ()
            if document.targets:
                ignored = tuple(
                    (first_target + np.flatnonzero(~target_tokens(spans[first:], document.targets))).tolist()
                )
            payload = TextPayload(payload.ids, first_target, ignored)
        yield _example(replace(document, prompt=prompt, text=text), 0, payload, Place(source_index, document.record))

    def _token_record(self, document: Document, tokens: TokenRecord, source_index: int) -> Iterator[Example]:
        """The example of a record that holds token ids; its text is what they decode to."""
        room, vocabulary = self.settings.length, self.head.model_shape.vocabulary
        ids, is_target = list(tokens.ids), tokens.targets
        if outside := next((token for token in ids if not 0 <= token < vocabulary), None):
            path = self.sources[source_index].path
            self.record_errors.report(
                f"{path}:{document.line}: token id {outside}, but the model has {vocabulary} tokens"
            )
            return
        if len(ids) > room and not self.settings.truncate:
            self._too_long(document, f"{len(ids)} tokens", source_index)
            return
        first = is_target.index(True) if True in is_target else len(ids)
        cut = min(first, max(0, len(ids) - room))
        ids, is_target, first = ids[cut : cut + room], is_target[cut : cut + room], first - cut
        ignored = tuple(at for at in range(first, len(ids)) if not is_target[at])
        prompt, text = (self.model.tokenizer.decode(part) for part in (ids[:first], ids[first:]))
        payload = TextPayload(ids, first, ignored)
        yield _example(replace(document, prompt=prompt, text=text), 0, payload, Place(source_index, document.record))

    def _too_long(self, document: Document, size: str, source_index: int) -> None:
        self.record_errors.report(
            f"{self.sources[source_index].path}:{document.line}: prompt and completion are {size}, but an example has at most "
            f"{self.settings.length} tokens (the model's context: {self.head.model_shape.max_length}): shorten it; "
            "in an ingestion, --truncate cuts the prompt's start, and a new store takes another --max-length"
        )

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """Run the trunk on right-padded ids, without a mask: in a causal model no token attends to the padding after it."""
        width = max(1, *(example.length for example in batch))  # all lengths are 0 if the tokenizer drops unknown text
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        target_mask = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, example in enumerate(batch):
            ids[row, : example.length] = torch.tensor(example.payload.ids)
            target_mask[row, torch.from_numpy(example.payload.target_positions)] = True
        ids, target_mask = ids.to(self.device), target_mask.to(self.device)
        trunk_output, linear_io = self._run(ids, target_mask, [example.length for example in batch], needs)
        hiddens = {layer: trunk_output.hidden_states[layer].detach()[target_mask] for layer in needs.layers}
        hiddens[-1] = trunk_output.last_hidden_state.detach()[target_mask]  # (P, D)
        example_ids = torch.arange(len(batch), device=self.device)[:, None].expand_as(target_mask)[target_mask]
        targets = torch.roll(ids, -1, 1)[target_mask]
        positions = TargetPositions(example_ids, targets, [example.target_count for example in batch])
        upper_layers = self._upper_layers(needs.upper_layers, ids, target_mask) if needs.upper_layers >= 0 else None
        further = FurtherOutputs(linear_io=linear_io, upper_layers=upper_layers)
        return PackedOutputs(self.head, hiddens, positions, needs, further)

    def _upper_layers(self, layer: int, ids: torch.Tensor, target_mask: torch.Tensor) -> TrunkUpperLayers:
        upper_layers = TrunkUpperLayers(self.model.trunk, self.head.model_shape.layers, layer, ids, target_mask)
        if not self._upper_layers_checked and bool(target_mask.any()):
            upper_layers.check()
            self._upper_layers_checked = True
        return upper_layers

    def _run(
        self, ids: torch.Tensor, target_mask: torch.Tensor, lengths: list[int], needs: OutputSpec
    ) -> tuple[HfOutput, dict[str, LinearIO]]:
        """The trunk's output and, if a method needs gradients, inputs and output gradients of linear layers."""
        if needs.linear_layers:
            token_mask = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
            tokens = PaddedTokens(ids, token_mask.to(ids.device), target_mask)
            all_layers = bool(needs.layers)
            return forward_with_linear_io(self.model.trunk, self.head, tokens, needs.linear_layers, all_layers)
        with torch.inference_mode():
            return self.model.trunk(input_ids=ids, use_cache=False, output_hidden_states=bool(needs.layers)), {}


def _characters(document: Document) -> int:
    """Length of prompt and text."""
    return len(document.prompt) + len(document.text)


def _groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents to tokenise together: enough to be fast, few enough to bound memory; a long document is alone."""
    group: list[Document] = []
    characters = 0
    for document in documents:
        size = _characters(document)
        if group and (len(group) == _DOCUMENTS_AT_ONCE or characters + size > ENCODE_CHARACTERS):
            yield group
            group, characters = [], 0
        group.append(document)
        characters += size
    if group:
        yield group


def _example(document: Document, offset: int, payload: TextPayload, place: Place) -> Example:
    """An example of a document (or of a piece of it) at a character offset. The very first token is never a target: no position
    predicts it.
    """
    payload = payload._replace(first=max(1, min(payload.first, len(payload.ids))))
    return Example(
        document.id, document.source, document.line, offset, document.prompt, document.text,
        len(payload.ids), len(payload.target_positions), payload, place, document.column_texts,
    )  # fmt: skip
