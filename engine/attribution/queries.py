"""Queries: read whole from a provider, and made into rows by a method as a corpus's examples are. Knows no store."""

from __future__ import annotations

import numpy as np
import torch

from ...store.errors import CorpusError, DataError
from ...store.layout import Array
from ..ingest.examples import Example, Place, batches
from ..ingest.provider import Provider
from ..interface.method import Method
from ..models.batch_outputs import NonFiniteLogits, merge_specs

_BATCH_TOKENS = 2048


def read_queries(provider: Provider) -> list[Example]:
    """All queries of a provider.

    Raises:
        CorpusError: there is none, one is cut, or one has nothing to attribute.
    """
    queries = list(provider.examples(Place()))
    if not queries:
        raise CorpusError(f"no query in {', '.join(source.path for source in provider.sources)}")
    for query in queries:
        if query.offset or query.place.piece:
            raise CorpusError(f"{query.source}:{query.line}: the query is longer than the model's context of "
                              f"{provider.head.model_shape.max_length} tokens")  # fmt: skip
        if not query.counted:
            raise CorpusError(f"{query.source}:{query.line}: the query has one token, and nothing predicts it")
    return queries


def batch_tokens(queries: list[Example]) -> int:
    """Padded tokens of a batch of queries."""
    return max(_BATCH_TOKENS, max(query.length for query in queries))


def query_rows(method: Method, provider: Provider, queries: list[Example]) -> dict[str, Array]:
    """The method's columns for each query, by one forward pass: (Q, *row shape) float32.

    Raises:
        DataError: NaN or Inf in a query's logits.
    """
    model_shape = provider.head.model_shape
    tables, needs = method.precompute(provider.head), merge_specs([method.needs(model_shape)])
    rows = {c.name: np.zeros((len(queries), *c.shape), np.float32) for c in method.columns(model_shape)}
    for batch in batches(queries, batch_tokens(queries)):
        with torch.inference_mode():
            outputs = provider.read([queries[i] for i in batch], needs)
            try:
                outputs.losses()
            except NonFiniteLogits as error:
                raise DataError(f"NaN or Inf in the logits of query {queries[batch[error.example]].id}") from None
            for name, values in method.rows(outputs, tables).items():
                rows[name][batch] = values.float().cpu().numpy()
    return rows
