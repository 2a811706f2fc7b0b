"""Ways to damage a file. Each draws from a generator, so that a seed makes the same damage again. Knows no format but JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple


class Target(NamedTuple):
    """A file, or the folder of a Zarr array, that is to be damaged."""

    path: Path
    peers: Sequence[Path]
    """Files of the same kind, with which it can be swapped."""
    older: Path | None
    """What lay at its path earlier."""


def flip_bit(random: Random, target: Target) -> None:
    """Flip one bit."""
    data = bytearray(target.path.read_bytes())
    if data:
        data[int(random.random() * len(data))] ^= 1 << random.randrange(8)
    target.path.write_bytes(data)


def zero_range(random: Random, target: Target) -> None:
    """Fill a range with zeros."""
    data = bytearray(target.path.read_bytes())
    first = int(random.random() * len(data))
    count = min(len(data) - first, random.choice([1, 8, 64, 4096]))
    data[first : first + count] = bytes(count)
    target.path.write_bytes(data)


def truncate(random: Random, target: Target) -> None:
    """Cut the end off."""
    size = target.path.stat().st_size
    cut = random.choice([1, 4, max(1, int(random.random() * size))])
    os.truncate(target.path, max(0, size - cut))


def empty(random: Random, target: Target) -> None:
    """Leave a file of no bytes."""
    os.truncate(target.path, 0)


def append_bytes(random: Random, target: Target) -> None:
    """Add bytes at the end."""
    extra = random.choice([b"\0", b"\n", b"}", b"\xff" * 7, random.randbytes(100)])
    target.path.write_bytes(target.path.read_bytes() + extra)


def random_bytes(random: Random, target: Target) -> None:
    """Replace a range by random bytes."""
    data = bytearray(target.path.read_bytes())
    first = int(random.random() * len(data))
    part = random.randbytes(min(len(data) - first, random.choice([1, 4, 32])))
    data[first : first + len(part)] = part
    target.path.write_bytes(data)


def swap(random: Random, target: Target) -> None:
    """Exchange the contents of two files of one kind."""
    others = [path for path in target.peers if path != target.path]
    if not others:
        return flip_bit(random, target)
    other = random.choice(others)
    mine, theirs = target.path.read_bytes(), other.read_bytes()
    target.path.write_bytes(theirs)
    other.write_bytes(mine)


def older_version(random: Random, target: Target) -> None:
    """Put back what lay there earlier; where nothing did, the contents of another file of its kind."""
    if target.older is not None and target.older.is_file():
        target.path.write_bytes(target.older.read_bytes())
        return
    target.path.write_bytes(random.choice(target.peers).read_bytes())


def delete(random: Random, target: Target) -> None:
    """Remove the file."""
    target.path.unlink()


def delete_folder(random: Random, target: Target) -> None:
    """Remove the folder that the file lies in."""
    if target.path.parent == Path():
        return target.path.unlink()
    shutil.rmtree(target.path.parent)


def make_folder(random: Random, target: Target) -> None:
    """Put a folder in the file's place."""
    target.path.unlink()
    target.path.mkdir()


def dangling_link(random: Random, target: Target) -> None:
    """Put a link that leads nowhere, or to itself, in the file's place."""
    target.path.unlink()
    target.path.symlink_to(random.choice(["nowhere", target.path.name, "/dev/null"]))


ODD: tuple[str, ...] = (
    "null", "true", "false", "0", "-1", "1.5", "NaN", "Infinity", "-Infinity", "1e999", "1e-400", str(2**31), str(2**63),
    "1" + "0" * 400, "1" + "0" * 5000, '""', '"x"', '"0"', '"../../x"', '"\\ud800"', '"\\u0000"', '"a\\nb"', "[]", "{}", "[[]]",
    "[null]", '{"x": {}}', "[0, -1]", '["../x"]', "[" * 200 + "]" * 200, "[" * 100_000 + "]" * 100_000,
    '{"a":' * 5000 + "1" + "}" * 5000, '"' + "x" * 100_000 + '"', '{"a": 1, "a": 2}',
)  # fmt: skip
"""JSON values that no record of ours holds; the last ones are deep, long or name a key twice."""


def odd_json(random: Random, target: Target) -> None:
    """Replace one value of a JSON file (or of one line of a JSONL file) by an odd one, or leave out, double or add a key."""
    text = target.path.read_text("utf-8")
    if target.path.suffix == ".jsonl":
        lines = text.splitlines()
        number = random.randrange(len(lines))
        lines[number] = with_odd_value(random, lines[number])
        target.path.write_text("\n".join(lines) + "\n", "utf-8")
        return
    if random.random() < 0.1:
        text = random.choice(
            [f"\ufeff{text}", f"{text}{text}", random.choice(ODD), text.replace(":", "", 1), f"[{text}]"]
        )
    else:
        text = with_odd_value(random, text)
    target.path.write_text(text, "utf-8")


_MARK = "\0here\0"


def with_odd_value(random: Random, text: str) -> str:
    """A JSON text with one value replaced by an odd one, left out, doubled or added; it may be no JSON any more."""
    value = json.loads(text)
    if not isinstance(value, dict | list) or not value:
        return random.choice(ODD)
    owner, key = random.choice(_places(value))
    odd = random.choice(ODD)
    way = random.randrange(8)
    if way == 0:
        del owner[key]
        return json.dumps(value)
    if way == 1 and isinstance(owner, dict):
        owner[key] = _MARK  # the same key twice, the odd value first
        return json.dumps(value).replace(json.dumps(_MARK), f"{odd}, {json.dumps(key)}: 1")
    if way == 2 and isinstance(owner, dict):
        owner[random.choice(["", "x", "..", "/", "\ud800", "a" * 1000])] = _MARK
    else:
        owner[key] = _MARK
    return json.dumps(value).replace(json.dumps(_MARK), odd)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every entry of all objects and lists in a value."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for key, below in pairs for place in ((value, key), *_places(below))]


Mutation = Callable[[Random, Target], None]
BYTES: tuple[Mutation, ...] = (
    flip_bit, flip_bit, zero_range, truncate, empty, append_bytes, random_bytes, swap, older_version, delete, delete_folder,
    make_folder, dangling_link,
)  # fmt: skip
JSON: tuple[Mutation, ...] = (*BYTES, odd_json, odd_json, odd_json, odd_json, odd_json)


def drawn(random: Random, path: Path) -> Mutation:
    """A mutation that suits a file."""
    return random.choice(JSON if path.suffix in (".json", ".jsonl") else BYTES)
