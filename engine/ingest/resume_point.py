"""Where the ingestion of one group of a store continues after a stop. Knows no model and no method."""

from __future__ import annotations

from dataclasses import dataclass

from ...store.feature_store import FeatureStore
from .examples import Place


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What a group's writer notes at each commit."""

    place: Place
    """Place of the last example written."""
    digest: str
    """Digest chained over the examples written."""
    sources: int
    """Number of the corpus's files that were read to their end."""

    @classmethod
    def of(cls, store: FeatureStore, group: str) -> ResumePoint:
        """The resume point at a group's last commit.

        Raises:
            StoreDamaged: the group's manifest is not what was written.
        """
        notes = store.resume_notes(group)
        return cls(Place(*notes.get("place", (0, -1, 0))), str(notes.get("digest", "")), int(notes.get("sources", 0)))

    @property
    def by_row(self) -> bool:
        """Whether the last rows were read from the store's own examples: their places in the files are not known."""
        return self.place.source < 0

    @property
    def start(self) -> Place:
        """The place after which examples are still to be read."""
        return max(self.place, Place(self.sources))
