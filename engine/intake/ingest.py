"""From a corpus to a store: one forward pass for every method that is behind, written by a thread of its own, resumable.

Each group of the store (the examples', and each method's) carries its own progress: rows, place in the corpus, and a digest
chained over the examples so far. A run brings the groups that lag furthest to the next one's level, all of them together
from there on. So a killed run, a method added later and documents appended later are one and the same case. Knows no method
by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ...store.errors import DataError, StoreBusy, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import TEXT_CHUNK_ROWS, Column
from ...store.writer import GroupWriter
from ..memory import Plan, plan
from ..method import Method, Needs, Sizes
from .background import WritingThread
from .examples import WINDOW, Example, Place, batches, example_columns, example_rows, windows
from .provider import Provider
from .readout import NonFiniteLogits, merged_needs

TOKEN_BYTES = 40
"""Of a token in a list of Python numbers; while it is being made by a tokenizer, with its place in the text, six times that."""
TEXT_BYTES = 8
"""Of a token's text, at most: four characters of two bytes, or eight of one."""
BATCH_TOKENS = 4096
"""Padded tokens of a batch, at most: beyond this neither a CPU nor a GPU gets faster on small models."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an ingestion stands."""

    rows: int
    """Rows of this run's pass that are read out."""
    tokens: int
    """Tokens of this run so far."""
    place: Place
    """The last example's place in the corpus."""
    seconds: float
    """Since the run began."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an ingestion came to."""

    rows: int
    """Examples in the store."""
    added: int
    """Rows read out by this run."""
    tokens: int
    """Tokens read by this run."""
    seconds: float
    """Wall time of this run."""
    faults: int
    """Bad records skipped by this run."""
    finished: bool
    """False after an interruption."""


def ingest_plan(provider: Provider, methods: Mapping[str, Method], tokens: int, with_text: bool) -> Plan:
    """The memory of an ingestion in batches of `tokens` padded tokens."""
    sizes = provider.head.sizes
    columns = [c for m in methods.values() for c in m.columns(sizes)]
    numbers = [c for c in [*columns, *example_columns(with_text)] if not c.is_text]
    longest = provider.longest()
    return plan(
        [
            *provider.memory(tokens),
            layers_part(sizes, [method.needs(sizes) for method in methods.values()], tokens),
            *((f"{name} scratch", method.scratch(sizes, tokens)) for name, method in methods.items()),
            ("rows in flight", 4 * WINDOW * sum(c.row_bytes for c in columns)),
            ("chunks being filled", sum(c.chunk_bytes for c in numbers)),
            ("tokens", (2 * WINDOW + 64 * 6) * longest * TOKEN_BYTES),
            ("texts", (4 * WINDOW + 3 * TEXT_CHUNK_ROWS * with_text) * longest * TEXT_BYTES),
        ]
    )


def layers_part(sizes: Sizes, needs: Sequence[Needs], tokens: int) -> tuple[str, int]:
    """The hidden states of every layer, which a pass keeps as soon as a method asks for one below the last."""
    asked = {layer for need in needs for layer in need.layers}
    return "all layers' hidden states", bool(asked) * 4 * tokens * sizes.hidden * (sizes.layers + 2 + len(asked))


