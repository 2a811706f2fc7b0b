"""Streamed data sets, whose length is not known before they are read: their records are counted, and compared the next time.

A stream is known by its first records, so two streams of different lengths may look the same: the store records where one ended.
Knows no model and no method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from typing import Any

from ...store.errors import StoreMismatch
from ...store.feature_store import FeatureStore
from ...store.store_record import StoreRecord
from ..data.record_source import RecordSource
from ..data.sources import Source


def is_stream(source: Source) -> bool:
    """Whether a source is a stream in memory. One that has an address is known by its revision and its splits' sizes."""
    return source.content is not None and not source.content.size and not source.content.address


class StreamEnds:
    """Counts the records of streams while they are read."""

    def __init__(self, sources: list[Source]) -> None:
        """Replace the streams among `sources`, in place, by ones that are counted."""
        self._counts: dict[str, int] = {}  # digest → number of records, of streams that were read to their end
        sources[:] = [
            replace(s, content=self._counted(s.content)) if s.content and is_stream(s) else s for s in sources
        ]

    def _counted(self, content: RecordSource) -> RecordSource:
        def records(start: int) -> Iterator[Mapping[str, object]]:
            count = start
            for fields in content.records(start):
                count += 1
                yield fields
            self._counts[content.digest] = count

        return replace(content, records=records)

    def record(self, store: FeatureStore) -> None:
        """Record the ends reached so far in the store's list of sources, as their sizes."""

        def change(root: StoreRecord) -> StoreRecord:
            sources = [
                {**entry, "size": entry["size"] or self._counts.get(entry["digest"], 0)}
                for entry in root.provenance["sources"]
            ]
            return replace(root, provenance={**root.provenance, "sources": sources})

        if self._counts:
            store.update(change)


def cut_at_ends(
    sources: Sequence[Source], stored: Sequence[Mapping[str, Any]], path: str, *, append: bool
) -> list[Source]:
    """The sources, each stream cut where the store's sources `stored` say that it ended: what follows is a source of its own. A
    stream that ended is read once more to its end for this.

    Raises:
        StoreMismatch: a stream has fewer records than then; or more, without `append`.
    """
    result = []
    ends = {entry["digest"]: int(entry["size"]) for entry in stored}
    for source in sources:
        rest: Source | None = source
        while rest is not None and rest.content and is_stream(rest) and (end := ends.get(rest.digest, 0)):
            last = list(islice(rest.content.records(end - 1), 2))
            if not last:
                raise StoreMismatch(
                    f"{source.path} has fewer records than when it was ingested into {path}: {end} then"
                )
            result.append(_part(rest, rest.content, end))
            rest = _after(rest, rest.content, end) if len(last) > 1 else None
            if rest is not None and rest.digest not in ends and not append:
                raise StoreMismatch(
                    f"{source.path} goes on after the {end} records that {path} was made from",
                    hint="--append adds the others",
                )
        result += [] if rest is None else [rest]
    return result


def _part(source: Source, content: RecordSource, end: int) -> Source:
    """The first `end` records of a stream."""
    part = replace(content, size=end, records=lambda start: islice(content.records(start), max(0, end - start)))
    return replace(source, size=end, content=part)


def _after(source: Source, content: RecordSource, end: int) -> Source:
    """The records of a stream after the first `end` ones."""
    digest = blake2b(f"{source.digest}:{end}".encode(), digest_size=16).hexdigest()
    return replace(
        source,
        digest=digest,
        content=replace(content, digest=digest, records=lambda start: content.records(end + start)),
    )
