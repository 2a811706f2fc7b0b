"""TF-IDF and BM25 over a store's texts: the libraries' own scores, without a model, by every command."""

import json
from pathlib import Path

import bm25s
import numpy as np
import pytest
from click.testing import CliRunner, Result
from headwater.cli import main
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions
from headwater.plugins.lexical import Bm25, TfIdf
from headwater.store.errors import SettingsError
from sklearn.feature_extraction.text import TfidfVectorizer
from small import save_model, sentences, write_corpus

TEXTS = sentences(60)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lexical")
    model = save_model(folder / "model")
    corpus = write_corpus(folder / "c.jsonl", TEXTS)
    done = run(
        "ingest", corpus, "--store", folder / "S", "--model", model, "--set", "rise.kr", 8, "--set", "rise.kh", 8
    )
    assert done.exit_code == 0, done.output
    for file in model.glob("*.safetensors"):
        file.unlink()  # from here on nobody may read the model
    write_corpus(folder / "q.jsonl", TEXTS[:4])
    return folder


def test_tfidf_is_scikit_learns(store):
    found = open_session(str(store / "S"), "tfidf", str(store / "q.jsonl"), QueryOptions(top=60)).attribute()
    index = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    expected = (index.fit_transform(TEXTS) @ index.transform(TEXTS[:4]).T).toarray()
    for query in range(4):
        np.testing.assert_allclose(found.scores[query], np.sort(expected[:, query])[::-1], atol=1e-5)
        np.testing.assert_allclose(expected[found.rows[query], query], found.scores[query], atol=1e-5)


def test_bm25_is_bm25ss(store):
    found = open_session(str(store / "S"), "bm25", str(store / "q.jsonl"), QueryOptions(top=10)).attribute()
    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index([text.lower().split() for text in TEXTS], show_progress=False)
    for query in range(4):
        expected = index.get_scores(TEXTS[query].lower().split())
        np.testing.assert_allclose(found.scores[query], np.sort(expected)[::-1][:10], rtol=1e-5)
    assert found.rows[:, 0].tolist() == [0, 1, 2, 3]


def test_every_command_answers_without_a_model(store, tmp_path):
    words = [store / "S", "--queries", store / "q.jsonl", "--method", "tfidf"]
    done = run("attribute", *words, "--json", "--top", 2)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and len(lines) == 8 and lines[0]["completion"] == TEXTS[0] and lines[0]["exact"]
    assert run("attribute", *words, "--all-scores", tmp_path / "all.zarr").exit_code == 0
    assert run("value", *words, "-o", tmp_path / "v.csv").exit_code == 0
    assert run("value", *words, "--top", 3).exit_code == 0
    assert "words" in run("plan", "attribute", *words).stdout
    (tmp_path / "gold.txt").write_text("c.jsonl:1\nc.jsonl:2\n")
    scored = run("evaluate", "retrieval", "--scores", tmp_path / "all.zarr", "--store", store / "S",
                 "--labels", tmp_path / "gold.txt", "--json")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert "AUC" in json.loads(scored.stdout)["means"]
    (tmp_path / "gold.txt").write_text("nobody\n")
    unknown = run("evaluate", "retrieval", "--scores", tmp_path / "all.zarr", "--store", store / "S",
                  "--labels", tmp_path / "gold.txt")  # fmt: skip
    assert unknown.exit_code == 1 and "does not hold (nobody)" in unknown.stderr


def test_what_cannot_be_asked_of_words(store, tmp_path):
    words = ["attribute", store / "S", "--queries", store / "q.jsonl", "--method", "bm25"]
    assert "stores no rows" in run(*words, "--scan", "int8").stderr
    assert "plan needs" in run(*words, "--memory", "1KB").stderr or run(*words, "--memory", "1KB").exit_code == 1
    corpus = write_corpus(tmp_path / "c.jsonl", TEXTS)
    model = save_model(tmp_path / "m")
    refused = run("ingest", corpus, "--store", tmp_path / "S", "--model", model, "--method", "bm25")
    assert refused.exit_code == 1 and "stores no rows" in refused.stderr
    small = ["--set", "rise.kr", 8, "--set", "rise.kh", 8]
    assert run("ingest", corpus, "--store", tmp_path / "S", "--model", model, "--no-text", *small).exit_code == 0
    bare = run("attribute", tmp_path / "S", "--queries", corpus, "--method", "tfidf")
    assert bare.exit_code == 1 and "keeps no texts" in bare.stderr


@pytest.mark.parametrize("method", [TfIdf(), Bm25()])
def test_a_corpus_without_words_is_refused(method):
    with pytest.raises(SettingsError, match="no word"):
        list(method.score_texts(["a"], lambda: iter([["", "!"]])))


def test_queries_of_one_name_are_all_answered(store, tmp_path):
    queries = tmp_path / "q.jsonl"
    queries.write_text("".join(json.dumps({"id": "same", "text": text}) + "\n" for text in TEXTS[:2]))
    done = run("attribute", store / "S", "--queries", queries, "--method", "bm25", "--all-scores", tmp_path / "a.zarr")
    assert done.exit_code == 0, done.output
