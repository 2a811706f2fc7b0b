"""Names that become folders stay below the store, and records survive JSON."""

import json

import pytest
from headwater.store.errors import DataError
from headwater.store.layout import TEXT, Column
from headwater.store.store_record import (
    GroupRecord,
    ShardEntry,
    StoreRecord,
    columns_json,
    is_sealed,
    method_group,
    precision_group,
)

COLUMNS = (Column("sketch", (3, 2), "float16", 8), Column("text", (), TEXT, 1024))


@pytest.mark.parametrize("name", ["rise", "rise@1", "my-method_2", "bf16.x", "ünï"])
def test_names_of_letters_and_digits_are_folders(name: str) -> None:
    assert method_group(name) == f"methods/{name}"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "rise@../x", "a/b", "/etc", "a b", "a\0b", ".hidden", "zarr.json", "@1", "a\\b"]
)
def test_a_name_that_could_leave_the_store_is_refused_where_it_is_made(name: str) -> None:
    for make in (method_group, lambda name: precision_group(name, "int8"), lambda name: precision_group("rise", name)):
        with pytest.raises(DataError, match=r"cannot be the name of a (method|precision)"):
            make(name)


def test_records_survive_json_and_keep_what_they_do_not_know() -> None:
    notes = {"settings": {"seed": 1}, "later": {"x": [1]}}
    group, entry = GroupRecord(COLUMNS, notes), ShardEntry(5, True, "0123456789abcdef01234567")
    root = StoreRecord(3, "0.1", {"model": "m"}).with_group("examples", group, entry)
    root = root.with_group("methods/rise", GroupRecord(COLUMNS))
    values = json.loads(json.dumps(root.to_json()))
    again = StoreRecord.from_json(values)
    assert again == root and again.to_json() == root.to_json() and is_sealed(values)
    assert group.settings == {"seed": 1} and group.declared == COLUMNS
    assert root.entries["methods/rise"] == ShardEntry() and root.without_group("examples").entries == {
        "methods/rise": ShardEntry()
    }
    assert group.noted(later=1).notes == {**notes, "later": 1}


def test_records_of_formats_1_and_2_are_one_shard() -> None:
    notes = {"settings": {"seed": 1}, "place": [0, 7, 2], "digest": "ab"}
    columns = columns_json(COLUMNS)
    groups = {"examples": {"columns": columns, "done": [[0, 5], [8, 9]], "complete": True, **notes},
              "methods/a": {"columns": columns, "done": [[3, 5]]}}  # fmt: skip
    root = StoreRecord.from_json({"format": 2, "version": "0.1", "provenance": {}, "groups": groups})
    assert root.entries == {"examples": ShardEntry(5, True), "methods/a": ShardEntry(0, False)}
    assert root.groups["examples"].resume_notes == {"place": [0, 7, 2], "digest": "ab"}
    assert root.groups["examples"].without_resume_notes().notes == {"settings": {"seed": 1}}


def test_any_change_of_a_root_breaks_its_seal() -> None:
    root = StoreRecord(3, "0.1", {"model": "m", "tau": 0.1}).with_group("examples", GroupRecord(COLUMNS))
    values = json.loads(json.dumps(root.to_json(), indent=3))
    assert is_sealed(values)
    for change in (
        {"version": "0.2"},
        {"provenance": {"model": "n", "tau": 0.1}},
        {"groups": {}},
        {"more": 1},
        {"seal": ""},
    ):
        assert not is_sealed({**values, **change})
    entry = values["shards"]["0"]["examples"]
    assert not is_sealed({**values, "shards": {"0": {"examples": {**entry, "rows": 1}}}})


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "methods",
        "methods/",
        "methods/../x",
        "forms/a/b",
        "../methods/a",
        "methods/a/b",
        "hidden_states/../x",
        "manifests/a",
    ],
)
def test_a_record_of_a_group_that_lies_elsewhere_is_refused(name: str) -> None:
    values = StoreRecord(3, "0.1", {}).with_group("examples", GroupRecord(COLUMNS)).to_json()
    for groups in (values["groups"], values["shards"]["0"]):
        groups[name] = groups.pop("examples")
    with pytest.raises(DataError):
        StoreRecord.from_json(values)
