"""How many examples to choose, and which may be chosen. Knows no store and no method."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ...store.errors import SettingsError
from ..results.row_filter import RowFilter


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """How many examples to choose, and which may be chosen."""

    count: int | None = None
    """Number of examples; or None, with `tokens`."""
    tokens: int | None = None
    """Number of tokens of all chosen examples; or None, with `count`."""
    penalty: float = 1.0
    """λ; 0 chooses by each example's own score alone."""
    batch: int = 1
    """Examples that are chosen together in a round."""
    quotas: tuple[tuple[str, str, float], ...] = ()
    """(column, value, fraction of the count)."""
    columns: str = ""
    """Table with the column, if it is not the store's `source`."""
    where: RowFilter = field(default_factory=RowFilter)
    """Conditions that the chosen examples meet."""
    candidates: str = ""
    """File of the examples that may be chosen: ids (.txt) or a mask (.npy)."""
    exclude: str = ""
    """File of the examples that may not be chosen."""
    similarity: float | None = 1.0
    """Equal examples are chosen once; below 1 an example is left out, too, whose feature has at least this cosine with a chosen
    one's. None: copies are chosen as other examples are."""


def require_valid(request: SelectionRequest) -> None:
    """Raise SettingsError for a request that says too little, too much, or a number out of range."""
    if (request.count is None) == (request.tokens is None):
        raise SettingsError("say how much to choose: either --count or --tokens")
    if not 0 <= request.penalty < math.inf or request.batch < 1 or (request.count or request.tokens or 0) < 1:
        raise SettingsError("--count (or --tokens) and --per-step must be at least 1, and λ at least 0")
    if request.similarity is not None and not 0 < request.similarity <= 1:
        raise SettingsError(f"--distinct {request.similarity:g}: expected a cosine above 0 and at most 1")


def count_of(count: int | str | None, rows: int) -> int | None:
    """A number of examples: as it is, or from a part of all `rows` such as "10%", which is at least one.

    Raises:
        SettingsError: it is neither.
    """
    if count is None or isinstance(count, int):
        return count
    try:
        if not count.endswith("%"):
            return int(count)
        if 0 < (share := float(count[:-1])) <= 100:
            return max(1, round(share / 100 * rows))
    except ValueError:
        pass
    raise SettingsError(f"count {count}: expected a number of examples, or a part of all of them such as 10%")
