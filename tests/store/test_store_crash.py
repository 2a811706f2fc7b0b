"""A writer killed at any moment, and run again, ends with the same bytes as one that nobody disturbed.

Run as a script, this file is the writer and its killer: one small process without threads, so that it may fork.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater.store.feature_store import EXAMPLES, FeatureStore, method_group
from headwater.store.file_column import FileColumn
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from killing import kill_before

GROUPS = {
    EXAMPLES: [Column("id", (), "int64", 16), Column("text", (), TEXT, 4)],
    method_group("rise"): [Column("sketch", (3,), "float16", 8)],
}
BATCH = 5


def source(name: str, first: int, last: int) -> Any:
    """Rows of a column, by row number."""
    rows = np.arange(first, last)
    if name == "text":
        return [f"row {row}\n" * (row % 3) for row in rows]
    return rows if name == "id" else np.sin(rows[:, None] * [1, 2, 3]).astype("float16")


def write(path: Path, total: int) -> None:
    """Make the store, or go on with it."""
    store = FeatureStore.open(path) if FeatureStore.exists(path) else FeatureStore.create(path, {"a": 1}, "0")
    for group, columns in GROUPS.items():
        store.add_group(group, columns, {"note": group})
    for goal in (total // 2, total):  # finished, and then appended to
        for group, columns in GROUPS.items():
            with GroupWriter(store, group) as writer:
                if writer.rows > goal:
                    continue
                while writer.rows < goal:
                    last = min(goal, writer.rows + BATCH)
                    writer.append({column.name: source(column.name, writer.rows, last) for column in columns})
                    if last % 2 == 0:
                        writer.commit(last=last)
                writer.commit(complete=True, last=goal)


def check(path: Path) -> None:
    """What is visible is what was written, and whole; numbers only, since reading text starts zarr's threads."""
    if not FeatureStore.exists(path):
        return
    store = FeatureStore.open(path)
    for group in store.groups:
        for column in store.columns(group):
            if column.is_text:
                continue
            reader, rows = open_column(store, group, column.name), store.rows(group)
            assert isinstance(reader, FileColumn)
            np.testing.assert_array_equal(reader.gather(range(rows)), source(column.name, 0, rows))
            assert all(reader.fault(chunk) is None for chunk in range(-(-rows // column.chunk_rows)))


def fork(action: Callable[[], None]) -> int:
    """Do something in a child process."""
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return child


def kill_at_random(path: Path, total: int, kills: int) -> None:
    """Kill the writer after some milliseconds, again and again, then let it finish."""
    rng = random.Random(7)
    done = 0
    while done < kills:
        child = fork(lambda: write(path, total))
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        done += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        check(path)
    write(path, total)


def stop_at(step: int) -> None:
    """End this process just before its `step`-th change of the disk."""
    kill_before(step, (os, "fsync"), (Path, "mkdir"), (Path, "replace"))


def kill_at_every_step(path: Path, total: int) -> None:
    """For each change of the disk: a fresh store, killed there once, then finished."""
    os.fsync = lambda _: None  # the kernel keeps what a killed process wrote; waiting for the disk shows nothing here
    step, code = 0, -signal.SIGKILL
    while code:
        step += 1
        target = path / str(step)
        child = fork(lambda: (stop_at(step), write(target, total))[0])  # noqa: B023
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        check(target)
        write(target, total)


def tree(path: Path) -> dict[str, bytes]:
    """Every file's bytes."""
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def run(*arguments: object) -> None:
    """Run this file."""
    tests = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": tests}
    subprocess.run([sys.executable, __file__, *map(str, arguments)], check=True, timeout=120, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_at_random_moments_and_continued_the_bytes_are_the_same(tmp_path):
    write(tmp_path / "calm", 900)
    run("random", tmp_path / "killed", 900, 20)
    assert tree(tmp_path / "killed") == tree(tmp_path / "calm")
    assert not any(verify(FeatureStore.open(tmp_path / "killed")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
def test_killed_before_each_change_of_the_disk_and_continued_the_bytes_are_the_same(tmp_path):
    write(tmp_path / "calm", 12)
    run("steps", tmp_path / "killed", 12)
    calm, killed = tree(tmp_path / "calm"), list((tmp_path / "killed").iterdir())
    assert len(killed) > 50
    for path in killed:
        assert tree(path) == calm, path.name


def test_text_after_a_crash(tmp_path):
    write(tmp_path, 30)
    store = FeatureStore.open(tmp_path)
    assert open_column(store, EXAMPLES, "text").gather(range(30)).tolist() == source("text", 0, 30)


if __name__ == "__main__":
    if sys.argv[1] == "random":
        kill_at_random(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        kill_at_every_step(Path(sys.argv[2]), int(sys.argv[3]))
