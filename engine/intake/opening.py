"""The store of an ingestion: created, or opened and seen to be made alike, with the corpus's files merged into its own.

Knows no readout and no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...store.errors import StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import Column
from ..method import Method
from .corpus import Source
from .examples import example_columns
from .provider import Provider


def open_for_ingest(
    path: str, provider: Provider, methods: Mapping[str, Method], *, with_text: bool, append: bool, version: str
) -> FeatureStore:
    """Create the store, or open the one that is there and see that it was made alike.

    Raises:
        StoreMismatch: another model, tokenizer, corpus or settings; only the differences are listed.
    """
    facts = {**provider.provenance(), "text": with_text}
    if not FeatureStore.exists(path):
        store = FeatureStore.create(path, {**facts, **provider.origin(), "sources": _source_facts(provider)}, version)
    else:
        store = FeatureStore.open(path)
        refuse_differences(path, facts, store.provenance)
        _merge_sources(store, provider, append)
    groups: dict[str, tuple[tuple[Column, ...], dict[str, Any]]] = {EXAMPLES: (example_columns(with_text), {})}
    for name, method in methods.items():
        groups[method_group(name)] = (method.columns(provider.head.sizes), {"settings": method.settings()})
    for group, (columns, notes) in groups.items():
        if group not in store.groups:
            store.add_group(group, columns, {**notes, "place": [0, -1, 0], "digest": "", "complete": False})
    return store


def refuse_differences(path: str, asked: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Compare what is asked with what a store was made with.

    Raises:
        StoreMismatch: naming each key that differs, with both values.
    """
    apart = [f"{key} is {there.get(key)!r} there, {asked[key]!r} here" for key in asked if there.get(key) != asked[key]]
    if apart:
        raise StoreMismatch(f"{path} was made differently: {'; '.join(apart)}")


def _source_facts(provider: Provider) -> list[dict[str, Any]]:
    return [{"name": s.name, "size": s.size, "digest": s.digest} for s in provider.sources]


def _merge_sources(store: FeatureStore, provider: Provider, append: bool) -> None:
    """The corpus must be the store's own; with `append`, files that are not in it yet are added behind."""
    known = store.provenance["sources"]
    given = {(s.name, s.digest): s for s in provider.sources}
    names = {s.name: s for s in provider.sources}
    for fact in known:
        changed = names.get(fact["name"])
        if (fact["name"], fact["digest"]) not in given and changed is not None:
            raise StoreMismatch(f"{changed.path} has changed since it was ingested into {store.path} "
                                f"({fact['size']} bytes then, {changed.size} now)")  # fmt: skip
    keys = [(fact["name"], fact["digest"]) for fact in known]
    new = [s for s in provider.sources if (s.name, s.digest) not in keys]
    if new and not append:
        raise StoreMismatch(f"{store.path} holds another corpus ({', '.join(f['name'] for f in known[:3])}); "
                            f"--append adds {', '.join(s.name for s in new[:3])} to it")  # fmt: skip
    complete = all(record.get("complete") for record in store.groups.values())
    absent = [fact["name"] for fact in known if (fact["name"], fact["digest"]) not in given]
    if absent and not (append and complete):
        raise StoreMismatch(f"{store.path} is made of more files: {', '.join(absent[:3])} must be named too")
    ordered = [given.get(key) or _absent(key) for key in keys] + new
    provider.sources[:] = ordered
    if new:
        added = [{"name": s.name, "size": s.size, "digest": s.digest} for s in new]

        def change(attributes: dict[str, Any]) -> None:
            attributes["provenance"]["sources"] += added
            for record in attributes["groups"].values():
                record["complete"] = False

        store.update(change)


def _absent(key: tuple[str, str]) -> Source:
    return Source("", key[0], "absent", 0, key[1])
