"""Names that become folders stay below the store, and records survive JSON."""

import json

import pytest
from headwater.store.errors import DataError
from headwater.store.layout import TEXT, Column
from headwater.store.manifest import GroupRecord, StoreRecord, method_group, precision_group

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
    notes = {"settings": {"seed": 1}, "place": [0, 7, 2], "digest": "ab", "complete": True, "later": {"x": [1]}}
    group = GroupRecord(COLUMNS, ((0, 5), (8, 9)), notes)
    root = StoreRecord(2, "0.1", {"model": "m"}, {"examples": group, "methods/rise": GroupRecord(COLUMNS)})
    again = StoreRecord.from_json(json.loads(json.dumps(root.to_json())))
    assert again == root and again.to_json() == root.to_json()
    assert group.rows == 5 and group.complete and group.settings == {"seed": 1} and group.place == (0, 7, 2)
    assert GroupRecord(COLUMNS, ((3, 5),)).rows == 0 == GroupRecord(COLUMNS).rows and not GroupRecord(COLUMNS).complete
    assert group.noted(complete=False).notes == {**notes, "complete": False} and group.declared == COLUMNS


@pytest.mark.parametrize(
    "name", ["other", "methods", "methods/", "methods/../x", "forms/a/b", "../methods/a", "methods/a/b"]
)
def test_a_record_of_a_group_that_lies_elsewhere_is_refused(name: str) -> None:
    values = StoreRecord(2, "0.1", {}, {"examples": GroupRecord(COLUMNS)}).to_json()
    values["groups"][name] = values["groups"].pop("examples")
    with pytest.raises(DataError):
        StoreRecord.from_json(values)
