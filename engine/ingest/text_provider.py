"""Text with a language model as a provider: documents → token windows → outputs. Knows no method and no store.

A plain document longer than `max_length` tokens is cut into consecutive examples, with their offsets. A row with a prompt
cannot be cut, so one that is longer than `max_length` is a fault, named by file and line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ...store.files import JsonObject
from ..data.documents import Document, RecordErrors, read_documents
from ..data.sources import Source
from ..interface.model_view import LinearIO, OutputSpec
from ..models.batch_outputs import FurtherOutputs, LinearHead, PackedOutputs, TargetPositions
from ..models.language_model import LanguageModel
from ..models.linear_io import PaddedTokens, forward_with_linear_io
from ..models.upper_layers import TrunkUpperLayers
from ..runtime.memory import Part, Plan
from .examples import Example, Place
from .provider import remaining
from .text_settings import TextSettings

_Tokens = tuple[list[int], list[tuple[int, int]]]  # ids, and the characters that each stands for
_ENCODE = 64  # documents tokenised at once
ENCODE_CHARACTERS = 1 << 17
"""Characters tokenised at once."""
ENCODED_BYTES = 200
"""Memory of a character while it is tokenised, at most: tokens of one character, as the library's objects and as Python's."""


class TextProvider:
    """Reads files of text through a language model."""

    def __init__(
        self, model: LanguageModel, sources: list[Source], settings: TextSettings, record_errors: RecordErrors
    ) -> None:
        """See the fields of each."""
        self.model, self.sources, self.settings, self.record_errors = model, sources, settings, record_errors
        self._checked = False  # whether layers above one were seen to be run again as they should

    @property
    def head(self) -> LinearHead:
        """The model's head."""
        return self.model.head

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    def provenance(self) -> JsonObject:
        """Fingerprints and settings."""
        recorded = self.settings.provenance()
        template, dtype = recorded.pop("template"), str(self.head.weight.dtype).removeprefix("torch.")
        return {"kind": "text", **self.model.fingerprint, **recorded, "dtype": dtype, "template": template}

    def origin(self) -> JsonObject:
        """Where the model came from, for the next command's sake."""
        return {"model_path": self.model.path}

    def memory(self, tokens: int) -> Plan:
        """Weights, one layer's activations, the hidden states kept, a tile of logits with what reductions allocate."""
        head, copies = self.model.head, 2 if self.device.type == "cpu" else 3
        tile = 4 * head.model_shape.vocabulary * min(tokens, head.tile_rows())
        return Plan.of(
            Part("model weights", self.model.memory["weights"]),
            Part("activations", tokens * self.model.memory["activations"]),
            Part("hidden states", tokens * head.model_shape.hidden * 8),
            Part("logits tile", copies * tile),
            Part("texts being tokenised", ENCODED_BYTES * self._at_once),
        )

    def longest(self) -> int:
        """The maximal length."""
        return self.settings.length

    def examples(self, start: Place) -> Iterator[Example]:
        """Documents from a place on, tokenised, cut."""
        for ordinal, source in remaining(self.sources, start):
            here = start if ordinal == start.source else Place(ordinal)
            documents = read_documents(
                source, self.settings.template, self.record_errors, start=max(0, here.record), chat=self._chat()
            )
            for example in self.encoded(documents, ordinal):
                if (example.place.record, example.place.piece) > (here.record, here.piece) or here.record < 0:
                    yield example

    def encoded(self, documents: Iterator[Document], ordinal: int) -> Iterator[Example]:
        """Documents of a source, tokenised, cut."""
        for group in _groups(documents):
            if len(group) == 1 and _characters(group[0]) > self._at_once:
                yield from self._long(group[0], ordinal)
                continue
            encoded = self._tokens([document.prompt + document.text for document in group])
            for document, (ids, spans) in zip(group, encoded, strict=True):
                if document.prompt:
                    yield from self._prompted(document, self._begun(ids, spans), ordinal)
                else:
                    yield from self._cut(document, iter([self._begun(ids, spans)]), ordinal)

    @property
    def _at_once(self) -> int:
        """Characters of a document that is tokenised whole: a window's, and then some."""
        return max(ENCODE_CHARACTERS, 16 * self.settings.length)

    def _tokens(self, texts: list[str]) -> Iterator[_Tokens]:
        encoded = self.model.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        return zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)

    def _begun(self, ids: list[int], spans: list[tuple[int, int]]) -> _Tokens:
        """Without the begin-of-text token that a chat template writes itself."""
        known = len(self.model.prefix)
        return (ids[known:], spans[known:]) if known and tuple(ids[:known]) == self.model.prefix else (ids, spans)

    def _long(self, document: Document, ordinal: int) -> Iterator[Example]:
        """A document too long to be tokenised whole: its text in parts; of a prompted one, what can be left of it."""
        if not document.prompt:
            yield from self._cut(document, self._parts(document.text), ordinal)
        elif self.settings.truncate:
            half = self._at_once // 2
            shorter = replace(document, prompt=document.prompt[-half:], text=document.text[:half])
            yield from self._prompted(
                shorter, self._begun(*next(self._tokens([shorter.prompt + shorter.text]))), ordinal
            )
        else:
            self._too_long(document, f"{_characters(document):,} characters", ordinal)

    def _parts(self, text: str) -> Iterator[_Tokens]:
        """A long text's tokens, cut before a space or, where there is none for long, anywhere."""
        begin = 0
        while begin < len(text):
            end = min(len(text), begin + self._at_once)
            space = text.rfind(" ", begin + self._at_once // 2, end) if end < len(text) else -1
            end = space if space > 0 else end
            ids, spans = next(self._tokens([text[begin:end]]))
            yield ids, [(begin + first, begin + last) for first, last in spans]
            begin = end

    def _cut(self, document: Document, parts: Iterator[_Tokens], ordinal: int) -> Iterator[Example]:
        """Windows of a plain text, made as its tokens come."""
        prefix, room = self.model.prefix, self.settings.length - len(self.model.prefix)
        ids, spans, piece = list[int](), list[tuple[int, int]](), 0

        def window(name: str, begin: int, end: int) -> Example:
            payload = ([*prefix, *ids[at : at + room]], len(prefix))
            return _example(
                document, name, document.text[begin:end], begin, payload, Place(ordinal, document.record, piece)
            )

        for more in parts:
            ids, spans, at = ids + more[0], spans + more[1], 0
            while len(ids) - at > room:
                yield window(f"{document.id}#{piece}", spans[at][0] if piece else 0, spans[at + room][0])
                at, piece = at + room, piece + 1
            ids, spans = ids[at:], spans[at:]
        at = 0
        if ids or not piece:
            name = f"{document.id}#{piece}" if piece else document.id
            yield window(name, spans[0][0] if piece else 0, len(document.text))

    def _prompted(self, document: Document, tokens: _Tokens, ordinal: int) -> Iterator[Example]:
        ids, spans = tokens
        prefix, room = self.model.prefix, self.settings.length - len(self.model.prefix)
        known, prompt, text = len(document.prompt), document.prompt, document.text
        first = next((i for i, (_, end) in enumerate(spans) if end > known), len(ids))
        if len(ids) > room:
            if not self.settings.truncate:
                self._too_long(document, f"{len(ids) + len(prefix)} tokens", ordinal)
                return
            cut = min(first, len(ids) - room)
            begin, end = spans[cut - 1][1] if cut else 0, spans[cut + room - 1][1]
            prompt, text = prompt[begin:], text[max(0, begin - known) : max(0, end - known)]  # what the model sees
            ids, first = ids[cut : cut + room], first - cut
        counted_from = len(prefix) + (first if self.settings.attribute == "completion" else 0)
        shown = replace(document, prompt=prompt)
        payload = ([*prefix, *ids], counted_from)
        yield _example(shown, document.id, text, 0, payload, Place(ordinal, document.record))

    def _too_long(self, document: Document, size: str, ordinal: int) -> None:
        self.record_errors.report(
            f"{self.sources[ordinal].path}:{document.line}: prompt and completion are {size}, --max-length is "
            f"{self.settings.length} (the model's context: {self.head.model_shape.max_length}); "
            "--truncate cuts the prompt's start"
        )

    def _chat(self) -> Any:
        tokenizer = self.model.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return None

        def render(messages: list[dict[str, str]]) -> tuple[str, str]:
            prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
            return str(prompt), str(messages[-1]["content"])

        return render

    def read(self, batch: list[Example], needs: OutputSpec) -> PackedOutputs:
        """Run the trunk over right-padded ids. A causal model's real positions never see the padding, so no mask is made."""
        width = max(1, *(example.length for example in batch))  # 0: a tokenizer that drops what it does not know
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        counted = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, example in enumerate(batch):
            tokens, first = example.payload
            ids[row, : len(tokens)] = torch.tensor(tokens)
            counted[row, max(0, first - 1) : max(0, len(tokens) - 1)] = True  # position t predicts token t + 1
        ids, counted = ids.to(self.device), counted.to(self.device)
        out, traces = self._run(ids, counted, [example.length for example in batch], needs)
        hiddens = {layer: out.hidden_states[layer].detach()[counted] for layer in needs.layers}
        hiddens[-1] = out.last_hidden_state.detach()[counted]  # (P, D)
        example_ids = torch.arange(len(batch), device=self.device)[:, None].expand_as(counted)[counted]
        targets = torch.roll(ids, -1, 1)[counted]
        positions = TargetPositions(example_ids, targets, [example.counted for example in batch])
        above = self._above(needs.upper_layers, ids, counted) if needs.upper_layers >= 0 else None
        further = FurtherOutputs(linear_io=traces, upper_layers=above)
        return PackedOutputs(self.head, hiddens, positions, needs, further)

    def _above(self, layer: int, ids: torch.Tensor, counted: torch.Tensor) -> TrunkUpperLayers:
        found = TrunkUpperLayers(self.model.trunk, self.head.model_shape.layers, layer, ids, counted)
        if not self._checked and bool(counted.any()):
            found.check()
            self._checked = True
        return found

    def _run(
        self, ids: torch.Tensor, counted: torch.Tensor, lengths: list[int], needs: OutputSpec
    ) -> tuple[Any, dict[str, LinearIO]]:
        """The trunk forward and, where a method needs gradients, backward."""
        if needs.linear_layers:
            real = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
            tokens = PaddedTokens(ids, real.to(ids.device), counted)
            layers = bool(needs.layers)
            return forward_with_linear_io(self.model.trunk, self.head, tokens, needs.linear_layers, layers)
        with torch.inference_mode():
            return self.model.trunk(input_ids=ids, use_cache=False, output_hidden_states=bool(needs.layers)), {}


def _characters(document: Document) -> int:
    return len(document.prompt) + len(document.text)


def _groups(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents to tokenise together, so many that it pays and so few that memory stays flat; a long one is alone."""
    group: list[Document] = []
    characters = 0
    for document in documents:
        more = _characters(document)
        if group and (len(group) == _ENCODE or characters + more > ENCODE_CHARACTERS):
            yield group
            group, characters = [], 0
        group.append(document)
        characters += more
    if group:
        yield group


def _example(
    document: Document, name: str, text: str, offset: int, payload: tuple[list[int], int], place: Place
) -> Example:
    """`payload`: token ids, and the first of them that counts; the very first token, which nothing predicts, never does."""
    tokens, first = payload[0], max(1, min(payload[1], len(payload[0])))
    counted = max(0, len(tokens) - first)
    return Example(
        name,
        document.source,
        document.line,
        offset,
        document.prompt,
        text,
        len(tokens),
        counted,
        (tokens, first),
        place,
    )
