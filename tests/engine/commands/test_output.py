"""Output that cannot be written is one line, or nothing where its reader has ended; never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from headwater.cli import main
from running import headwater

ARRAYS = {"hidden": np.ones((3, 4), np.float32), "labels": np.array([0, 1, 2]), "weight": np.ones((3, 4), np.float32)}
SMALL = ["--set", "rise.kr", "4", "--set", "rise.kh", "2", "--set", "rise.kg", "2"]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `headwater` stands for the command line."""
    line = line.replace("headwater", f"{sys.executable} -m headwater")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["methods", "methods --json", "--help", "ingest --help", "--version"])
def test_a_full_stdout_is_one_line(words: str, tmp_path: Path) -> None:
    done = shell(f"headwater {words} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: output: No space left on device\n"


@pytest.mark.parametrize(
    "line", ["headwater methods --json | true", "headwater methods >&-", "headwater --help | head -c 1"]
)
def test_a_closed_output_is_silent(line: str, tmp_path: Path) -> None:
    assert shell(line, tmp_path).stderr == ""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", ["flipped", "header", "size"])
def test_a_broken_member_of_an_npz_is_one_line(compressed: bool, damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **ARRAYS)
    content = bytearray(path.read_bytes())
    first = content.index(b"hidden.npy") + len("hidden.npy") + 20
    if damage == "flipped":
        for at in range(first + 110, first + 140):
            content[at] ^= 0xFF
    elif damage == "header":
        content[first + 1] ^= 0xFF
    else:
        content[8] ^= 0x7F  # the method of compression
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["ingest", str(path), "--store", str(tmp_path / "s"), *SMALL])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1) and result.stderr.count("error:") == result.exit_code


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", "null", '"x"', "1e999", '{"format": {}}', "\ufeff{}"])
@pytest.mark.parametrize("command", ["info", "verify", "upgrade", "compress"])
def test_deep_or_odd_json_in_a_store_is_one_line(command: str, text: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    store = tmp_path / "s"
    assert CliRunner().invoke(main, ["ingest", str(tmp_path / "a.npz"), "--store", str(store), *SMALL]).exit_code == 0
    more = ["--precision", "int8"] if command == "compress" else []
    for file in sorted(store.rglob("*.json")):
        before = file.read_bytes()
        file.write_text(text)
        result = CliRunner().invoke(main, [command, str(store), *more])
        name = file.relative_to(store)
        assert result.exception is None or isinstance(result.exception, SystemExit), (name, repr(result.exception))
        assert result.exit_code in (0, 1), name
        file.write_bytes(before)
    json.loads(CliRunner().invoke(main, ["info", str(store), "--json"]).stdout)


@pytest.mark.parametrize(
    "words",
    [
        ("info", "S", "\x1b[31mmore"), ("\x1b[31m",), ("info", "--\x1b[31m"),
        ("attribute", "S", "--queries", "q", "--top", "\u202e1"),
        ("fit", "S", "--method", "\x9b", "--set", "a", "1"), ("evaluate", "\x1b[2J"),
        ("select", "S", "--queries", "q", "-o", "o", "--quota", "\x1b="),
    ],
)  # fmt: skip
def test_wrong_usage_is_printed_without_control_characters(words: tuple[str, ...]) -> None:
    refused = headwater(*words)
    assert refused.exit_code in (1, 2) and refused.stderr.count("rror: ") == 1
    assert all(character.isprintable() or character == "\n" for character in refused.output), refused.output