def choose_batch(
    provider: Provider, methods: Mapping[str, Method], budget: int | None, wanted: int | None, with_text: bool
) -> tuple[int, Plan]:
    """Padded tokens of a batch, and the plan: the widest batch within the budget.

    Raises:
        BudgetError: not even a batch of the longest example fits.
    """
    least = max(2, provider.longest())
    tokens = max(least, wanted or BATCH_TOKENS)
    smallest = ingest_plan(provider, methods, least, with_text)
    chosen = ingest_plan(provider, methods, tokens, with_text)
    while wanted is None and budget is not None and chosen.total > budget and tokens > least:
        tokens = max(least, tokens // 2)
        chosen = ingest_plan(provider, methods, tokens, with_text)
    chosen.check(budget, smallest.total)
    return tokens, chosen


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


def _absent(key: tuple[str, str]) -> Any:
    from .corpus import Source

    return Source("", key[0], "absent", 0, key[1])


class Ingestion:
    """One run of `ingest` over an opened store."""

    def __init__(
        self, provider: Provider, store: FeatureStore, methods: Mapping[str, Method], tokens: int, commit_seconds: float
    ) -> None:
        """`tokens`: padded tokens of a batch; `commit_seconds`: at most so much work is lost by a kill."""
        self.provider, self.store, self.methods = provider, store, dict(methods)
        self.tokens, self.commit_seconds = tokens, commit_seconds
        self.added, self.read_tokens, self.begun = 0, 0, time.monotonic()
        self._tables = {name: method.tables(provider.head) for name, method in self.methods.items()}
        self._needs = merged_needs([method.needs(provider.head.sizes) for method in self.methods.values()])

    def run(self, tell: Callable[[Progress], None], stopped: Callable[[], bool] = lambda: False) -> Outcome:
        """Bring every group to the corpus's end. `tell` hears of every window; `stopped` is asked before each.

        Raises:
            DataError: NaN or Inf in an example's logits (the example is named); what came before it is committed.
            StoreFull: no room left; what was committed stays.
        """
        finished = False
        while not finished:
            behind, level = self._behind()
            if not behind:
                finished = True
                break
            if not self._advance(behind, level, tell, stopped):
                break
        seconds = time.monotonic() - self.begun
        return Outcome(
            self.store.rows(EXAMPLES), self.added, self.read_tokens, seconds, self.provider.faults.count, finished
        )

    def _groups(self) -> list[str]:
        return [EXAMPLES, *(method_group(name) for name in self.methods)]

    def _behind(self) -> tuple[list[str], int | None]:
        """The groups that lag furthest, and the row at which they meet the next one; none when all are complete."""
        rows = {group: self.store.rows(group) for group in self._groups()}
        open_groups = [g for g in rows if not self.store.groups[g]["complete"]]
        if not open_groups:
            return [], None
        low = min(rows[group] for group in open_groups)
        above = [count for count in rows.values() if count > low]
        return [g for g in open_groups if rows[g] == low], min(above, default=None)

    def _advance(
        self, behind: list[str], level: int | None, tell: Callable[[Progress], None], stopped: Callable[[], bool]
    ) -> bool:
        """Read from the lagging groups' place to the next level or the end; false when stopped before."""
        with WritingThread(self._writers(behind), self.commit_seconds) as writer:
            record = self.store.groups[behind[0]]  # fresh: the writers have the store to themselves now
            start, digest, first = Place(*record["place"]), record["digest"], self.store.rows(behind[0])
            examples: Iterator[Example] = self.provider.examples(start)
            if level is not None:
                examples = islice(examples, level - first)
            for window in windows(examples):
                if stopped():
                    return False
                rows = self._window(window, behind)
                digest, place = _chained(digest, window), window[-1].place
                self.added += len(window)
                self.read_tokens += sum(example.length for example in window)
                writer.put(rows, {"place": [place.source, place.record, place.piece], "digest": digest})
                tell(Progress(first + self.added, self.read_tokens, place, time.monotonic() - self.begun))
            if level is None:
                writer.finish(complete=True)
        if level is not None:
            self._meet(behind, level)
        return True

    def _writers(self, groups: list[str]) -> list[GroupWriter]:
        writers: list[GroupWriter] = []
        try:
            for group in groups:
                writers.append(GroupWriter(self.store, group))
            if len({writer.rows for writer in writers}) != 1:
                raise StoreBusy(
                    f"another process has written to {self.store.path} just now: run the same command again"
                )
        except BaseException:
            for writer in writers:
                writer.close()
            raise
        return writers

    def _meet(self, behind: list[str], level: int) -> None:
        """The lagging groups must have seen what those ahead of them saw; a level that ends the corpus is the end."""
        leader = next(g for g in self._groups() if self.store.rows(g) == level and g not in behind)
        for group in behind:
            if self.store.groups[group]["digest"] != self.store.groups[leader]["digest"]:
                raise StoreMismatch(f"the corpus read now differs from the one that {self.store.path} was made from: "
                                    f"{self.store.rows(group)} examples here, {level} there, or other texts")  # fmt: skip
        if self.store.groups[leader]["complete"]:

            def change(attributes: dict[str, Any]) -> None:
                for group in behind:
                    attributes["groups"][group]["complete"] = True

            self.store.update(change)

    def _window(self, window: list[Example], groups: list[str]) -> dict[str, dict[str, Any]]:
        """All groups' rows of one window, in the corpus's order."""
        names = [name for name in self.methods if method_group(name) in groups]
        kept: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
        losses = torch.zeros(len(window))
        for batch in batches(window, self.tokens):
            self._read_batch([window[i] for i in batch], torch.tensor(batch), len(window), kept, losses)
        rows: dict[str, dict[str, Any]] = {method_group(n): {c: t.numpy() for c, t in kept[n].items()} for n in names}
        if EXAMPLES in groups:
            rows[EXAMPLES] = example_rows(window, losses.numpy())
        return rows

    def _read_batch(
        self,
        examples: list[Example],
        at: torch.Tensor,
        size: int,
        kept: dict[str, dict[str, torch.Tensor]],
        losses: torch.Tensor,
    ) -> None:
        with torch.inference_mode():
            readout = self.provider.read(examples, self._needs)
            try:
                losses[at] = readout.losses().cpu()
            except NonFiniteLogits as error:
                bad = examples[error.example]
                raise DataError(f"NaN or Inf in the logits of example {bad.id} ({bad.source}:{bad.line})") from None
            for name, columns in kept.items():
                for column, values in self.methods[name].rows(readout, self._tables[name]).items():
                    into = columns.get(column)
                    if into is None:
                        dtype = self._dtype(name, column)
                        into = columns[column] = torch.zeros((size, *values.shape[1:]), dtype=dtype)
                    into[at] = _finite(values.to(into.dtype).cpu(), name, examples)

    def _dtype(self, method: str, column: str) -> torch.dtype:
        declared = {c.name: c.dtype for c in self.store.columns(method_group(method))}
        if column not in declared:
            raise DataError(f"method {method} gave a column {column} that it does not declare: {', '.join(declared)}")
        found = getattr(torch, declared[column])
        assert isinstance(found, torch.dtype)
        return found


def _finite(values: torch.Tensor, method: str, examples: list[Example]) -> torch.Tensor:
    """The values, if every row of them is finite as stored; one bad row would rank first for ever."""
    bad = ~torch.isfinite(values.reshape(len(examples), -1)).all(1)
    if bad.any():
        example = examples[int(bad.nonzero()[0, 0])]
        raise DataError(f"method {method} gave NaN or Inf for example {example.id} ({example.source}:{example.line})")
    return values


def _chained(digest: str, window: list[Example]) -> str:
    for example in window:
        told = f"{digest}\0{example.id}\0{example.prompt}\0{example.text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(told, digest_size=16).hexdigest()
    return digest
