"""Where answers come from: method, settings, store, model, completeness, and how scores were derived. Knows no score and no
format of a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import metadata

from ...store.completeness import is_whole
from ...store.errors import HeadwaterError
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.json_values import JsonFields, ParsedJson
from ..fitting.fit_record import fits_of
from .results import QueryText

KEY = "headwater"
"""Where a file's origin is: in the metadata of Parquet, the object of JSON, and the attributes of Zarr."""
STILL_RIGHT = ("of this store, as it is now", "of this store, with the same examples, model and settings")
"""How the relation of answers to a store begins if the store would give them again."""
SHORT = 12
"""Digits of a digest that each record of a file carries."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What answers were computed from."""

    version: str
    """Version of headwater that computed them."""
    method: str
    """The method's name."""
    settings: JsonFields
    """Its settings; of several members, by the member's name."""
    store: str
    """The store's path."""
    store_version: str
    """Version of headwater that created the store."""
    digest: str
    """Digest of the store's root."""
    corpus: tuple[str, ...]
    """Digests of the corpus's files, in order."""
    model: str
    """Fingerprint of the model that the rows are of."""
    rows: int
    """Number of scored examples."""
    examples: int
    """Number of examples in the store."""
    complete: bool
    """Whether the store held all of its corpus, and each example was scored."""
    contrast: tuple[QueryText, ...] = ()
    """The queries whose scores are subtracted: one for each query or one for all; none: scores are the method's own."""
    conditions: tuple[str, ...] = ()
    """What the ranked examples meet, such as `source=a.jsonl`; none: all examples are ranked."""
    lowest: bool = False
    """Whether the lowest scores come first."""
    members: tuple[str, ...] = ()
    """The members whose scores are combined; none: the method alone."""
    combination: str = ""
    """The rule of combination, mean or sum; empty without members."""
    precision: str = ""
    """The precision of the copy that was scanned first; empty: the rows as they are stored."""

    def to_json(self) -> JsonFields:
        """JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: ParsedJson) -> Origin:
        """Inverse of :meth:`to_json`; what files of earlier versions do not say has its default.

        Raises:
            KeyError, TypeError: the values are no origin.
        """
        own = {
            field.name: values[field.name] for field in fields(cls) if field.default is MISSING or field.name in values
        }
        tuples = {name: tuple(value) for name, value in own.items() if isinstance(value, list)}
        contrast = tuple(QueryText(**query) for query in own.get("contrast", ()))
        return cls(**{**own, **tuples, "contrast": contrast})

    def record(self) -> dict[str, str]:
        """The columns that each record of a table carries."""
        return {"method": self.method, "store": self.digest[:SHORT]}

    def derivation(self) -> Iterator[tuple[str, str]]:
        """(name, value) of how scores differ from those of one method for all examples, highest first; nothing if they do not."""
        if self.members:
            yield "members", f"{self.combination} of {', '.join(self.members)}"
        for query in self.contrast:
            yield "minus", f"{query.prompt} → {query.completion}" if query.prompt else query.completion
        if self.conditions:
            yield "where", ", ".join(self.conditions)
        if self.lowest:
            yield "order", "lowest scores first"
        if self.precision:
            yield "scan", f"{self.precision} copy first"


EVERY_ORIGIN = tuple(field.name for field in fields(Origin) if field.default is MISSING)
"""Names of what every origin says; the rest is how scores were derived."""


def origin_of(store: FeatureStore, method: str, rows: int, members: Sequence[str] = ()) -> Origin:
    """The origin of scores of `rows` examples of a store by a method, or by several members of it."""
    examples = store.rows(EXAMPLES) if EXAMPLES in store.groups else rows
    settings = _settings(store, method, members)
    complete = rows == examples and (EXAMPLES not in store.groups or is_whole(store))
    return Origin(
        version=metadata.version("headwater"),
        method=method,
        settings=settings,
        store=store.url,
        store_version=store.version,
        digest=store.root.digest,
        corpus=_corpus(store),
        model=_model(store, method),
        rows=rows,
        examples=examples,
        complete=complete,
        members=tuple(members),
    )


def _corpus(store: FeatureStore) -> tuple[str, ...]:
    return tuple(str(source.get("digest", "")) for source in store.provenance.get("sources", ()))


def _model(store: FeatureStore, method: str) -> str:
    """The fingerprint of a member's own model, else of the store's."""
    group = store.groups.get(method_group(method))
    own = group.model.get("model", "") if group else ""
    return own or str(store.provenance.get("model", ""))


def _settings(store: FeatureStore, method: str, members: Sequence[str] = ()) -> JsonFields:
    """The recorded settings of stored rows or of a fit; of a method without either, its defaults. Of members, by name."""
    if members:
        return {name: _settings(store, name) for name in members}
    if (group := store.groups.get(method_group(method))) is not None:
        return group.settings
    fits = fits_of(store)
    if method in fits:
        return dict(fits[method]["settings"])
    labelled = sorted({name for name in (*store.methods, *fits) if name.partition("@")[0] == method})
    return _settings(store, method, labelled) if labelled else _defaults(method)


def _defaults(method: str) -> JsonFields:
    from ..interface.registry import load

    try:
        return load(method)().settings()
    except HeadwaterError:
        return {}


def compared(origin: Origin, store: FeatureStore) -> str:
    """How answers relate to a store as it is now, in a few words that complete "these answers are …"."""
    if origin.digest == store.root.digest and _rows(store) == origin.examples:
        return STILL_RIGHT[0]
    if origin.model != _model(store, origin.method):
        return (
            f"of another model: {origin.model or 'none'}, and the store's is {_model(store, origin.method) or 'none'}"
        )
    now, before = _corpus(store), origin.corpus
    if now[: len(before)] != before:
        return "of another store: its corpus has other files"
    if _rows(store) > origin.examples:
        return f"of this store before examples were added: {origin.examples:,} then, {_rows(store):,} now"
    if now == before and _rows(store) == origin.examples:
        if _settings(store, origin.method, origin.members) == origin.settings:
            return f"{STILL_RIGHT[1]} of {origin.method}: something else was added to it since"
        return f"of a store with the same examples and model, but other settings of {origin.method}"
    return "of another store: it holds fewer examples"


def compared_short(short: str, store: FeatureStore) -> str:
    """The same for answers of which only the first digits of the digest are known."""
    if store.root.digest.startswith(short):
        return STILL_RIGHT[0]
    return (
        "of another store, or of this one before it changed: .parquet, .json and .html files of answers would say which"
    )


def _rows(store: FeatureStore) -> int:
    return store.rows(EXAMPLES) if EXAMPLES in store.groups else 0
