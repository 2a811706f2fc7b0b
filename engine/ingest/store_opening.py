"""Opens or creates the store of an ingestion, compares it with the job, and merges the lists of files.

Knows no model outputs and no method by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from ... import __version__
from ...store.errors import StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.json_values import JsonObject
from ...store.layout import Column
from ...store.rowless_store import is_unused, replace_unused
from ...store.store_record import GroupRecord, StoreRecord, columns_json
from ..data.sources import Source, renamed
from ..interface.method import Method
from .examples import StoredFields, example_columns
from .member_model import model_facts, record_model, remove_unread
from .provider import Provider
from .resume_point import ResumePoint
from .stored_columns import precisions_of
from .stream_ends import cut_at_ends


class _SourceRecord(TypedDict):
    """A file of the corpus, as the store's provenance records it; or records that lie in no file, whose path says how they are
    opened again, empty if they cannot be, and whose size is their number.
    """

    name: str
    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Opening:
    """How the store of an ingestion is opened."""

    stored_fields: StoredFields
    append: bool
    """Whether the documents of new files are appended."""
    has_base: bool = False
    """Whether the methods are members whose model may differ from the store's."""


def open_for_ingest(path: str, provider: Provider, methods: Mapping[str, Method], opening: Opening) -> FeatureStore:
    """Create the store, or open the existing one and check that it has the same model, corpus and settings. One that holds
    nothing yet is replaced if it differs from this run. Truncation may be switched on later.

    Raises:
        StoreMismatch: another model, tokenizer, corpus or settings; only the differences are listed.
        StoreBusy: another process writes to a store that holds nothing yet.
    """
    stored_fields = opening.stored_fields
    keep = {"keep": list(stored_fields.keep)} if stored_fields.keep else {}
    facts = {**provider.provenance(), "text": stored_fields.text, "tokens": stored_fields.tokens, **keep}
    provenance = {**facts, **provider.origin(), "sources": _source_records(provider.sources)}
    groups = {group: GroupRecord(columns, notes) for group, columns, notes in _groups(provider, methods, stored_fields)}
    if not FeatureStore.exists(path):
        store = FeatureStore.create(path, provenance, __version__)
    elif is_unused(store := FeatureStore.open(path)):
        if (store.provenance, dict(store.groups)) != (provenance, groups):
            replace_unused(store, provenance, __version__)
    else:
        store.require_writable()
        later = {"truncate"} if facts.get("truncate") else set[str]()  # rows so far did not need to be truncated
        other = later | ({"model"} if opening.has_base else set[str]())
        require_same(path, {key: value for key, value in facts.items() if key not in other}, store.provenance)
        provider.sources[:] = cut_at_ends(provider.sources, store.provenance["sources"], path, append=opening.append)
        _merge_sources(store, provider, [EXAMPLES, *map(method_group, methods)], opening.append)
    model = model_facts(store, provider)
    for name in methods:
        remove_unread(store, name, model)
    for group, record in groups.items():
        if group not in store.groups:
            store.add_group(group, record.columns, {**record.notes, **({"model": model} if model else {})})
    for name in methods:
        record_model(store, name, model)
    return store


def _groups(
    provider: Provider, methods: Mapping[str, Method], stored_fields: StoredFields
) -> Iterator[tuple[str, tuple[Column, ...], JsonObject]]:
    """Name, columns and notes of each group that an ingestion writes."""
    model_shape = provider.head.model_shape
    yield EXAMPLES, example_columns(stored_fields, model_shape.vocabulary, provider.longest()), {}
    for name, method in methods.items():
        precisions = precisions_of(method, model_shape).values()
        columns = tuple(column for precision in precisions for column in precision.columns)
        yield method_group(name), columns, {
            "settings": method.settings(), "declared": columns_json(method.columns(model_shape)),
        }  # fmt: skip


