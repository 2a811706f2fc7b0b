"""Queries as the model of one member reads them. Members may have different models, each in memory only while it is used. Knows
no method.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...store.errors import DataError, InputError
from ...store.feature_store import FeatureStore
from ..data.record_source import Data, name_of_data
from ..ingest.examples import Example
from ..ingest.member_model import MemberModel
from ..ingest.open_provider import query_provider
from ..ingest.provider import Provider
from ..results.results import QueryText
from .queries import read_queries
from .query_options import QueryOptions


class MemberQueries:
    """Queries, read by a model that is loaded when it is needed and freed by :meth:`release`."""

    def __init__(self, data: Data, store: FeatureStore, model: MemberModel, options: QueryOptions) -> None:
        """Load the model and read the queries.

        Raises:
            CorpusError: a query cannot be used, or there is none. StoreMismatch, ModelError: the model is another one, or gone.
        """
        self.data, self._store, self._model, self._options = data, store, model, options
        self._provider: Provider | None = None
        provider = self.provider()
        try:
            self.examples: list[Example] = read_queries(provider)
        except InputError as error:
            if not model.member:
                raise
            raise InputError(f"{model.member}: {error}") from None
        self.notes = provider.notes

    def provider(self) -> Provider:
        """The provider of the queries, whose model is loaded."""
        if self._provider is None:
            options = self._options
            self._provider = query_provider(self.data, self._store, options.model, options.text, self._model)
        return self._provider

    def release(self) -> None:
        """Free the model until :meth:`provider` is called again."""
        self._provider = None

    @property
    def ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self.examples]

    @property
    def texts(self) -> list[QueryText]:
        """(Q,) texts, in the file's order."""
        return [QueryText(query.prompt, query.text) for query in self.examples]

    def require_same(self, other: MemberQueries) -> None:
        """Raise DataError unless another member's queries are these, in the same order."""
        if len(other.examples) != len(self.examples):
            counts = f"{len(other.examples)} queries, but {name_of_data(self.data)} has {len(self.examples)}"
            raise DataError(f"{name_of_data(other.data)} has {counts}")
        for own, query in zip(self.examples, other.examples, strict=True):
            if own.id.removeprefix(own.source) != query.id.removeprefix(query.source):
                names = name_of_data(other.data), name_of_data(self.data)
                raise DataError(f"{names[0]} has query {query.id} where {names[1]} has {own.id}")


def release_others(readers: Iterable[MemberQueries], reader: MemberQueries | None = None) -> None:
    """Free the models of all readers but one, so that never two are in memory."""
    for other in readers:
        if other is not reader:
            other.release()


def options_of(model: MemberModel, options: QueryOptions) -> QueryOptions:
    """The options with which one of several members reads queries: --model is the place of the store's own model alone."""
    return replace(options, model=options.model.other("")) if model.member else options
