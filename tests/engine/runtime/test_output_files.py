"""Files that a user named appear whole or not at all, and a full device is one line."""

import errno
from pathlib import Path

import pytest
from headwater.engine.results.result_files import ResultFile
from headwater.engine.results.result_tables import VALUE_FIELDS
from headwater.engine.runtime.output_files import whole_file
from headwater.store.errors import SettingsError, StoreDamaged, StoreFull


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_at_the_end_and_folders_above_it_are_made(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a" / "b.txt") as hidden:
        hidden.write_text("new")
        assert not (tmp_path / "a" / "b.txt").exists()
    assert (tmp_path / "a" / "b.txt").read_text() == "new" and listed(tmp_path / "a") == ["b.txt"]


def test_a_folder_takes_its_name_at_the_end_and_what_a_crash_left_is_gone(tmp_path: Path) -> None:
    (tmp_path / ".model.new").mkdir()
    (tmp_path / ".model.new" / "torn").touch()
    with whole_file(tmp_path / "model") as hidden:
        hidden.mkdir()
        (hidden / "weights").write_bytes(b"1")
    assert listed(tmp_path) == ["model"] and listed(tmp_path / "model") == ["weights"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), StoreDamaged("chunk 3"), ValueError("x")])
def test_what_fails_leaves_the_file_as_it_was(tmp_path: Path, raised: BaseException) -> None:
    (tmp_path / "b.txt").write_text("old")
    with pytest.raises(type(raised)) as caught, whole_file(tmp_path / "b.txt") as hidden:
        hidden.write_text("ne")
        raise raised
    assert caught.value is raised
    assert (tmp_path / "b.txt").read_text() == "old" and listed(tmp_path) == ["b.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_device_is_said_in_one_line(tmp_path: Path, number: int) -> None:
    expected = pytest.raises(StoreFull, match=r"b\.txt cannot be written: no room left on the device")
    with expected as caught, whole_file(tmp_path / "b.txt"):
        raise OSError(number, "full")
    assert "\n" not in str(caught.value) and listed(tmp_path) == []


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be written"), whole_file(tmp_path / "file" / "x"):
        pass
    with (
        pytest.raises(SettingsError, match="cannot be written"),
        ResultFile(str(tmp_path / "file" / "x.csv"), VALUE_FIELDS),
    ):
        pass


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_results_of_a_failed_run_are_not_there(tmp_path: Path, suffix: str) -> None:
    line = {
        "example_id": ["a"],
        "score": [1.0],
        "row": [0],
        "source": ["s"],
        "line": [1],
        "method": ["m"],
        "store": [""],
    }
    with pytest.raises(RuntimeError), ResultFile(str(tmp_path / f"r.{suffix}"), VALUE_FIELDS) as file:
        file.write(line)
        raise RuntimeError
    assert listed(tmp_path) == []
    with ResultFile(str(tmp_path / f"r.{suffix}"), VALUE_FIELDS) as file:
        file.write(line)
    assert listed(tmp_path) == [f"r.{suffix}"]
