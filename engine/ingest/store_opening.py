"""Opens or creates the store of an ingestion, checks that it was made alike, merges its list of files.

Knows no readout and no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...store.errors import StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import Column
from ...store.manifest import StoreRecord, columns_json
from ..data.sources import Source
from ..interface.method import Method
from .examples import KeptFields, example_columns
from .provider import Provider
from .resume_point import ResumePoint
from .stored_columns import precisions_of


def open_for_ingest(
    path: str, provider: Provider, methods: Mapping[str, Method], *, kept: KeptFields, append: bool, version: str
) -> FeatureStore:
    """Create the store, or open the one that is there and see that it was made alike.

    Raises:
        StoreMismatch: another model, tokenizer, corpus or settings; only the differences are listed.
    """
    facts = {**provider.provenance(), "text": kept.text, "tokens": kept.tokens}
    if not FeatureStore.exists(path):
        store = FeatureStore.create(path, {**facts, **provider.origin(), "sources": _facts(provider.sources)}, version)
    else:
        store = FeatureStore.open(path)
        store.require_writable()
        refuse_differences(path, facts, store.provenance)
        _merge_sources(store, provider, [EXAMPLES, *map(method_group, methods)], append)
    columns = example_columns(kept, provider.head.model_shape.vocabulary, provider.longest())
    groups: dict[str, tuple[tuple[Column, ...], dict[str, Any]]] = {EXAMPLES: (columns, {})}
    for name, method in methods.items():
        model_shape = provider.head.model_shape
        stored = tuple(column for form in precisions_of(method, model_shape).values() for column in form.columns)
        notes = {"settings": method.settings(), "declared": columns_json(method.columns(model_shape))}
        groups[method_group(name)] = (stored, notes)
    for group, (columns, notes) in groups.items():
        if group not in store.groups:
            store.add_group(group, columns, notes)
    return store


def refuse_differences(path: str, asked: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Compare what is asked with what a store was made with.

    Raises:
        StoreMismatch: naming each key that differs, with both values.
    """
    apart = [
        f"{key} is {there[key]!r} there, {value!r} here"
        for key, value in asked.items()
        if there.get(key, value) != value
    ]
    if apart:
        raise StoreMismatch(f"{path} was made differently: {'; '.join(apart)}")


def _facts(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [{"name": s.name, "path": s.path, "size": s.size, "digest": s.digest} for s in sources]


def _merge_sources(store: FeatureStore, provider: Provider, asked: Sequence[str], append: bool) -> None:
    """The corpus must be the store's own; with `append`, files that are not in it yet are added behind. In one step, so
    that two processes that append cannot both take the next place.

    A file is known by what it holds; it keeps the name that the store knows it by, whatever it is called now.
    """

    def change(root: StoreRecord) -> StoreRecord:
        known = root.provenance["sources"]
        ordered, new = _matched(known, provider.sources)
        _refuse_changed(store, known, ordered, new)
        if new and not append:
            raise StoreMismatch(f"{store.path} holds another corpus ({', '.join(f['name'] for f in known[:3])}); "
                                f"--append adds {', '.join(s.name for s in new[:3])} to it")  # fmt: skip
        done = min((_finished_sources(store, group) if group in root.groups else 0 for group in asked), default=0)
        absent = [source.name for source in ordered[done:] if source.format == "absent"]
        if absent:
            raise StoreMismatch(f"{store.path} is made of more files: {', '.join(absent[:3])} must be named too")
        provider.sources[:] = ordered + new
        reopened = {name: replace(entry, complete=entry.complete and not new) for name, entry in root.entries.items()}
        return replace(root, entries=reopened, provenance={**root.provenance, "sources": known + _facts(new)})

    store.update(change)


def _matched(known: Sequence[Mapping[str, Any]], given: Sequence[Source]) -> tuple[list[Source], list[Source]]:
    """Each known file as given, under its known name, or absent; and the others, under names of their own."""
    left, ordered = list(given), list[Source]()
    for fact in known:
        same = [source for source in left if (source.size, source.digest) == (fact["size"], fact["digest"])]
        found = min(same, key=lambda source: source.name != fact["name"], default=None)
        if found is not None:
            left.remove(found)
        ordered.append(replace(found, name=fact["name"]) if found else Source("", fact["name"], "absent", 0, ""))
    names = {source.name for source in ordered}
    for place, source in enumerate(left):
        parts, depth = Path(source.path).absolute().parts, 1
        name = source.name
        while name in names and depth < len(parts):
            depth += 1
            name = "/".join(parts[-depth:])
        left[place] = replace(source, name=name)
        names.add(name)
    return ordered, left


def _refuse_changed(
    store: FeatureStore, known: Sequence[Mapping[str, Any]], ordered: Sequence[Source], new: Sequence[Source]
) -> None:
    """A file that stands where a known one stood and holds something else is no new file."""
    for fact, found in zip(known, ordered, strict=True):
        for source in new if found.format == "absent" else ():
            if Path(source.path).absolute() == Path(fact.get("path", "")).absolute():
                raise StoreMismatch(f"{source.path} has changed since it was ingested into {store.path} "
                                    f"({fact['size']} bytes then, {source.size} now)")  # fmt: skip


def _finished_sources(store: FeatureStore, group: str) -> int:
    """How many of the corpus's files a group has read to their end."""
    resume = ResumePoint.of(store, group)
    return max(resume.place.source, resume.sources)
