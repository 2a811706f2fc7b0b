"""What of Linux macOS lacks: all works without `/proc` and without the list of processors, and nothing else is used."""

import ast
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
from headwater.engine.arrays.scan.scan_loop import cores
from headwater.engine.runtime import memory
from places import ROOT
from running import done
from small import save_model, sentences, write_corpus

LINUX_ONLY = {
    "O_DIRECT", "O_TMPFILE", "copy_file_range", "eventfd", "getrandom", "memfd_create", "pipe2", "posix_fadvise",
    "posix_fallocate", "sched_getaffinity", "sched_setaffinity", "splice",
}  # fmt: skip
"""Names of the module os that macOS lacks."""
SOURCES = [
    *ROOT.glob("*.py"),
    *(path for room in ("store", "engine", "plugins") for path in (ROOT / room).rglob("*.py")),
]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without /proc whose peak is counted in bytes, as on macOS."""
    monkeypatch.setattr(memory, "Path", lambda path: Path(str(path).replace("/proc/", f"{tmp_path}/no-proc/")))
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)


def test_memory_and_processors_are_known_without_linux(elsewhere):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert memory.resident_bytes() == memory.peak_bytes() >= peak
    assert memory.peak_bytes() < 2 * peak
    assert not memory.reset_peak() and cores() == os.cpu_count()


def test_a_store_is_made_and_asked_without_linux(elsewhere, tmp_path, one_thread):
    save_model(tmp_path / "model")
    corpus = write_corpus(tmp_path / "corpus.jsonl", sentences(10))
    done(
        "ingest",
        corpus,
        "--store",
        tmp_path / "S",
        "--model",
        tmp_path / "model",
        "--method",
        "repsim",
        "--memory",
        "64GB",
    )
    printed = done("attribute", tmp_path / "S", "--method", "repsim", "--queries", corpus, "--memory", "64GB").output
    assert sentences(10)[3][:20] in printed
    done("verify", tmp_path / "S")


def test_no_other_function_of_linux_alone_is_called():
    used = {
        (path.relative_to(ROOT).as_posix(), node.attr)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    assert {(path, name) for path, name in used if name in LINUX_ONLY} == {
        ("engine/arrays/scan/scan_loop.py", "sched_getaffinity")
    }
    with_proc = {path.relative_to(ROOT).as_posix() for path in SOURCES if "/proc/" in path.read_text("utf-8")}
    assert with_proc == {"engine/runtime/memory.py"}
