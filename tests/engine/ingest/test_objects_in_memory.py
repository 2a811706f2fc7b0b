"""Stores of models in memory: they are asked with the object or with what it was saved to, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions, SearchOptions
from headwater.engine.attribution.self_influence import SelfInfluence
from headwater.engine.fitting.fit_job import FitJob, prepare_fit
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import LanguageModel, ModelChoice
from headwater.engine.models.loaded_model import from_objects
from headwater.store.errors import ModelError, StoreMismatch
from headwater.store.feature_store import FeatureStore
from running import done, headwater
from small import save_model, save_tokenizer, sentences, write_corpus

METHODS: dict[str, dict[str, Any]] = {"rise": {"kr": 16, "kh": 16, "kg": 8}, "repsim": {}}
QUICK = {"subsets": 24, "degree": 3, "updates": 4, "checked": 5, "shared": 16, "members": 4}
ALL = SearchOptions(all_scores=True)
pytestmark = pytest.mark.usefixtures("one_thread")


def tuned(folder: Path) -> tuple[Any, Any]:
    """A model of a folder, changed in memory, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.25)
    return model, AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LanguageModel]:
    """A store S that an object in memory made, and the object, which is saved in `tuned`; `model` is what it was tuned from."""
    folder = tmp_path_factory.mktemp("objects")
    save_model(folder / "model")
    write_corpus(folder / "corpus.jsonl", sentences(20))
    write_corpus(folder / "queries.jsonl", sentences(3, seed=1))
    model, tokenizer = tuned(folder / "model")
    loaded = from_objects(model, tokenizer)
    job = IngestJob([str(folder / "corpus.jsonl")], str(folder / "S"), ModelChoice("", loaded=loaded), METHODS)
    prepare(job).ingest()
    model.save_pretrained(folder / "tuned")
    save_tokenizer(folder / "tuned", sentences(200), add=False)
    return folder, loaded


def scores(work: Path, store: str, choice: ModelChoice, method: str = "rise") -> np.ndarray:
    """(N, Q) scores by Python."""
    session = open_session(
        str(work / store), method, str(work / "queries.jsonl"), QueryOptions(model=choice, search=ALL)
    )
    return np.concatenate([block for _, block in session.scores()])


def test_a_store_of_an_object_is_asked_with_it_or_with_its_folder(work: tuple[Path, LanguageModel]) -> None:
    folder, loaded = work
    assert FeatureStore.open(str(folder / "S")).provenance["model_path"] == ""
    by_object = scores(folder, "S", ModelChoice("", loaded=loaded))
    np.testing.assert_array_equal(by_object, scores(folder, "S", ModelChoice(str(folder / "tuned"), "cpu")))
    done("ingest", folder / "corpus.jsonl", "--store", folder / "F", "--model", folder / "tuned", "--method", "rise",
         *(word for key, value in METHODS["rise"].items() for word in ("--set", f"rise.{key}", value)))  # fmt: skip
    np.testing.assert_array_equal(by_object, scores(folder, "F", ModelChoice("")))
    np.testing.assert_array_equal(by_object, scores(folder, "F", ModelChoice("", loaded=loaded)))


def test_another_model_is_refused(work: tuple[Path, LanguageModel]) -> None:
    folder, _ = work
    model, tokenizer = tuned(folder / "model")
    with torch.no_grad():
        model.model.norm.weight[0] += 0.01
    for choice in (ModelChoice("", loaded=from_objects(model, tokenizer)), ModelChoice(str(folder / "model"))):
        with pytest.raises(StoreMismatch) as caught:
            scores(folder, "S", choice)
        assert "\n" not in str(caught.value)


def test_commands_that_need_the_object_say_so(work: tuple[Path, LanguageModel]) -> None:
    folder, loaded = work
    asked = ["--queries", folder / "queries.jsonl"]
    quick = [part for key, value in QUICK.items() for part in ("--set", f"stride.{key}", value)]
    for words in (
        ["attribute", folder / "S", "--method", "rise", *asked],
        ["fit", folder / "S", "--method", "stride", *quick],
        ["self-influence", folder / "S", "--method", "graddot"],
    ):
        result = headwater(*words)
        assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
        assert (
            "the store's model was an object in memory: give it again (--model PATH, or model= in Python)"
            in result.output
        )
    assert "an object in memory" in done("info", folder / "S").stdout
    assert done("show", folder / "S", "--rows", "0").stdout
    by_object = SelfInfluence(str(folder / "S"), "graddot", ModelChoice("", loaded=loaded))
    by_folder = SelfInfluence(str(folder / "S"), "graddot", ModelChoice(str(folder / "tuned")))
    for (_, one), (_, other) in zip(by_object.scores(), by_folder.scores(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_members_with_their_own_models_are_not_read_by_the_object(work: tuple[Path, LanguageModel]) -> None:
    folder, loaded = work
    choice = ModelChoice("", loaded=loaded)
    early = save_model(folder / "early", seed=5)
    job = IngestJob([str(folder / "corpus.jsonl")], str(folder / "S"), choice, {"rise@early": METHODS["rise"]})
    prepare(replace(job, base=str(early))).ingest()
    member = scores(folder, "S", choice, "rise@early")
    np.testing.assert_array_equal(member, scores(folder, "S", ModelChoice(str(early)), "rise@early"))
    assert abs(member - scores(folder, "S", choice)).max() > 1e-3


def test_a_fit_is_made_and_asked_with_the_object(work: tuple[Path, LanguageModel]) -> None:
    folder, loaded = work
    choice = ModelChoice("", loaded=loaded)
    prepare_fit(FitJob(str(folder / "S"), "stride", QUICK, model=choice)).run()
    by_object, by_folder = (
        open_session(str(folder / "S"), "stride", str(folder / "queries.jsonl"), QueryOptions(model=model)).attribute()
        for model in (choice, ModelChoice(str(folder / "tuned")))
    )
    np.testing.assert_array_equal(by_object.scores, by_folder.scores)


def test_an_object_without_a_path_needs_no_model_option(work: tuple[Path, LanguageModel], tmp_path: Path) -> None:
    folder, _ = work
    with pytest.raises(ModelError, match="a corpus of texts needs a model"):
        prepare(IngestJob([str(folder / "corpus.jsonl")], str(tmp_path / "S"), ModelChoice(""), METHODS))
