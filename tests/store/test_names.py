"""Names of methods: each is refused before anything is written, or the store opens again under it."""

from __future__ import annotations

import shutil
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
from headwater.engine.commands.options import method_settings
from headwater.store.errors import DataError
from headwater.store.feature_store import FeatureStore, method_group, precision_group
from headwater.store.layout import column
from headwater.store.names import require_method
from headwater.store.reader import open_column
from headwater.store.store_record import GroupRecord, StoreRecord, hidden_group
from headwater.store.verify import verify
from headwater.store.writer import GroupWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from running import headwater
from small import save_model, tree, write_corpus

WRONG = [
    "rise@tau=1",
    "rise@a b",
    "rise@x/y",
    "rise@../../..",
    "a b",
    "x/y",
    "../../..",
    "rise@\n",
    "rise@" + "x" * 300,
]
LETTERS = string.ascii_letters + string.digits + "._@-é漢²=/ \n\0"


@st.composite
def names(draw: st.DrawFn) -> str:
    """Names near the border: a method's name and a label, some of them long."""
    label = draw(st.text(LETTERS, max_size=12)) * draw(st.sampled_from([1, 1, 1, 9, 40]))
    return draw(st.sampled_from(["rise@", "", "rise@x."])) + label + draw(st.sampled_from(["", ".int8", "zarr.json"]))


@settings(max_examples=150, deadline=None)
@given(first=names(), second=names())
def test_a_store_opens_again_under_every_accepted_name(first: str, second: str) -> None:
    """Two names at a time, so that no group of one is taken for a copy of the other."""
    accepted = []
    for name in dict.fromkeys((first, second, f"{first}.sign64")):
        try:
            accepted.append(require_method(name))
        except DataError as error:
            assert "\n" not in str(error)
            with pytest.raises(DataError):
                method_group(name)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder) / "S", {"sources": []}, "test")
        for number, name in enumerate(accepted):
            for group in (method_group(name), precision_group(name, "sign1048576"), hidden_group(name)):
                store.add_group(group, [column("c", (2,), "float32")], {})
            with GroupWriter(store, method_group(name)) as writer:
                writer.append({"c": np.full((3, 2), number, np.float32)})
                writer.commit(complete=True)
        again = FeatureStore.open(Path(folder) / "S")
        assert again.methods == accepted
        for number, name in enumerate(accepted):
            assert again.copies(name) == ["sign1048576"]
            assert (open_column(again, method_group(name), "c").gather(np.arange(3)) == number).all()
        assert not [damage for damage in verify(again) if damage]
        assert [path.name for path in Path(folder).iterdir()] == ["S"]  # nothing was written outside the store


@pytest.mark.parametrize("name", ["methods/a b", "methods/../x", "methods/", "elsewhere/x", "forms/x/y"])
def test_a_record_never_gets_a_group_that_could_not_be_read(name: str) -> None:
    with pytest.raises(DataError):
        StoreRecord(3, "test", {}).with_group(name, GroupRecord((column("c", (), "float32"),)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    save_model(site / "model")
    write_corpus(site / "corpus.jsonl", ["the river runs", "one two three"])
    assert not headwater("ingest", site / "corpus.jsonl", "--store", site / "S", "--model", site / "model").exit_code
    return site


@pytest.mark.parametrize("name", WRONG)
def test_names_are_refused_before_any_work(site: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(site / "S", tmp_path / "S")
    before = tree(tmp_path)
    ingest = ["ingest", site / "corpus.jsonl", "--model", site / "model", "--method", name, "--store"]
    asked = ["--queries", site / "corpus.jsonl", "--method", name]
    for words in (
        [*ingest, tmp_path / "new"],
        [*ingest, tmp_path / "S"],
        ["plan", *ingest, tmp_path / "S"],
        ["fit", tmp_path / "S", "--method", name],
        ["fit", tmp_path / "S", "--method", name.replace("rise", "stride")],
        ["attribute", tmp_path / "S", *asked],
        ["attribute", tmp_path / "S", *asked, "--members", "all"],
        ["value", tmp_path / "S", *asked],
        ["self-influence", tmp_path / "S", "--method", name],
        ["compress", tmp_path / "S", "--method", name, "--precision", "int8"],
        ["select", tmp_path / "S", *asked, "--count", 1, "-o", tmp_path / "o.jsonl"],
        ["attribute", tmp_path / "S", "--queries", site / "corpus.jsonl", "--scan", name],
    ):
        refused = headwater(*words)
        assert refused.exit_code == 1 and refused.stderr.count("\n") <= 2, (words, refused.output)
        assert refused.stderr.startswith("error: ") and tree(tmp_path) == before, words


def test_settings_of_a_member_whose_label_holds_a_dot() -> None:
    pairs = (("rise@0.5.tau", "0.5"), ("rise.tau", "1"))
    assert method_settings(("rise@0.5", "rise"), pairs) == {"rise@0.5": {"tau": 0.5}, "rise": {"tau": 1}}
