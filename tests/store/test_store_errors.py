"""Every error has the class that the tree draws, and one line that says what to do."""

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.store import errors
from headwater.store.errors import DataError, HeadwaterError, StoreDamaged, StoreError, StoreMismatch, StoreMissing
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.store_record import seal_of
from headwater.store.writer import GroupWriter


def drawn() -> dict[str, str | None]:
    """Class name to parent's name, from the drawing in the docstring."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if not hasattr(errors, name) or not name:
            continue
        depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
        path[depth:] = [name]
        parents[name] = path[depth - 1] if depth else None
    return parents


def test_the_classes_are_the_tree_that_the_docstring_draws():
    classes = {n: c for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    ours = {
        name: [base.__name__ for base in c.__mro__[1:] if base.__name__ in classes][:1] for name, c in classes.items()
    }
    assert drawn() == {name: parents[0] if parents else None for name, parents in ours.items()}
    assert all(c.__doc__ for c in classes.values())


def test_each_error_can_be_made_of_one_line():
    for name in drawn():
        error = getattr(errors, name)("one line")
        assert str(error) == "one line" and isinstance(error, HeadwaterError)


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """Three rows of three columns."""
    store = FeatureStore.create(tmp_path / "s", {}, "0")
    columns = [Column("id", (), "int64", 8), Column("pair", (2,), "float16", 8), Column("text", (), TEXT, 8)]
    store.add_group(EXAMPLES, columns, {})
    with GroupWriter(store, EXAMPLES) as writer:
        writer.append(batch(3))
        writer.commit()
    return store


def batch(rows: int) -> dict[str, object]:
    """Rows that fit."""
    return {"id": np.arange(rows), "pair": np.ones((rows, 2)), "text": ["t"] * rows}


def refused(error: type[HeadwaterError], action: Callable[[], object]) -> str:
    """The message of the error, which is of exactly this class, and one line."""
    with pytest.raises(HeadwaterError) as caught:
        action()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_what_is_no_store_is_not_opened(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    zarr.create_group(tmp_path / "group")
    zarr.create_array(tmp_path / "array", shape=(1,), dtype="int8")
    for name in ("file", "empty", "absent"):
        assert "is not a headwater store: it has no zarr.json" in refused(
            StoreMissing,
            lambda: FeatureStore.open(tmp_path / name),  # noqa: B023
        )
        assert not FeatureStore.exists(tmp_path / name)
    for name in ("group", "array"):
        assert "but not a headwater store" in refused(StoreMissing, lambda: FeatureStore.open(tmp_path / name))  # noqa: B023


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b'{"attributes": ', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b'{"attributes": {"headwater": {}}}', "has no 'format' entry"),
        (b'{"attributes": {"headwater": {"format": "1"}}}', "has no 'format' entry"),
        (b'{"attributes": {"headwater": 1}}', "has no 'format' entry"),
    ],
)
def test_a_broken_root_is_damage(store, content, message):
    (store.path / "zarr.json").write_bytes(content)
    assert message in refused(StoreDamaged, lambda: FeatureStore.open(store.path))


def test_a_root_that_is_a_folder(store):
    (store.path / "zarr.json").unlink()
    (store.path / "zarr.json").mkdir()
    assert "cannot read" in refused(StoreError, lambda: FeatureStore.open(store.path))


def test_a_store_is_not_made_over_something_else(store, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("x")
    assert "is a file" in refused(StoreMismatch, lambda: FeatureStore.create(tmp_path / "file", {}, "0"))
    assert "cannot write" in refused(StoreError, lambda: FeatureStore.create(tmp_path / "file" / "s", {}, "0"))
    assert "not a headwater store" in refused(StoreMismatch, lambda: FeatureStore.create(tmp_path / "folder", {}, "0"))
    assert "holds a store already" in refused(StoreMismatch, lambda: FeatureStore.create(store.path, {}, "0"))
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


def test_a_store_is_made_over_the_rest_of_one_that_crashed(tmp_path):
    (tmp_path / ".zarr.json.new").write_text("{")
    FeatureStore.create(tmp_path, {}, "0")
    assert [file.name for file in tmp_path.iterdir()] == ["zarr.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refused(StoreError, lambda: FeatureStore.create(tmp_path / "s", {}, "0"))


def test_what_is_not_there_is_named(store):
    assert "no group methods/x" in refused(StoreMissing, lambda: store.rows("methods/x"))
    assert "no group methods/x" in refused(StoreMissing, lambda: GroupWriter(store, "methods/x"))
    assert "no examples column y" in refused(StoreMissing, lambda: open_column(store, EXAMPLES, "y"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "lack the columns ['id']"),
        ({"id": np.arange(3)}, "different lengths: {'id': 3, 'pair': 2, 'text': 2}"),
        ({"id": [[1], [2]]}, "id have shape (1,), declared ()"),
        ({"id": 7}, "id have shape (), declared ()"),
        ({"id": [1.5, 2.5]}, "id are float64, declared int64"),
        ({"id": ["1", "2"]}, "declared int64"),
        ({"pair": np.ones((2, 3))}, "pair have shape (3,), declared (2,)"),
        ({"pair": np.ones(2)}, "pair have shape (), declared (2,)"),
        ({"pair": [[1, 2], [3]]}, "pair are not an array"),
        ({"text": ["a", None]}, "row 1 of text is not text: None"),
        ({"text": ["\ud800", "b"]}, "row 0 of text is not text: '\\ud800'"),
        ({"text": "ab"}, "row 0 of text is not text"),
        ({"text": np.arange(2)}, "row 0 of text is not text"),
    ],
)
def test_rows_that_do_not_fit_change_nothing(store, change, message):
    rows = {name: values for name, values in {**batch(2), **change}.items() if values is not None}
    with GroupWriter(store, EXAMPLES) as writer:
        assert message in refused(DataError, lambda: writer.append(rows))
        writer.append(batch(2))
        writer.commit()
    assert open_column(store, EXAMPLES, "id").gather(range(5)).tolist() == [0, 1, 2, 0, 1]
    assert open_column(store, EXAMPLES, "text").gather(range(5)).tolist() == ["t"] * 5


def test_a_writer_that_failed_amid_its_columns_is_closed(store):
    with GroupWriter(store, EXAMPLES) as writer:
        (store.path / "shards/0/examples/text/c").rename(store.path / "shards/0/examples/text/moved")
        (store.path / "shards/0/examples/text/c").write_text("in the way")
        assert "cannot write" in refused(StoreError, lambda: writer.append(batch(8)))
    assert "closed" in refused(StoreError, writer.commit)
    (store.path / "shards/0/examples/text/c").unlink()
    (store.path / "shards/0/examples/text/moved").rename(store.path / "shards/0/examples/text/c")
    with GroupWriter(FeatureStore.open(store.path), EXAMPLES) as again:
        assert again.rows == 3


def test_a_store_that_went_away_is_missed(store):
    Path(store.path / "zarr.json").unlink()
    assert "has no zarr.json" in refused(StoreMissing, lambda: store.update(lambda root: root))
    store.path.rename(store.path.with_name("elsewhere"))
    assert "No such file" in refused(StoreError, lambda: store.update(lambda root: root))


@pytest.mark.parametrize(
    "hurt",
    [
        lambda root: root.pop("groups"),
        lambda root: root.pop("provenance"),
        lambda root: root.update(provenance=[]),
        lambda root: root.pop("shards"),
        lambda root: root["shards"].update({"1": {}}),
        lambda root: root["shards"].update({"../../escaped": root["shards"].pop("0")}),
        lambda root: root["shards"]["0"].pop(EXAMPLES),
        lambda root: root["shards"]["0"][EXAMPLES].update(rows=-1),
        lambda root: root["shards"]["0"][EXAMPLES].update(rows=True),
        lambda root: root["shards"]["0"][EXAMPLES].update(complete=1),
        lambda root: root["shards"]["0"][EXAMPLES].update(manifest="../../escaped"),
        lambda root: root["shards"]["0"][EXAMPLES].update(manifest=7),
        lambda root: root["shards"]["0"][EXAMPLES].update(rows=3),  # which no manifest lists
        lambda root: root["groups"][EXAMPLES].pop("columns"),
        lambda root: root["groups"][EXAMPLES]["columns"][0].update(name="../../escaped"),
        lambda root: root["groups"][EXAMPLES]["columns"][0].update(dtype="nonsense"),
        lambda root: root["groups"][EXAMPLES]["columns"][0].update(chunk_rows=0),
        lambda root: root["groups"].update({"../outside": root["groups"][EXAMPLES]}),
        lambda root: root["groups"].update({"methods/../../outside": root["groups"][EXAMPLES]}),
        lambda root: root["groups"].update({"methods/a": None}),
    ],
)  # fmt: skip
def test_a_root_that_describes_no_store_is_damaged(store, hurt):
    """A store may come from a stranger: nothing that it names may lie outside it."""
    metadata = json.loads((store.path / "zarr.json").read_text())
    record = metadata["attributes"]["headwater"]
    hurt(record)
    (store.path / "zarr.json").write_text(json.dumps(metadata))
    assert "differs from its seal: it was edited" in refused(StoreDamaged, lambda: FeatureStore.open(store.path))
    record["seal"] = seal_of(record)
    (store.path / "zarr.json").write_text(json.dumps(metadata))
    assert "does not describe a store's groups" in refused(StoreDamaged, lambda: FeatureStore.open(store.path))


@pytest.mark.parametrize("attributes", [[], None, 3, {"headwater": None}])
def test_a_group_with_foreign_attributes_is_no_store(store, attributes):
    metadata = json.loads((store.path / "zarr.json").read_text())
    (store.path / "zarr.json").write_text(json.dumps({**metadata, "attributes": attributes}))
    with pytest.raises(StoreMissing, match="not a headwater store"):
        FeatureStore.open(store.path)


def test_a_damaged_number_is_never_gathered(store):
    file = store.path / "shards/0/examples/id/c/0"
    data = bytearray(file.read_bytes())
    data[8] ^= 1
    file.write_bytes(data)
    for row in (0, 1):  # the row itself, and a whole one in the same chunk
        with pytest.raises(StoreDamaged, match=r"shards/0/examples/id chunk 0 .* differs from its checksum"):
            open_column(store, EXAMPLES, "id").gather([row])


def test_a_codec_that_is_not_installed_is_named(store):
    file = store.path / "shards/0/examples/pair/zarr.json"
    metadata = json.loads(file.read_text())
    metadata["codecs"].append({"name": "nonsense", "configuration": {}})
    file.write_text(json.dumps(metadata))
    with pytest.raises(StoreDamaged, match=r"shards/0/examples/pair cannot be opened: .*nonsense"):
        open_column(store, EXAMPLES, "pair")


def test_what_is_no_number_in_json_is_not_written(store):
    with pytest.raises(ValueError, match="JSON compliant"):
        store.update(lambda root: replace(root, provenance={"tau": float("nan")}))
    assert FeatureStore.open(store.path).provenance == {}
