"""`select`: chooses examples to train on for a task, greedily, under a budget, quotas and filters. Knows no method by name.

A set of n rows is chosen by the surrogate's sum form at λ/n, whose value for the set is n times Û of its mean.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..arrays.greedy.greedy import greedy
from ..arrays.greedy.problem import CACHE_BYTES, DIRECTIONS, Choice, Limits, Objective, Room
from ..arrays.greedy.row_cache import RowSource
from ..arrays.scan.scan_loop import cores, shapes
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..results.example_table import PART_SIZES, Columns, Examples
from ..results.group_labels import GroupColumn
from ..results.groups import Groups
from ..results.table_plan import Scored, table_plan
from ..runtime.memory import Part, Plan
from ..runtime.output_files import whole_file
from .equal_texts import PASSES, equal_texts, equal_texts_bytes
from .linear_features import LinearFeatures
from .selection_request import SelectionRequest, require_valid
from .subsets import ID_BYTES, ids_or_mask

CHOSEN_FIELDS = {
    "order": pa.int64(), "id": pa.string(), "gain": pa.float64(), "row": pa.int64(), "source": pa.string(),
    "tokens": pa.int64(), "prompt": pa.string(), "completion": pa.string(), "text": pa.string(),
}  # fmt: skip
_POOLS, _POOL_BYTES = (4096, 1024, 128), 512 << 20
_CHOSEN_BYTES = (512 << 20, 32 << 20, 1 << 20)  # of chosen rows that others are compared with
_PART = PART_SIZES[2]  # of the examples that are written together


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """Chosen examples, in the order of their choice."""

    choice: Choice
    utility: float
    """Û of the set."""
    additive: float
    """⟨v, Φ̄⟩, the first term of Û."""
    facts: ParsedJson = field(default_factory=dict)


class GreedySelection:
    """A greedy selection with its memory plan, before it is computed."""

    def __init__(self, features: LinearFeatures, request: SelectionRequest) -> None:
        """Make the plan, read the filters, find equal examples.

        Raises:
            SettingsError, DataError: a wrong budget, quota or filter. BudgetError: not even the smallest pool fits.
        """
        self._features, self._request = features, request
        require_valid(request)
        self._source = RowSource(features.stored.scanned(features.column), features.form)
        self._tokens = Examples(features.store).numbers("tokens").reshape(-1)[: features.rows]
        self.plan: Plan
        self.plan, (self._room, passes) = first_plan_within_budget(
            self._plans(), self._base_plan(), features.run.budget
        )
        self._eligible = self._filtered()
        self.count = request.count or int(self._eligible.sum())
        mean = float(self._tokens[self._eligible].mean())
        self._size = request.count or max(1, round((request.tokens or 0) / max(1.0, mean)))
        self._texts = None if request.similarity is None else self._equal_texts(passes)
        self._require_enough()
        self._groups, self._caps = self._quotas()

    @property
    def store(self) -> FeatureStore:
        """The store whose examples are chosen."""
        return self._features.store

    def _plans(self) -> Iterator[tuple[Plan, tuple[Room, int]]]:
        """Plans of the choice, fastest first, each with its room and the number of passes that find equal examples."""
        depth, similarity, source = self._features.depth, self._request.similarity, self._source
        pools = [min(pool, max(_POOLS[-1], _POOL_BYTES // (12 * depth))) for pool in _POOLS]
        near = similarity is not None and similarity < 1
        in_memory = [max(1, min(self._most, size // (4 * depth))) for size in _CHOSEN_BYTES] if near else [0]
        every_shape = shapes(source.columns, cores())[:1] + shapes(source.columns, 1)[-1:]
        for shape, directions, pool, cache_bytes, chosen_rows in itertools.product(
            every_shape, DIRECTIONS, pools, CACHE_BYTES, dict.fromkeys(in_memory)
        ):
            room = Room(pool, directions, cache_bytes // source.row_bytes, shape, chosen_rows)
            plan, passes = self._with_equal_texts(room.parts(source))
            yield plan, (room, passes)

    def _with_equal_texts(self, choice: Plan) -> tuple[Plan, int]:
        """The plan with that of finding equal examples, which is over before the choice begins and uses its memory; and in how
        many passes they are found.
        """
        if self._request.similarity is None:
            return choice, 0
        rows = self._features.rows
        sizes = {passes: equal_texts_bytes(rows, self._longest, self._source.row_bytes, passes) for passes in PASSES}
        passes = next((passes for passes, size in sizes.items() if size <= choice.total), PASSES[-1])
        beyond = max(0, sizes[passes] - choice.total)
        return choice + Plan.of(Part("equal texts", 5 * rows), Part("texts being compared", beyond)), passes

    @property
    def _longest(self) -> int:
        """The most tokens of an example."""
        return int(self._tokens.max(initial=1))

    def _equal_texts(self, passes: int) -> Array:
        """(N,) int32: the number of an example's text; -1 if no other has it."""
        stage = self._features.run.stage("equal texts", self._features.rows)
        return equal_texts((self._features.stored, self._features.column), self._longest, passes, stage)

    def _once(self, rows: Array) -> Array:
        """(N,) bool: of rows (N,) bool those that may be chosen together: of equal ones the first."""
        if self._texts is None:
            return rows
        result: Array = rows & (self._texts < 0)
        repeated = np.flatnonzero(rows & (self._texts >= 0))
        result[repeated[np.unique(self._texts[repeated], return_index=True)[1]]] = True
        return result

    def _base_plan(self) -> Plan:
        """Memory that does not depend on the room; of the examples' labels nothing but their counts is read for it."""
        features, request = self._features, self._request
        plan = Plan.of(
            Part("examples' lengths and groups", 24 * features.rows),
            Part("chosen examples", 64 * self._most),
            Part("ids of files", ID_BYTES * features.rows * bool(request.candidates or request.exclude)),
        )
        written = Scored(features.store, features.rows, 1, self._most, features.run.budget)
        plan += table_plan(written, self._most)(_PART)
        for column in sorted({column for column, _, _ in request.quotas}):
            labels = GroupColumn(features.store, column, request.columns, features.rows)
            plan += labels.reading(labels.counts())
        return plan + request.where.plan(features.store, features.rows)

    @property
    def _most(self) -> int:
        """The most examples that may be chosen."""
        return min(self._request.count or self._features.rows, self._features.rows)

    def run(self, vector: Array) -> SelectionResult:
        """Choose examples for a task's vector (D,)."""
        run, request = self._features.run, self._request
        cost = None if request.tokens is None else np.maximum(self._tokens, 1).astype(np.float32)
        budget = float(request.tokens or np.inf)
        similarity = None if request.similarity == 1 else request.similarity
        limits = Limits(self.count, self._eligible, cost, budget, self._groups, self._caps, request.batch,
                        self._texts, similarity)  # fmt: skip
        c = request.penalty / self._size
        objective = Objective(np.asarray(vector, np.float64), c)
        choice = greedy(self._source, objective, limits, self._room, run.stage("select", self.count, "chosen"))
        size = max(1, len(choice.rows))
        mean = choice.total / size
        additive = float(vector @ mean)
        utility = additive - request.penalty / 2 * float(mean @ mean)
        facts = {
            "examples": len(choice.rows), "tokens": int(self._tokens[choice.rows].sum()), "lambda": request.penalty,
            "utility": utility, "additive": additive, "passes": choice.passes, "fetched": choice.fetched,
        }  # fmt: skip
        if self._texts is not None:
            facts["copies left out"] = int(self._eligible.sum() - self._once(self._eligible).sum())
        if request.batch > 1:  # gains within a batch ignore its other examples
            value = float(vector @ choice.total) - c / 2 * float(choice.total @ choice.total)
            facts["lost to batches"] = (float(choice.gains.sum()) - value) / size
        return SelectionResult(choice, utility, additive, facts)

    def rows(self, result: SelectionResult) -> Iterator[Columns]:
        """The chosen examples with their texts, as columns of `CHOSEN_FIELDS`."""
        examples, choice = Examples(self._features.store), result.choice
        for part, columns in examples.parts(("id", "source", "prompt", "text"), choice.rows, _PART):
            rows, prompts, texts = choice.rows[part], columns["prompt"], columns["text"]
            yield {
                "order": list(range(part.start + 1, part.stop + 1)),
                "id": columns["id"],
                "gain": choice.gains[part].tolist(),
                "row": rows.tolist(),
                "source": columns["source"],
                "tokens": self._tokens[rows].tolist(),
                "prompt": prompts,
                "completion": [text if prompt else "" for prompt, text in zip(prompts, texts, strict=True)],
                "text": ["" if prompt else text for prompt, text in zip(prompts, texts, strict=True)],
            }

    def _filtered(self) -> Array:
        """(N,) bool: the examples that may be chosen by the files of candidates and exclusions."""
        store, rows, request = self._features.store, self._features.rows, self._request
        eligible = ids_or_mask(request.candidates, store, rows) if request.candidates else np.ones(rows, bool)
        if request.exclude:
            eligible &= ~ids_or_mask(request.exclude, store, rows)
        if (ranked := request.where.mask(store, rows)) is not None:
            eligible &= ranked
        if not eligible.any():
            raise DataError("no example may be chosen: --among and --exclude leave none")
        return eligible

    def _require_enough(self) -> None:
        """Raise DataError if fewer examples, or tokens, may be chosen than are asked for."""
        request, once = self._request, self._once(self._eligible)
        examples, tokens = int(once.sum()), int(self._tokens[once].sum())
        copies = int(self._eligible.sum()) - examples
        hint = f" ({copies} more are equal to one of these: --copies allows them)" if copies else ""
        if request.count is not None and request.count > examples:
            raise DataError(f"--count {request.count} is more than the {examples} examples that may be chosen{hint}")
        if request.tokens is not None and request.tokens > tokens:
            raise DataError(
                f"--tokens {request.tokens} is more than the {tokens} tokens of the examples that may be chosen{hint}"
            )

    def _quotas(self) -> tuple[Array | None, Array | None]:
        """(N,) each row's group, and how many of each group are chosen: its quota; group 0 gets the rest."""
        request = self._request
        if not request.quotas:
            return None, None
        if request.count is None:
            raise SettingsError("--quota is a fraction of --count", hint="give --count")
        columns = {column for column, _, _ in request.quotas}
        if len(columns) > 1 or sum(share for _, _, share in request.quotas) > 1 + 1e-9:
            raise SettingsError("all quotas must be of one column, and add up to at most 1")
        if len({value for _, value, _ in request.quotas}) < len(request.quotas):
            raise SettingsError("a value can have only one quota")
        group_ids, caps = self._group_caps(
            Groups(GroupColumn(self._features.store, columns.pop(), request.columns, self._features.rows)),
            request.count,
        )
        rest = int(self._once(self._eligible & (group_ids == 0)).sum())
        if caps[0] > rest:
            raise DataError(f"quotas leave {caps[0]} examples to other values, of which {rest} may be chosen")
        self._eligible = self._eligible & (caps > 0)[group_ids]
        return group_ids, caps

    def _group_caps(self, groups: Groups, count: int) -> tuple[Array, Array]:
        """(N,) the quota's number of each row, 0 for rows of other values; and how many examples each number gets."""
        group_ids, caps = np.zeros(self._features.rows, np.int64), [0]
        shares = [share for *_, share in self._request.quotas]
        bounds = [
            round(part * count) for part in (0.0, *itertools.accumulate(shares))
        ]  # parts of 1 add up to the count
        for number, (column, value, _) in enumerate(self._request.quotas, 1):
            if value not in groups.names:
                raise DataError(f"no example has {column} {value}: there are {', '.join(groups.names[:8])}")
            own = groups.of == groups.names.index(value)
            caps.append(bounds[number] - bounds[number - 1])
            eligible = int(self._once(own & self._eligible).sum())
            if caps[-1] > eligible:
                raise DataError(f"{column} {value}: the quota is {caps[-1]} examples, {eligible} may be chosen")
            group_ids[own] = number
        caps[0] = max(0, count - sum(caps))
        return group_ids, np.array(caps)


def refuse_training(path: str) -> None:
    """Raise SettingsError for a file name that chosen examples cannot be written to."""
    if Path(path).suffix != ".jsonl" or Path(path).is_dir():
        raise SettingsError(f"{path}: chosen examples are written as a .jsonl file")


def write_training(path: str, parts: Iterator[Columns]) -> None:
    """Write examples as JSON lines for training: `text`, or `prompt` and `completion`, with id, order, gain, row and source."""
    with whole_file(Path(path)) as hidden, hidden.open("w", encoding="utf-8") as out:
        for part in parts:
            for values in zip(*part.values(), strict=True):
                record = dict(zip(part, values, strict=True))
                empty = ("text",) if record["prompt"] else ("prompt", "completion")
                out.write(json.dumps({k: v for k, v in record.items() if k not in empty}, ensure_ascii=False) + "\n")
