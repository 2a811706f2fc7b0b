"""Notes prompts of queries that end in other white space than the prompts of a store's examples. Knows no method and no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ..results.example_table import Examples
from ..results.results import QueryText

_READ = 256
"""Examples whose prompts are read."""
_NEARLY_ALL = 0.9


def prompt_end_notes(store: FeatureStore, queries: Sequence[QueryText]) -> list[str]:
    """A note if nearly all of the store's prompts end in the same white space, such as a line end, and some queries' do not."""
    if not store.provenance.get("text") or not any(query.prompt for query in queries):
        return []
    prompts = Examples(store).strings("prompt", np.arange(min(_READ, store.rows(EXAMPLES))))
    ends = Counter(_white_end(prompt) for prompt in prompts if prompt)
    ((end, count),) = ends.most_common(1) or [("", 0)]
    others = [query for query in queries if query.prompt and not query.prompt.endswith(end)]
    if not end or not others or count < _NEARLY_ALL * ends.total():
        return []
    return [
        f"{len(others)} of {len(queries)} queries have a prompt that does not end with {end!r}, as the prompts of the store's "
        "examples do: the model reads prompt and completion one right after the other"
    ]


def _white_end(text: str) -> str:
    """The white space at the end of a text."""
    return text[len(text.rstrip()) :]
