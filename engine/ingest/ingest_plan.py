"""The memory plan of an ingestion, and the widest batch that a budget allows.

Said before anything runs, so that a run too large is refused instead of killed. Knows no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...store.layout import TEXT_CHUNK_ROWS
from ..interface.method import Method
from ..interface.model_view import BATCH_EXAMPLES, ModelShape, OutputSpec
from ..runtime.memory import Part, Plan
from .corpus_statistics import PLACE_BYTES, SAMPLE
from .examples import WINDOW, KeptFields, example_columns
from .provider import Provider
from .stored_columns import precisions_of

TOKEN_BYTES = 40
"""Of a token in a list of Python numbers; while it is being made by a tokenizer, with its place in the text, six times that."""
TEXT_BYTES = 8
"""Of a token's text, at most: four characters of two bytes, or eight of one."""
BATCH_TOKENS = 4096
"""Padded tokens of a batch, at most: beyond this neither a CPU nor a GPU gets faster on small models."""


def ingest_plan(provider: Provider, methods: Mapping[str, Method], tokens: int, kept: KeptFields) -> Plan:
    """The memory of an ingestion in batches of `tokens` padded tokens."""
    model_shape = provider.head.model_shape
    forms = [form for method in methods.values() for form in precisions_of(method, model_shape).values()]
    columns = [column for form in forms for column in form.columns]
    batch = min(tokens, BATCH_EXAMPLES)
    longest = provider.longest()
    stored = [*columns, *example_columns(kept, model_shape.vocabulary, longest)]
    needs = [method.needs(model_shape) for method in methods.values()]
    return provider.memory(tokens) + Plan.of(
        layers_part(model_shape, needs, tokens),
        traces_part(model_shape, needs, tokens),
        *(Part(f"{name} scratch", method.scratch(model_shape, tokens)) for name, method in methods.items()),
        Part(
            "places of a sample",
            PLACE_BYTES * SAMPLE * any(m.fit(model_shape) is not None for m in methods.values()),
        ),
        Part("rows being rounded", max((form.encode_bytes(batch) for form in forms), default=0)),
        Part("rows in flight", 4 * WINDOW * sum(c.row_bytes for c in columns)),
        Part("chunks being filled", sum(c.buffer_bytes for c in stored if not c.is_text)),
        Part("tokens", ((2 + kept.tokens) * WINDOW + 64 * 6) * longest * TOKEN_BYTES),
        Part("texts", (4 * WINDOW + 3 * TEXT_CHUNK_ROWS * kept.text) * longest * TEXT_BYTES),
    )


def layers_part(model_shape: ModelShape, needs: Sequence[OutputSpec], tokens: int) -> Part:
    """The hidden states of every layer, which a pass keeps as soon as a method asks for one below the last."""
    asked = {layer for need in needs for layer in need.layers}
    width = model_shape.hidden * (model_shape.layers + 2 + len(asked))
    return Part("all layers' hidden states", bool(asked) * 4 * tokens * width)


def traces_part(model_shape: ModelShape, needs: Sequence[OutputSpec], tokens: int) -> Part:
    """What a backward pass keeps as soon as a method asks for gradients: all maps' inputs and outputs for the graph, those of
    the maps asked for once more with their errors.
    """
    asked = {name for need in needs for name in need.linear_layers}
    graph = 3 * sum(one.inputs + one.outputs for one in model_shape.linear_layers)
    kept = sum(2 * (one.inputs + one.outputs) for one in model_shape.linear_layers if one.name in asked)
    return Part("backward pass", bool(asked) * 4 * tokens * (graph + kept))


def choose_batch(
    provider: Provider, methods: Mapping[str, Method], budget: int | None, wanted: int | None, kept: KeptFields
) -> tuple[int, Plan]:
    """Padded tokens of a batch, and the plan: the widest batch within the budget.

    Raises:
        BudgetError: not even a batch of the longest example fits.
    """
    least = max(2, provider.longest())
    tokens = max(least, wanted or BATCH_TOKENS)
    smallest = ingest_plan(provider, methods, least, kept)
    chosen = ingest_plan(provider, methods, tokens, kept)
    while wanted is None and budget is not None and chosen.total > budget and tokens > least:
        tokens = max(least, tokens // 2)
        chosen = ingest_plan(provider, methods, tokens, kept)
    chosen.check(budget, smallest.total if wanted is None else chosen.total)
    return tokens, chosen
