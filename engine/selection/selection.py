"""`select`: examples worth training on for a task, by greedy choice under a budget, quotas and filters. Knows no method by name.

A set of n rows is chosen by the surrogate's sum form at λ/n, whose sum over the set is n times Û of its mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...store.errors import DataError, SettingsError
from ...store.files import JsonObject, whole_file
from ...store.layout import Array
from ..arrays.greedy.greedy import greedy
from ..arrays.greedy.problem import CACHE_BYTES, DIRECTIONS, Choice, Limits, Objective, Room
from ..arrays.greedy.row_cache import RowSource
from ..arrays.scan.scan_loop import cores, shapes
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..results.example_table import Columns, Examples
from ..results.groups import Groups
from ..runtime.memory import Part, Plan
from .linear_features import LinearFeatures
from .subsets import ids_or_mask

CHOSEN_FIELDS = {
    "order": pa.int64(), "id": pa.string(), "gain": pa.float64(), "row": pa.int64(), "source": pa.string(),
    "tokens": pa.int64(), "prompt": pa.string(), "completion": pa.string(), "text": pa.string(),
}  # fmt: skip
_POOLS, _POOL_BYTES = (4096, 1024, 128), 512 << 20
_PART = 512
_ID_BYTES = 300  # of an id with its row or its value, in a table of Python objects


@dataclass(frozen=True, slots=True)
class SelectionRequest:
    """What is to be chosen."""

    count: int | None = None
    """Examples."""
    tokens: int | None = None
    """Or as many as have so many tokens together."""
    penalty: float = 1.0
    """λ; 0 is the additive top-k."""
    batch: int = 1
    """Chosen at once."""
    quotas: tuple[tuple[str, str, float], ...] = ()
    """(column, value, share of the count)."""
    columns: str = ""
    """Table of the columns, where it is not the store's own `source`."""
    candidates: str = ""
    """File of the examples that may be chosen: ids (.txt) or a mask (.npy)."""
    exclude: str = ""
    """File of those that may not."""


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """Examples, in the order in which they were chosen."""

    choice: Choice
    utility: float
    """Û of the set."""
    additive: float
    """⟨v, Φ̄⟩, its first part."""
    facts: JsonObject = field(default_factory=dict)


