"""The memory plan of an ingestion, and the largest batch that a budget allows.

Made before anything runs, so that a run that is too large is refused instead of killed. Knows no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...store.layout import TEXT_CHUNK_ROWS
from ..data.kept_columns import sampled_bytes
from ..interface.method import Method
from ..interface.model_view import BATCH_EXAMPLES, ModelShape, OutputSpec
from ..runtime.memory import Part, Plan
from .corpus_statistics import PLACE_BYTES, SAMPLE
from .examples import WINDOW, StoredFields, example_columns
from .outputs import BATCH_TOKENS
from .provider import Provider
from .stored_columns import precisions_of

TOKEN_BYTES = 40
"""Bytes that a token id takes in a Python list. During tokenisation a token takes six times as much, with its text span."""
TEXT_BYTES = 8
"""Bytes assumed for the text of one token: four characters of two bytes each, or eight of one byte."""


def ingest_plan(
    provider: Provider, methods: Mapping[str, Method], tokens: int, fields: StoredFields, kept_bytes: int
) -> Plan:
    """The memory of an ingestion in batches of at most `tokens` tokens, padding included. `kept_bytes`: of the values of an
    example's kept columns.
    """
    model_shape = provider.head.model_shape
    precisions = [precision for method in methods.values() for precision in precisions_of(method, model_shape).values()]
    columns = [column for precision in precisions for column in precision.columns]
    batch = min(tokens, BATCH_EXAMPLES)
    longest = provider.longest()
    stored = [*columns, *example_columns(fields, model_shape.vocabulary, longest)]
    needs = [method.needs(model_shape) for method in methods.values()]
    return provider.memory(tokens) + Plan.of(
        layers_part(model_shape, needs, tokens),
        gradients_part(model_shape, needs, tokens),
        *(Part(f"{name} scratch", method.scratch(model_shape, tokens)) for name, method in methods.items()),
        *fit_parts(model_shape, methods, tokens),
        Part(
            "choice of a sample",
            PLACE_BYTES * SAMPLE * any(m.fit(model_shape) is not None for m in methods.values()),
        ),
        Part("rows being encoded", max((precision.encode_bytes(batch) for precision in precisions), default=0)),
        Part("rows waiting to be written", 4 * WINDOW * sum(c.row_bytes for c in columns)),
        Part("chunks being filled", sum(c.buffer_bytes for c in stored if not c.is_text)),
        Part("tokens", ((2 + fields.tokens) * WINDOW + 64 * 6) * longest * TOKEN_BYTES),
        Part("texts", (4 * WINDOW + 3 * TEXT_CHUNK_ROWS * fields.text) * longest * TEXT_BYTES),
        Part("texts of kept columns", (4 * WINDOW + 3 * TEXT_CHUNK_ROWS) * kept_bytes),
    )


def fit_parts(model_shape: ModelShape, methods: Mapping[str, Method], tokens: int) -> list[Part]:
    """The memory of the corpus statistics of the methods that have some."""
    sizes = {name: method.fit_scratch(model_shape, tokens) for name, method in methods.items()}
    return [Part(f"{name} corpus statistics", size) for name, size in sizes.items() if size]


def layers_part(model_shape: ModelShape, needs: Sequence[OutputSpec], tokens: int) -> Part:
    """The hidden states of all layers, which a forward pass returns if a method needs one below the last."""
    layers = {layer for spec in needs for layer in spec.layers}
    width = model_shape.hidden * (model_shape.layers + 2 + len(layers))
    return Part("all layers' hidden states", bool(layers) * 4 * tokens * width)


def gradients_part(model_shape: ModelShape, needs: Sequence[OutputSpec], tokens: int) -> Part:
    """The memory of a backward pass, which runs if a method needs gradients: inputs and outputs of all linear layers for the
    graph, and a copy of inputs and output gradients of the layers that methods need.
    """
    names = {name for spec in needs for name in spec.linear_layers}
    graph = 3 * sum(layer.inputs + layer.outputs for layer in model_shape.linear_layers)
    copies = sum(2 * (layer.inputs + layer.outputs) for layer in model_shape.linear_layers if layer.name in names)
    return Part("backward pass", bool(names) * 4 * tokens * (graph + copies))


def choose_batch(
    provider: Provider, methods: Mapping[str, Method], budget: int | None, tokens: int | None, fields: StoredFields
) -> tuple[int, Plan]:
    """Tokens of a batch, padding included, and the plan with such batches. The number is `tokens` if that is a number, otherwise
    `BATCH_TOKENS`, halved until the plan fits the budget; in both cases at least one longest example.

    Raises:
        BudgetError: not even a batch that holds only the longest example fits.
    """
    least = max(2, provider.longest())
    batch_tokens = max(least, tokens or BATCH_TOKENS)
    kept_bytes = sampled_bytes(provider.sources, fields.keep)
    smallest = ingest_plan(provider, methods, least, fields, kept_bytes)
    plan = ingest_plan(provider, methods, batch_tokens, fields, kept_bytes)
    while tokens is None and budget is not None and plan.total > budget and batch_tokens > least:
        batch_tokens = max(least, batch_tokens // 2)
        plan = ingest_plan(provider, methods, batch_tokens, fields, kept_bytes)
    plan.check(budget, smallest.total if tokens is None else plan.total)
    return batch_tokens, plan
