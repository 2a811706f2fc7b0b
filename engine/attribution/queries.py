"""Reads queries and computes a method's rows for them, in the same way as for a corpus. Knows no store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ...store.errors import CorpusError
from ...store.layout import Array
from ..data.documents import RecordErrors
from ..data.pretokenised import IGNORED
from ..ingest.examples import Example, Place
from ..ingest.ingest_plan import TOKEN_BYTES
from ..ingest.method_code import MethodRows
from ..ingest.outputs import Batching, batching_for, outputs
from ..ingest.provider import Provider
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.memory import Part

_BATCH_TOKENS = 2048


def read_queries(provider: Provider) -> list[Example]:
    """The usable queries of a provider; where its policy is to skip the others, its notes name them.

    Raises:
        CorpusError: there is no usable query; or one is too long or has no target position, and the policy is to fail.
    """
    provider.record_errors = RecordErrors(provider.record_errors.policy)  # each reading counts from zero
    queries = [pieces[0] for pieces in _by_record(provider) if _is_usable(pieces, provider)]
    provider.notes.extend(line for line in skipped_lines(provider.record_errors) if line not in provider.notes)
    if not queries:
        paths = ", ".join(source.path for source in provider.sources)
        raise CorpusError(f"no query in {paths}{skipped_clause(provider.record_errors)}")
    return queries


def skipped_lines(record_errors: RecordErrors) -> list[str]:
    """Lines for the user about the queries that were skipped."""
    if not record_errors.count:
        return []
    return [*(f"skipped: {line}" for line in record_errors.first), f"skipped {_bad_queries(record_errors)} in all"]


def skipped_clause(record_errors: RecordErrors) -> str:
    """The end of an error of a file without a usable query: how many were skipped, and the first; empty if none was."""
    if not record_errors.count:
        return ""
    return f": skipped {_bad_queries(record_errors)}, the first: {record_errors.first[0]}"


def _bad_queries(record_errors: RecordErrors) -> str:
    count = record_errors.count
    return f"{count} bad {'query' if count == 1 else 'queries'}"


def _by_record(provider: Provider) -> Iterator[list[Example]]:
    """The pieces of each record."""
    for _, pieces in itertools.groupby(provider.examples(Place()), lambda one: (one.place.source, one.place.record)):
        yield list(pieces)


def _is_usable(pieces: list[Example], provider: Provider) -> bool:
    """Whether a record's examples are one query; otherwise the record is reported."""
    query, error = pieces[0], ""
    if len(pieces) > 1:
        error = (
            f"the query is longer than the model's context of {provider.head.model_shape.max_length} tokens: shorten it"
        )
    elif not query.target_count and query.length > 1:
        error = (
            f"no predicted token of the query is a target: each is masked, or labelled {IGNORED}; label one at least"
        )
    elif not query.target_count:
        error = "the query has only one token, which nothing predicts: add a prompt or more text"
    if error:
        provider.record_errors.report(f"{provider.sources[query.place.source].path}:{query.line}: {error}")
    return not error


def batch_tokens(queries: list[Example]) -> int:
    """Number of tokens of a batch of queries, padding included."""
    return max(_BATCH_TOKENS, max(query.length for query in queries))


def query_batching(queries: list[Example]) -> Batching:
    """How queries are batched, and how errors name them."""
    return batching_for(queries, _BATCH_TOKENS, noun="query")


def queries_part(queries: list[Example]) -> Part:
    """Memory of the queries: tokens, texts and ids, and a table of texts by id."""
    texts = sum(2 * (len(query.id) + len(query.prompt) + len(query.text)) + 400 for query in queries)
    return Part("queries' tokens and texts", TOKEN_BYTES * sum(query.length for query in queries) + 2 * texts)


def query_rows(method_rows: MethodRows, provider: Provider, queries: list[Example]) -> dict[str, Array]:
    """A method's columns for each query, by one forward pass per batch: (Q, *row shape) float32.

    Raises:
        DataError: NaN or Inf in a query's logits. BrokenMethod: the method breaks the contract.
    """
    columns, needs = method_rows.method.columns(provider.head.model_shape), merge_specs([method_rows.needs])
    rows = {c.name: np.zeros((len(queries), *c.shape), np.float32) for c in columns}

    def rows_of_batch(batch_outputs: PackedOutputs) -> dict[str, Array]:
        return {name: values.float().cpu().numpy() for name, values in method_rows(batch_outputs).items()}

    for batch, batch_rows in outputs(provider, queries, needs, rows_of_batch, query_batching(queries)):
        for name, values in batch_rows.items():
            rows[name][batch] = values
    return rows