class Selection:
    """A choice, planned, with nothing computed yet."""

    def __init__(self, features: LinearFeatures, wanted: SelectionRequest) -> None:
        """Read the filters, make the plan.

        Raises:
            SettingsError, DataError: a budget, quota or filter that cannot be. BudgetError: not even the smallest pool fits.
        """
        self._features, self._wanted = features, wanted
        if (wanted.count is None) == (wanted.tokens is None):
            raise SettingsError("say how much to choose: either --count or --tokens")
        if not 0 <= wanted.penalty < math.inf or wanted.batch < 1 or (wanted.count or wanted.tokens or 0) < 1:
            raise SettingsError("a choice has a count (or tokens) and a batch of 1 at least, and λ of at least 0")
        self._open = self._filtered()
        self._tokens = Examples(features.store).numbers("tokens").reshape(-1)
        self.count = self._sized()
        mean = float(self._tokens[self._open].mean())
        self._size = wanted.count or max(1, round((wanted.tokens or 0) / max(1.0, mean)))
        self._groups, self._caps = self._quotas()
        readers = features.stored.scanned(features.column)
        self._source = RowSource(readers, features.form)
        pools = [min(pool, max(_POOLS[-1], _POOL_BYTES // (12 * features.depth))) for pool in _POOLS]
        rooms = [Room(pool, directions, kept // self._source.row_bytes, shape)
                 for shape in shapes(readers, cores())[:1] + shapes(readers, 1)[-1:]
                 for directions in DIRECTIONS for pool in pools for kept in CACHE_BYTES]  # fmt: skip
        held = Plan.of(
            Part("examples' lengths and groups", 24 * features.rows),
            Part("what is chosen", 64 * self.count),
            Part(
                "ids of files", _ID_BYTES * features.rows * bool(wanted.candidates or wanted.exclude or wanted.columns)
            ),
        )
        self.plan: Plan
        cuts = ((room.parts(self._source), room) for room in rooms)
        self.plan, self._room = first_plan_within_budget(cuts, held, features.run.budget)

    def run(self, vector: Array) -> SelectionResult:
        """Choose for a task's vector (D,)."""
        run = self._features.run
        wanted = self._wanted
        cost = None if wanted.tokens is None else np.maximum(self._tokens, 1).astype(np.float32)
        budget = float(wanted.tokens or np.inf)
        limits = Limits(self.count, self._open, cost, budget, self._groups, self._caps, wanted.batch)
        c = wanted.penalty / self._size
        objective = Objective(np.asarray(vector, np.float64), c)
        choice = greedy(self._source, objective, limits, self._room, run.stage("select", self.count, "chosen"))
        size = max(1, len(choice.rows))
        mean = choice.total / size
        additive = float(vector @ mean)
        utility = additive - wanted.penalty / 2 * float(mean @ mean)
        facts = {
            "examples": len(choice.rows), "tokens": int(self._tokens[choice.rows].sum()), "lambda": wanted.penalty,
            "utility": utility, "additive": additive, "passes": choice.passes, "fetched": choice.fetched,
        }  # fmt: skip
        if wanted.batch > 1:  # what the gains promised, and what the set is worth
            worth = float(vector @ choice.total) - c / 2 * float(choice.total @ choice.total)
            facts["lost to batches"] = (float(choice.gains.sum()) - worth) / size
        return SelectionResult(choice, utility, additive, facts)

    def rows(self, chosen: SelectionResult) -> Iterator[Columns]:
        """What was chosen, with texts ready for training, as columns of `CHOSEN_FIELDS`."""
        examples, choice = Examples(self._features.store), chosen.choice
        for start in range(0, len(choice.rows), _PART):
            rows = choice.rows[start : start + _PART]
            prompts, texts = examples.get("prompt", rows), examples.get("text", rows)
            yield {
                "order": list(range(start + 1, start + len(rows) + 1)),
                "id": examples.get("id", rows),
                "gain": choice.gains[start : start + _PART].tolist(),
                "row": rows.tolist(),
                "source": examples.get("source", rows),
                "tokens": self._tokens[rows].tolist(),
                "prompt": prompts,
                "completion": [text if prompt else "" for prompt, text in zip(prompts, texts, strict=True)],
                "text": ["" if prompt else text for prompt, text in zip(prompts, texts, strict=True)],
            }

    def _filtered(self) -> Array:
        store, rows, wanted = self._features.store, self._features.rows, self._wanted
        may = ids_or_mask(wanted.candidates, store, rows) if wanted.candidates else np.ones(rows, bool)
        if wanted.exclude:
            may &= ~ids_or_mask(wanted.exclude, store, rows)
        if not may.any():
            raise DataError("no example may be chosen: every one is excluded")
        return may

    def _sized(self) -> int:
        """Examples that are chosen: with a budget of tokens, as many as of mean length fit."""
        there, wanted = int(self._open.sum()), self._wanted
        if wanted.count is not None:
            if wanted.count > there:
                raise DataError(f"--count {wanted.count} is more than the {there} examples that may be chosen")
            return wanted.count
        total = int(self._tokens[self._open].sum())
        assert wanted.tokens is not None
        if wanted.tokens > total:
            raise DataError(
                f"--tokens {wanted.tokens} is more than the {total} tokens of the examples that may be chosen"
            )
        return there

    def _quotas(self) -> tuple[Array | None, Array | None]:
        """Each row's group, and how many of each are chosen: shares for the values named, the rest for all others."""
        wanted = self._wanted
        if not wanted.quotas:
            return None, None
        if wanted.count is None:
            raise SettingsError("--quota is a share of --count")
        columns = {column for column, _, _ in wanted.quotas}
        if len(columns) > 1 or sum(share for _, _, share in wanted.quotas) > 1 + 1e-9:
            raise SettingsError("quotas are of one column, and add up to 1 at most")
        groups = Groups(self._features.store, columns.pop(), wanted.columns)
        of, caps = np.zeros(self._features.rows, np.int64), [0]
        for number, (column, value, share) in enumerate(wanted.quotas, 1):
            if value not in groups.names:
                raise DataError(f"no example has {column} {value}: there are {', '.join(groups.names[:8])}")
            own = groups.of == groups.names.index(value)
            caps.append(round(share * wanted.count))
            if caps[-1] > int((own & self._open).sum()):
                raise DataError(
                    f"{column} {value}: {caps[-1]} examples are wanted, {int((own & self._open).sum())} may be chosen"
                )
            of[own] = number
        if len({value for _, value, _ in wanted.quotas}) < len(wanted.quotas):
            raise SettingsError("a value has one quota")
        caps[0] = max(0, wanted.count - sum(caps))
        rest = int((self._open & (of == 0)).sum())
        if caps[0] > rest:
            raise DataError(f"quotas leave {caps[0]} examples to others, of which {rest} may be chosen")
        open_ = self._open & (np.array(caps) > 0)[of]
        self._open = open_
        return of, np.array(caps)


def refuse_training(path: str) -> None:
    """Raise SettingsError for a name that chosen examples cannot be written to."""
    if Path(path).suffix != ".jsonl" or Path(path).is_dir():
        raise SettingsError(f"{path}: chosen examples are written as a .jsonl file")


def write_training(path: str, parts: Iterator[Columns]) -> None:
    """JSON lines ready for training: `text`, or `prompt` and `completion`, with id, order, gain, row and source."""
    with whole_file(Path(path)) as hidden, hidden.open("w", encoding="utf-8") as out:
        for part in parts:
            for values in zip(*part.values(), strict=True):
                record = dict(zip(part, values, strict=True))
                empty = ("text",) if record["prompt"] else ("prompt", "completion")
                out.write(json.dumps({k: v for k, v in record.items() if k not in empty}, ensure_ascii=False) + "\n")
