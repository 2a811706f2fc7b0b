"""Other forms of stored rows, made and searched: resumable, equal to the finer column where that is promised, damage found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.arrays.scan import certified as certify
from headwater.engine.arrays.scan import two_stage as search
from headwater.engine.arrays.scan.certified import certified
from headwater.engine.arrays.scan.compress import Compression, TargetPrecision, compression
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.arrays.scan.scorers import scorer_of
from headwater.engine.arrays.scan.stored_rows import StoredRows
from headwater.engine.arrays.scan.top_k import TopK, top_k
from headwater.engine.arrays.scan.two_stage import CompressedColumn, SearchDepth, two_stage
from headwater.engine.runtime.run import SILENT_STAGE, Progress, Run
from headwater.store.errors import (
    BudgetError,
    DataError,
    SettingsError,
    StoreBusy,
    StoreDamaged,
    StoreMismatch,
    StoreMissing,
)
from headwater.store.feature_store import FeatureStore, method_group, precision_group
from headwater.store.layout import column
from headwater.store.store_record import ShardEntry, StoreRecord
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter

ROWS, DEPTH = 3000, 96
SHAPE = ScanShape(256, 2)


def clustered(seed: int, rows: int) -> np.ndarray:
    """Unit rows around 40 centres, heavy-tailed."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, DEPTH))
    found = centres[random.integers(40, size=rows)] + 0.7 * random.standard_t(4, (rows, DEPTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def write(path: Path, rows: np.ndarray, dtype: str = "float16") -> FeatureStore:
    """A store of a method m with one column c, in small chunks; rows are appended where there is one."""
    exists = FeatureStore.exists(path)
    store = FeatureStore.open(path) if exists else FeatureStore.create(path, {}, "test")
    if not exists:
        store.add_group(method_group("m"), [column("c", (DEPTH,), dtype, 1 << 14)], {"settings": {}})
    with GroupWriter(store, method_group("m")) as writer:
        writer.append({"c": rows})
        writer.commit(complete=True)
    return store


def make(store: FeatureStore, precision: str, bits: int = 1024) -> StoredRows:
    """A form of all rows."""
    made = compression(store, "m", TargetPrecision(precision, bits), None)
    assert made.run(SILENT_STAGE) == store.rows(method_group("m"))
    return StoredRows(store, made.group)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    found = clustered(0, ROWS)
    found[1000:1010] = found[2000]  # ties
    return found


@pytest.fixture
def store(tmp_path: Path, rows: np.ndarray) -> FeatureStore:
    return write(tmp_path / "s", rows)


@pytest.fixture(scope="module")
def queries(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([clustered(1, 12), rows[[2000, 5]], np.zeros((1, DEPTH), np.float32)])


def brute(store: FeatureStore, queries: np.ndarray, k: int) -> TopK:
    """The finer column's own answer."""
    fine = StoredRows(store, method_group("m"))
    return top_k(fine.scanned("c"), scorer_of(fine.precisions["c"], queries), k, SHAPE, SILENT_STAGE)


def same(found: TopK, expected: TopK) -> bool:
    return np.array_equal(found.rows, expected.rows) and np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("k", [1, 10, 200, ROWS + 5])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_certified_answer_is_the_finer_columns_to_the_last_bit(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, k: int, dtype: str
) -> None:
    store = write(tmp_path / "s", rows, dtype)
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    for shape in (SHAPE, ScanShape(7, 3)):
        found = certified(CompressedColumn(small, fine, "c"), queries, k, shape, SILENT_STAGE)
        assert found.exact and found.recall == 1 and same(found.best, brute(store, queries, k))


def test_a_certified_search_gathers_few_rows(store: FeatureStore, queries: np.ndarray, monkeypatch) -> None:
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    gathered: list[int] = []

    def counted(*args: object) -> np.ndarray:
        gathered.append(len(np.unique(args[-1])) - 1)
        return search.rescored(*args)

    monkeypatch.setattr(certify, "rescored", counted)
    assert same(
        certified(CompressedColumn(small, fine, "c"), queries[:1], 10, SHAPE, SILENT_STAGE).best,
        brute(store, queries[:1], 10),
    )
    assert 10 <= gathered[0] < ROWS / 4


def test_a_certified_search_without_room_scans_the_finer_column(
    store: FeatureStore, queries: np.ndarray, monkeypatch
) -> None:
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    monkeypatch.setattr(certify, "CANDIDATES_PER_K", 0)
    narrow = certify._BoundWorker(certify._ScoreBounds(small.precisions["c"], queries), 10, 12)
    certify.scan(
        small.open(c.name for c in small.precisions["c"].columns), ScanShape(100, 1), lambda: narrow, SILENT_STAGE
    )
    assert narrow.full  # the zero query alone ties with every row
    assert same(
        certified(CompressedColumn(small, fine, "c"), queries, 10, SHAPE, SILENT_STAGE).best, brute(store, queries, 10)
    )


@pytest.mark.parametrize(
    ("precision", "bits", "candidates"), [("int8", 0, 40), ("bf16", 0, 40), ("float32", 0, 40), ("sign", 1024, 400)]
)
def test_two_stages_score_by_the_finer_column(
    store: FeatureStore, queries: np.ndarray, precision: str, bits: int, candidates: int
) -> None:
    small, fine = make(store, precision, bits or 1024), StoredRows(store, method_group("m"))
    found = two_stage(
        CompressedColumn(small, fine, "c"), queries[:-1], SearchDepth(10, candidates), SHAPE, SILENT_STAGE
    )
    expected = brute(store, queries[:-1], ROWS)
    for q in range(len(queries) - 1):
        scores = dict(zip(expected.rows[q].tolist(), expected.scores[q].tolist(), strict=True))
        assert [scores[row] for row in found.best.rows[q].tolist()] == found.best.scores[q].tolist()
    recall = np.mean([len({*f} & {*e}) / 10 for f, e in zip(found.best.rows, expected.rows[:, :10], strict=True)])
    assert not found.exact and recall > 0.95 and abs(found.recall - recall) < 0.06
    everything = two_stage(CompressedColumn(small, fine, "c"), queries, SearchDepth(10, ROWS), SHAPE, SILENT_STAGE)
    assert everything.exact and same(everything.best, brute(store, queries, 10))


def test_held_rows_answer_alike(store: FeatureStore, queries: np.ndarray) -> None:
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    expected = brute(store, queries, 10)
    assert fine.cache("c") == 2 * ROWS * DEPTH and small.cache("c") == ROWS * (DEPTH + 4)
    assert same(certified(CompressedColumn(small, fine, "c"), queries, 10, SHAPE, SILENT_STAGE).best, expected)
    assert same(top_k(fine.scanned("c"), scorer_of(fine.precisions["c"], queries), 10, SHAPE, SILENT_STAGE), expected)


def test_a_query_is_answered_alike_in_any_company(store: FeatureStore, queries: np.ndarray) -> None:
    small, fine = make(store, "sign"), StoredRows(store, method_group("m"))
    together = two_stage(CompressedColumn(small, fine, "c"), queries, SearchDepth(10, 20), SHAPE, SILENT_STAGE).best
    for q in range(len(queries)):
        alone = two_stage(
            CompressedColumn(small, fine, "c"), queries[q : q + 1], SearchDepth(10, 20), ScanShape(50, 1), SILENT_STAGE
        ).best
        assert np.array_equal(alone.rows[0], together.rows[q]) and np.array_equal(alone.scores[0], together.scores[q])


def test_expected_recall_is_what_is_found(tmp_path: Path) -> None:
    rows, queries = clustered(3, 6000), clustered(4, 40)
    store = write(tmp_path / "s", rows)
    fine, expected = StoredRows(store, method_group("m")), brute(store, queries, 20).rows
    for bits, candidates in ((256, 40), (1024, 40), (1024, 200), (4096, 40)):
        found = two_stage(
            CompressedColumn(make(store, "sign", bits), fine, "c"),
            queries,
            SearchDepth(20, candidates),
            SHAPE,
            SILENT_STAGE,
        )
        recall = np.mean([len({*f} & {*e}) / 20 for f, e in zip(found.best.rows, expected, strict=True)])
        assert -0.08 < found.recall - recall < 0.02, (bits, candidates, found.recall, recall)


def test_a_damaged_row_is_never_an_answer(
    store: FeatureStore, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks above 1 MiB are not read whole for the sake of some rows, so each row has a checksum of its own."""
    monkeypatch.setattr("headwater.store.file_column._WHOLE_CHECK_BYTES", 0)
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    row = int(brute(store, queries[:1], 1).rows[0, 0])
    chunk, at = divmod(row, fine.scanned("c")[0].column.chunk_rows)
    path = store.path / f"shards/0/methods/m/columns/c/c/{chunk}/0"
    data = bytearray(path.read_bytes())
    data[at * 2 * DEPTH] ^= 1
    path.write_bytes(data)
    for ask in (
        lambda: two_stage(CompressedColumn(small, fine, "c"), queries[:1], SearchDepth(5, 20), SHAPE, SILENT_STAGE),
        lambda: certified(CompressedColumn(small, fine, "c"), queries[:1], 5, SHAPE, SILENT_STAGE),
    ):
        with pytest.raises(StoreDamaged, match=f"row {row} differs"):
            ask()


def test_stopped_and_gone_on_with_the_bytes_are_the_same(tmp_path: Path, rows: np.ndarray) -> None:
    calm, broken = write(tmp_path / "calm", rows), write(tmp_path / "broken", rows)
    for precision in ("int8", "sign"):
        make(calm, precision)
        for least in (500, 1100, 2700):
            made = compression(broken, "m", TargetPrecision(precision, 1024), None)
            made = Compression(made.source, made.group, made.precisions, made.plan, ScanShape(100, 2))
            reports = [Progress("compress", 0)]
            stop = lambda reports=reports, least=least: reports[-1].done >= least  # noqa: E731
            done = made.run(Run(on_progress=reports.append, should_stop=stop).stage("compress", ROWS))
            assert least <= done < ROWS
            with pytest.raises(DataError, match="run headwater compress again"):
                search.require_same_rows(StoredRows(broken, made.group), made.source)
        make(broken, precision)

    def tree(path: Path) -> dict[str, bytes]:
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}

    assert tree(tmp_path / "calm") == tree(tmp_path / "broken")
    assert not any(verify(broken))


def test_rows_that_are_appended_follow(tmp_path: Path, rows: np.ndarray, queries: np.ndarray) -> None:
    store = write(tmp_path / "s", rows[:2000])
    make(store, "int8")
    write(tmp_path / "s", rows[2000:])
    store = FeatureStore.open(tmp_path / "s")
    small = make(store, "int8")
    fine = StoredRows(store, method_group("m"))
    assert same(
        certified(CompressedColumn(small, fine, "c"), queries, 10, SHAPE, SILENT_STAGE).best, brute(store, queries, 10)
    )


def test_two_cannot_make_one_form(store: FeatureStore) -> None:
    made = compression(store, "m", TargetPrecision("int8", 0), None)
    with GroupWriter(store, made.group), pytest.raises(StoreBusy):
        made.run(SILENT_STAGE)


def test_what_cannot_be_made_is_refused_before_anything_is_written(store: FeatureStore, tmp_path: Path) -> None:
    before = dict(store.groups)
    with pytest.raises(SettingsError, match="stored as float16 already"):
        compression(store, "m", TargetPrecision("float16", 0), None)
    with pytest.raises(SettingsError, match="unknown precision 'int3'"):
        compression(store, "m", TargetPrecision("int3", 0), None)
    with pytest.raises(SettingsError, match="multiple of 128"):
        compression(store, "m", TargetPrecision("sign", 1000), None)
    with pytest.raises(StoreMissing, match="no group methods/n"):
        compression(store, "n", TargetPrecision("int8", 0), None)
    with pytest.raises(BudgetError, match="smallest budget"):
        compression(store, "m", TargetPrecision("int8", 0), 1000)
    assert FeatureStore.open(store.path).groups == before
    make(store, "sign")
    signs = FeatureStore.create(tmp_path / "signs", {}, "test")
    form = StoredRows(store, precision_group("m", "sign1024")).precisions["c"]
    notes = {
        "settings": {"precision": "sign", "bits": 1024},
        "declared": store.record("forms/m.sign1024").notes["declared"],
    }
    signs.add_group(method_group("m"), list(form.columns), notes)
    with GroupWriter(signs, method_group("m")) as writer:
        writer.append(form.encode(clustered(0, 10)))
        writer.commit(complete=True)
    with pytest.raises(SettingsError, match="stored as signs"):
        compression(signs, "m", TargetPrecision("int8", 0), None)


def test_a_form_of_other_rows_is_refused(store: FeatureStore) -> None:
    make(store, "int8")

    def cut(root: StoreRecord) -> StoreRecord:
        return root.with_entry("methods/m", ShardEntry())

    shutil.rmtree(store.path / "shards/0/methods/m/columns/c/c")
    (store.path / "shards/0/methods/m/zarr.json").unlink()
    store.update(cut)
    with GroupWriter(store, "methods/m") as writer:
        writer.append({"c": clustered(0, 100)})
        writer.commit(complete=True)
    with pytest.raises(StoreMismatch, match="come from other rows"):
        compression(FeatureStore.open(store.path), "m", TargetPrecision("int8", 0), None).run(SILENT_STAGE)


@pytest.mark.parametrize("least", [0, 200, 900])
def test_damage_in_the_source_is_never_made_into_a_form(store: FeatureStore, least: int) -> None:
    """Stopped amid a damaged chunk or not, no row of it is committed, and mended the form is made as ever."""
    path = store.path / "shards/0/methods/m/columns/c/c/12/0"  # rows 768 to 831
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    made = compression(store, "m", TargetPrecision("int8", 0), None)
    made = Compression(made.source, made.group, made.precisions, made.plan, ScanShape(50, 2))
    reports = [Progress("compress", 0)]
    stop = (lambda: reports[-1].done >= least) if least else (lambda: False)
    stage = Run(on_progress=reports.append, should_stop=stop).stage("compress", ROWS)
    for _ in range(3):
        try:
            made.run(stage, commit_seconds=0)
        except StoreDamaged as error:
            assert "chunk 12 (rows 768 to 831)" in str(error)
    assert StoredRows(store, made.group).rows <= 768
    path.write_bytes(whole)
    assert compression(store, "m", TargetPrecision("int8", 0), None).run(SILENT_STAGE) == ROWS
    assert not any(verify(store))


def test_queries_that_do_not_fit_are_refused(store: FeatureStore, queries: np.ndarray) -> None:
    small, fine = make(store, "int8"), StoredRows(store, method_group("m"))
    broken = queries.copy()
    broken[3, 5] = np.nan
    for matrix, told in (
        (queries[:, :50], "have 96 numbers"),
        (broken, "query 4 of 15 has numbers that are not finite"),
    ):
        for ask in (
            lambda m=matrix: two_stage(CompressedColumn(small, fine, "c"), m, SearchDepth(5, 20), SHAPE, SILENT_STAGE),
            lambda m=matrix: certified(CompressedColumn(small, fine, "c"), m, 5, SHAPE, SILENT_STAGE),
            lambda m=matrix: scorer_of(fine.precisions["c"], m),
        ):
            with pytest.raises(DataError, match=told):
                ask()
