"""A store after any sequence of writes, crashes, compressions and questions holds what plain lists in memory hold.

The rows are made here, without a model: `ingest` and `fit` have their own tests of being killed and continued.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.scan.compress import TargetPrecision, compression
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.stored_rows import StoredRows
from headwater.engine.arrays.scan.top_k import top_k
from headwater.engine.runtime.run import SILENT_STAGE, Run
from headwater.store.errors import StoreDamaged
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.upgrade import upgrade
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from old_format import make_old
from scanned import brute_force

WIDTH, CHUNK = 6, 4


class Killed(Exception):
    """Stands for the process's death."""


class WholeStore(RuleBasedStateMachine):
    """`ids` and `vectors` say what must be true; every rule opens the store anew, as another process would."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "S"
        self.ids: list[str] = []
        self.vectors: dict[str, np.ndarray] = {}
        """Method → its committed rows."""
        self.compressed = 0
        """Committed rows of the int8 form of method a."""

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def create(self) -> None:
        store = FeatureStore.create(self.path, {"model": "m"}, "test")
        store.add_group(EXAMPLES, [Column("id", (), TEXT, CHUNK)], {})
        self.declare("a")

    def declare(self, method: str) -> None:
        columns = [Column("vector", (WIDTH,), "float16", CHUNK)]
        FeatureStore.open(self.path).add_group(method_group(method), columns, {"settings": {}})
        self.vectors[method] = np.empty((0, WIDTH), np.float16)

    def drawn(self, count: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(-8, 9, (count, WIDTH)).astype(np.float16)

    @rule(count=st.integers(1, 11), seed=st.integers(0, 999))
    def append_documents(self, count: int, seed: int) -> None:
        first = len(self.ids)
        ids = [f"document {first + number}" for number in range(count)]
        with GroupWriter(FeatureStore.open(self.path), EXAMPLES) as writer:
            writer.append({"id": ids})
            writer.commit()
        self.ids += ids

    @rule(method=st.sampled_from("ab"), seed=st.integers(0, 999), parts=st.integers(1, 3))
    def write_missing_rows(self, method: str, seed: int, parts: int) -> None:
        if method not in self.vectors:
            self.declare(method)
        rows = self.drawn(len(self.ids) - len(self.vectors[method]), seed)
        with GroupWriter(FeatureStore.open(self.path), method_group(method)) as writer:
            for part in np.array_split(rows, parts):
                writer.append({"vector": part})
            writer.commit()
        self.vectors[method] = np.concatenate([self.vectors[method], rows])

    @precondition(lambda self: len(self.ids) > len(self.vectors["a"]))
    @rule(seed=st.integers(0, 999), flushed=st.booleans())
    def die_before_rows_are_visible(self, seed: int, flushed: bool) -> None:
        """After chunks were written, in the middle of a commit or before it: nothing of them may be seen."""
        store = FeatureStore.open(self.path)
        with GroupWriter(store, method_group("a")) as writer:
            writer.append({"vector": self.drawn(len(self.ids) - len(self.vectors["a"]), seed)})
            if flushed:
                with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                    patch.setattr(FeatureStore, "commit", _die)
                    writer.commit()

    @precondition(lambda self: len(self.vectors["a"]))
    @rule(stopped=st.booleans())
    def compress(self, stopped: bool) -> None:
        made = compression(FeatureStore.open(self.path), "a", TargetPrecision("int8"), None, partial=True)
        self.compressed = made.run(Run(should_stop=lambda: stopped).stage("compress", None))
        assert self.compressed == len(self.vectors["a"]) or stopped

    @precondition(lambda self: self.compressed)
    @rule()
    def read_compressed(self) -> None:
        store = FeatureStore.open(self.path)
        (group,) = (name for name in store.groups if name.endswith("a.int8"))
        form = StoredRows(store, group)
        columns = {reader.column.name: reader.gather(range(self.compressed)) for reader in form.all_columns()}
        decoded = form.precisions["vector"].decode(columns)
        assert np.abs(decoded - self.vectors["a"][: self.compressed].astype(np.float32)).max() <= 8 / 127

    @rule(method=st.sampled_from("ab"), seed=st.integers(0, 999), top=st.integers(1, 9), block=st.integers(1, 13))
    def ask(self, method: str, seed: int, top: int, block: int) -> None:
        """Whole numbers, so that scores are exact and ties are ties."""
        if not len(self.vectors.get(method, ())):
            return
        queries = self.drawn(2, seed).astype(np.float32)
        source = StoredRows(FeatureStore.open(self.path), method_group(method))
        actual = top_k(
            source.scanned("vector"),
            scorer_of(source.precisions["vector"], queries),
            top,
            ScanShape(block, 1),
            SILENT_STAGE,
        )
        scores, rows = brute_force(self.vectors[method], queries, top)
        assert np.array_equal(actual.scores, scores) and np.array_equal(actual.rows, rows)

    @precondition(lambda self: len(self.vectors["a"]) > CHUNK)
    @rule(column=st.sampled_from(["shards/0/methods/a/columns/vector/c/{}/0", "shards/0/examples/id/c/{}"]))
    def exchange_chunks(self, column: str) -> None:
        """Two chunks that are whole, and lie in each other's place: found when they are read, and mended."""
        one, two = (self.path / column.format(chunk) for chunk in (0, 1))
        data = one.read_bytes(), two.read_bytes()
        if data[0] == data[1]:
            return
        one.write_bytes(data[1]), two.write_bytes(data[0])
        store = FeatureStore.open(self.path)
        assert len([damage for damage in verify(store) if damage]) == 2
        group, name = ("methods/a", "vector") if "vector" in column else (EXAMPLES, "id")
        with pytest.raises(StoreDamaged, match="replaced"):
            open_column(store, group, name).gather([0])
        one.write_bytes(data[0]), two.write_bytes(data[1])

    @rule()
    def finish(self) -> None:
        store = FeatureStore.open(self.path)
        for group in store.groups:
            with GroupWriter(store, group) as writer:
                writer.commit(complete=True)
            assert FeatureStore.open(self.path).is_complete(group)

    @rule(killed=st.booleans())
    def be_of_an_old_format_and_upgraded(self, killed: bool) -> None:
        make_old(self.path)
        before = FeatureStore.open(self.path)
        if killed:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                patch.setattr("headwater.store.upgrade.write_root", _die)
                upgrade(str(self.path))
            self.holds_what_was_committed()
        upgrade(str(self.path))
        after = FeatureStore.open(self.path)
        assert all(after.entry(group).complete == before.entry(group).complete for group in after.groups)

    @rule()
    def check_every_byte(self) -> None:
        assert not [damage for damage in verify(FeatureStore.open(self.path)) if damage]

    @invariant()
    def holds_what_was_committed(self) -> None:
        if not self.vectors:
            return  # not created yet
        store = FeatureStore.open(self.path)
        assert store.rows(EXAMPLES) == len(self.ids)
        assert list(open_column(store, EXAMPLES, "id").gather(range(len(self.ids)))) == self.ids
        for method, rows in self.vectors.items():
            assert store.rows(method_group(method)) == len(rows)
            stored = open_column(store, method_group(method), "vector").gather(range(len(rows)))
            assert np.array_equal(stored, rows)


def _die(*_: object, **__: object) -> None:
    raise Killed


TestWholeStore = WholeStore.TestCase
TestWholeStore.settings = settings(
    max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
@pytest.mark.timeout(1500)
class TestWholeStoreForLong(WholeStore.TestCase):
    """The same, many times over."""

    settings = settings(max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
