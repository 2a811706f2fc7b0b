"""A full disk, for real: what was committed stays, and the same run goes on after room was made.

Run as a script, this file is that run: `python test_store_full.py FOLDER disk|files`.
"""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from headwater.store.errors import StoreFull
from headwater.store.feature_store import EXAMPLES, FeatureStore
from headwater.store.layout import TEXT, Column
from headwater.store.reader import open_column
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter

COLUMNS = [Column("sketch", (16,), "float32", 512), Column("text", (), TEXT, 64)]
TOTAL = 6000


def write(path: Path, total: int) -> None:
    """Make the store, or go on with it."""
    store = FeatureStore.open(path) if FeatureStore.exists(path) else FeatureStore.create(path, {}, "0")
    store.add_group(EXAMPLES, COLUMNS, {})
    with GroupWriter(store, EXAMPLES) as writer:
        while writer.rows < total:
            rows = np.arange(writer.rows, min(total, writer.rows + 100))
            writer.append({"sketch": np.repeat(rows[:, None], 16, 1).astype("float32"), "text": [f"{r}" for r in rows]})
            writer.commit()


def rows_of(path: Path) -> int:
    """Number of visible rows, which are as written."""
    store = FeatureStore.open(path)
    rows = store.rows(EXAMPLES)
    assert open_column(store, EXAMPLES, "sketch").gather(range(rows))[:, 0].tolist() == list(range(rows))
    assert open_column(store, EXAMPLES, "text").gather(range(rows)).tolist() == [f"{r}" for r in range(rows)]
    assert not any(verify(store))
    return rows


def fill_up(path: Path, total: int, make_room: Callable[[], object]) -> None:
    """Write until nothing fits, twice; then make room and finish."""
    messages = []
    for _ in range(2):
        try:
            write(path, total)
        except StoreFull as error:
            messages.append(str(error))
    found = rows_of(path) if FeatureStore.exists(path) and FeatureStore.open(path).groups else 0
    make_room()
    write(path, total)
    assert len(messages) == 2 and not any("\n" in message for message in messages), messages
    assert all(m.startswith("no room left on the device while writing") for m in messages), messages
    assert 0 <= found < total == rows_of(path)
    print(found)


def run(prefix: list[str], folder: Path, kind: str, mount: str = "") -> int:
    """Run this file; the rows that were visible when the disk was full."""
    command = [*prefix, sys.executable, __file__, str(folder), kind, mount]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def can_mount() -> bool:
    """Whether this process may mount a small file system in a namespace of its own."""
    if not (shutil.which("unshare") and shutil.which("mount")):
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=100k", "none", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_limit_on_the_size_of_files(tmp_path):
    run([], tmp_path, "files")


@pytest.mark.parametrize("limit", ["size=24k", "size=200k", "size=320k", "nr_inodes=6", "nr_inodes=40"])
def test_a_full_file_system(tmp_path, limit):
    if not can_mount():
        pytest.skip("needs the right to mount a tmpfs")
    mount = f"mount -t tmpfs -o {limit} none '{tmp_path}' && exec \"$@\""
    found = run(["unshare", "-m", "sh", "-c", mount, "sh"], tmp_path, "disk", limit.split("=")[0])
    assert found > 0 or limit in ("size=24k", "nr_inodes=6")  # these hold not even the first commit


def script(folder: Path, kind: str, option: str) -> None:
    """Fill up a folder that a parent has made small."""
    if kind == "disk":
        room = ["mount", "-o", f"remount,{option}={'64m' if option == 'size' else 10_000}", str(folder)]
        fill_up(folder / "store", TOTAL, lambda: subprocess.run(room, check=True))
    else:
        no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, no_limit[1]))
        fill_up(folder / "store", TOTAL, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, no_limit))
    write(folder / "calm", TOTAL)
    for file in (folder / "calm").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (folder / "store" / file.relative_to(folder / "calm")).read_bytes(), file
    assert len(list((folder / "calm").rglob("*"))) == len(list((folder / "store").rglob("*")))


if __name__ == "__main__":
    script(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
