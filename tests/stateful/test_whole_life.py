"""A store's whole life by the command line, in any order: ingest, append, add a method, compress, fit, ask, verify, be killed.

What must be true is kept as plain lists: the documents, the methods, and what one undisturbed run over all documents scored them.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import zarr
from command_server import CommandServer, Ended
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from small import save_model, sentences, write_corpus

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked child")
FILES, DOCUMENTS, QUERIES = 4, 9, 3
METHODS = ["rise", "graddot"]
FIT = "--set stride.subsets 12 --set stride.degree 4 --set stride.updates 3 --set stride.checked 3 --commit-seconds 0".split()  # noqa: SIM905
KILL = st.one_of(st.none(), st.integers(1, 80))


class World:
    """What all stores are made of, and what they must answer."""

    def __init__(self, folder: Path, server: CommandServer) -> None:
        self.folder, self.server = folder, server
        self.numbers = itertools.count()
        save_model(folder / "model")
        texts = sentences(FILES * DOCUMENTS, seed=1)
        self.files = [write_corpus(folder / f"{n}.jsonl", texts[n::FILES]) for n in range(FILES)]
        self.queries = write_corpus(folder / "q.jsonl", sentences(QUERIES, seed=2))
        ended = server.run(*self.ingest(folder / "reference", FILES, METHODS))
        assert ended.code == 0, ended.err
        self.scores = {method: self.ask(folder / "reference", method)[1] for method in METHODS}

    def ingest(self, store: Path, files: int, methods: list[str]) -> list[object]:
        named = [word for method in methods for word in ("--method", method)]
        return ["ingest", *self.files[:files], "--store", store, "--model", self.folder / "model", *named]

    def ask(self, store: Path, method: str, *more: object) -> tuple[Ended, np.ndarray]:
        """How it ended, and the (N, Q) scores; (0, Q) of an error."""
        out = self.folder / f"scores{next(self.numbers)}.zarr"
        asked = ["--method", method, "--queries", self.queries, "--all-scores", out, *more]
        ended = self.server.run("attribute", store, *asked)
        if ended.code:
            return ended, np.empty((0, QUERIES), np.float32)
        scores = np.asarray(zarr.open_group(out, mode="r")["scores"])
        shutil.rmtree(out)
        return ended, scores


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with CommandServer() as server:
        yield World(tmp_path_factory.mktemp("world"), server)


class WholeLife(RuleBasedStateMachine):
    """`killed` is the command that was killed and must be given again; until then a part of its work may be there."""

    world: ClassVar[World]

    @initialize(killed_at=KILL)
    def begin(self, killed_at: int | None) -> None:
        self.store = self.world.folder / f"store{next(self.world.numbers)}"
        self.rows, self.methods, self.fitted = 0, ["rise"], -1
        self.killed: list[object] | None = None
        self.write(self.world.ingest(self.store, 1, self.methods), killed_at)

    def teardown(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    def write(self, words: list[object], killed_at: int | None) -> None:
        """A command that changes the store; killed, it must leave nothing that a later one cannot go on from."""
        ended = self.world.server.run(*words, below=self.store, killed_at=killed_at)
        assert ended.code == 0 or (killed_at and ended.code == -9), (words, ended)
        self.killed = words if ended.code else None
        if ended.code:
            return
        if words[0] == "ingest":
            self.rows = DOCUMENTS * sum(word in self.world.files for word in words)
        if words[0] == "fit":
            self.fitted = self.rows

    @precondition(lambda self: self.killed)
    @rule(killed_at=KILL)
    def give_the_killed_command_again(self, killed_at: int | None) -> None:
        assert self.killed
        self.write(self.killed, killed_at)

    @precondition(lambda self: not self.killed and self.rows < FILES * DOCUMENTS)
    @rule(killed_at=KILL)
    def append_a_file(self, killed_at: int | None) -> None:
        files = self.rows // DOCUMENTS + 1
        self.write([*self.world.ingest(self.store, files, self.methods), "--append"], killed_at)

    @precondition(lambda self: not self.killed and len(self.methods) < len(METHODS))
    @rule(killed_at=KILL)
    def add_a_method(self, killed_at: int | None) -> None:
        self.methods = METHODS
        self.write(self.world.ingest(self.store, self.rows // DOCUMENTS, METHODS), killed_at)

    @precondition(lambda self: not self.killed)
    @rule(killed_at=KILL)
    def compress(self, killed_at: int | None) -> None:
        self.write(["compress", self.store, "--precision", "int8"], killed_at)

    @precondition(lambda self: not self.killed)
    @rule(killed_at=KILL)
    def fit(self, killed_at: int | None) -> None:
        again = ["--again"] if self.fitted not in (-1, self.rows) else []
        self.write(["fit", self.store, *FIT, *again], killed_at)

    @rule(method=st.sampled_from(METHODS))
    def ask_for_scores(self, method: str) -> None:
        """Those of the undisturbed run, for as many documents as are there."""
        ended, scores = self.world.ask(self.store, method)
        expected = self.world.scores[method]
        if not self.killed and method in self.methods:
            assert ended.code == 0 and len(scores) == self.rows, ended
        assert not ended.code or ended.err.count("error:") == 1, ended
        np.testing.assert_allclose(scores, expected[: len(scores)], atol=2e-3 * np.abs(expected).max())

    @precondition(lambda self: not self.killed)
    @rule()
    def ask_the_fit(self) -> None:
        """A fit answers for the documents that it was fitted to, or not at all."""
        ended, scores = self.world.ask(self.store, "stride")
        if self.fitted == self.rows:
            assert ended.code == 0 and len(scores) == self.rows and np.isfinite(scores).all(), ended
        else:
            assert ended.code == 1 and "headwater fit" in ended.err, ended

    @rule()
    def verify(self) -> None:
        if self.store.exists() and any(self.store.glob("zarr.json")):
            ended = self.world.server.run("verify", self.store)
            assert ended.code == 0, ended

    @invariant()
    def says_how_much_there_is(self) -> None:
        if not hasattr(self, "store") or self.killed:
            return
        ended = self.world.server.run("info", self.store, "--json")
        assert ended.code == 0 and json.loads(ended.out)["examples"] == self.rows, ended


def live(world: World, examples: int, steps: int) -> None:
    machine = type("Machine", (WholeLife,), {"world": world})
    quiet = list(HealthCheck)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=quiet),
    )


def test_a_store_is_what_was_done_to_it(world: World) -> None:
    live(world, 3, 12)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_store_is_what_was_done_to_it_for_long(world: World) -> None:
    live(world, 40, 30)