def require_same(path: str, facts: JsonObject, stored: JsonObject) -> None:
    """Compare facts about a run with those that a store records; keys that the store lacks are not compared.

    Raises:
        StoreMismatch: they differ; each different key is named with both values.
    """
    differences = [
        f"{key} is {stored[key]!r} in the store, {value!r} in this run"
        for key, value in facts.items()
        if stored.get(key, value) != value
    ]
    if differences:
        raise StoreMismatch(f"{path} does not match this run: {'; '.join(differences)}")


def _source_records(sources: Sequence[Source]) -> list[_SourceRecord]:
    return [
        {"name": s.name, "path": s.content.address if s.content else s.path, "size": s.size, "digest": s.digest}
        for s in sources
    ]


def _merge_sources(store: FeatureStore, provider: Provider, groups: Sequence[str], append: bool) -> None:
    """Require that the corpus is the store's; with `append`, add new files. The root is updated in one step, so that two
    processes that append cannot give two files the same index.

    A file is identified by its content, and keeps the name that it has in the store.
    """

    def change(root: StoreRecord) -> StoreRecord:
        stored = root.provenance["sources"]
        ordered, new = _matched(stored, provider.sources)
        _require_unchanged(store, stored, ordered, new)
        if new and not append:
            raise StoreMismatch(f"{store.path} holds another corpus ({', '.join(f['name'] for f in stored[:3])}); "
                                f"--append adds {', '.join(s.name for s in new[:3])} to it")  # fmt: skip
        done = min((_finished_sources(store, group) if group in root.groups else 0 for group in groups), default=0)
        absent = [source.name for source in ordered[done:] if source.format == "absent"]
        if absent:
            raise StoreMismatch(
                f"{store.path} was made from further files", hint=f"add {', '.join(absent[:3])} to the command"
            )
        provider.sources[:] = ordered + new
        reopened = {name: replace(entry, complete=entry.complete and not new) for name, entry in root.entries.items()}
        provenance = {**root.provenance, "sources": stored + _source_records(new)}
        if provider.provenance().get("truncate"):
            provenance["truncate"] = True
        return replace(root, entries=reopened, provenance=provenance)

    store.update(change)


def _matched(stored: Sequence[_SourceRecord], sources: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """The store's files in its order and under its names (format "absent" if no source matches); and the new files, each with a
    longer name (see :func:`renamed`) if another file has its own.
    """
    new, ordered = list(sources), list[Source]()
    for record in stored:
        same = [source for source in new if (source.size, source.digest) == (record["size"], record["digest"])]
        match = min(same, key=lambda source: source.name != record["name"], default=None)
        if match is not None:
            new.remove(match)
        ordered.append(replace(match, name=record["name"]) if match else Source("", record["name"], "absent", 0, ""))
    names = {source.name for source in ordered}
    for index, source in enumerate(new):
        new[index] = renamed(source, names)
        names.add(new[index].name)
    return ordered, new


def _require_unchanged(
    store: FeatureStore, stored: Sequence[_SourceRecord], ordered: Sequence[Source], new: Sequence[Source]
) -> None:
    """Raise StoreMismatch if a new file has the path of a file of format "absent", or new records the name of absent ones: they
    were changed.
    """
    for record, match in zip(stored, ordered, strict=True):
        for source in new if match.format == "absent" else ():
            if _is_same_place(record, source):
                unit = "records" if source.content else "bytes"
                raise StoreMismatch(f"{source.path} has changed since it was ingested into {store.path} "
                                    f"({record['size']} {unit} then, {source.size} now)")  # fmt: skip


def _is_same_place(record: _SourceRecord, source: Source) -> bool:
    """Whether a source is at the path of a recorded file, or has the name of recorded records."""
    path = record.get("path", "")
    if source.content:
        return path == source.content.address and source.content.name == record["name"]
    return bool(path) and Path(source.path).absolute() == Path(path).absolute()


def _finished_sources(store: FeatureStore, group: str) -> int:
    """How many of the corpus's files a group has read to their end."""
    resume = ResumePoint.of(store, group)
    return max(resume.place.source, resume.sources)
