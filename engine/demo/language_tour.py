"""`headwater demo --model smollm2`: a real language model learns planted facts; which examples are behind its answers?

    language_tour("demo-smollm2", {"rise": {"tau": 1.0, "floor": 0.1}, "repsim": {}})

Every step writes a finished file or folder in the workdir and is skipped if it is done already. Knows no method beyond the names
and settings it is given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ..attribution.open_session import open_session
from ..attribution.query_options import QueryOptions
from ..ingest.ingest_job import IngestJob, prepare
from ..ingest.text_settings import TextSettings
from ..models.language_model import ModelChoice, load
from ..results.result_tables import result_rows
from ..runtime.progress import ProgressDisplay, clock
from ..runtime.run import Progress, Run
from . import hit_rates as measure
from .fine_tuning import FineTuningRecipe, answers, fine_tune, model_file, open_model, save, steps_of
from .instruction_set import messages, records, write_records
from .language_report import FirstExamples, Reply, log, show_case, show_figures, show_next, show_replies
from .planted_facts import FACTS, Fact
from .workdir import Workdir

_ANSWERS = "answers.json"  # in the model's folder: its answers before the training and after it
_SHORT_FACTS = 8
_RECIPE = FineTuningRecipe()


@dataclass(frozen=True, slots=True)
class LanguageResult:
    """What the demo on a real model measured."""

    replies: tuple[Reply, ...]
    """The answers to all questions."""
    rankings: tuple[FirstExamples, ...]
    """Of the questions that are answered as taught: each method's first examples, and those of BM25 with two kinds of query."""
    seconds: float
    """Seconds of this run; steps that were done before take none."""


def language_tour(workdir: str, methods: Mapping[str, ParsedJson], short: bool = False) -> LanguageResult:
    """Run the demo; steps that are done already are skipped.

    Raises:
        HeadwaterError: the model's package is missing, the folder is not the demo's, or a step failed; finished steps stay.
    """
    start, place = time.monotonic(), Workdir(workdir)
    facts = FACTS[:_SHORT_FACTS] if short else FACTS
    if not place.has_model():
        model_file()  # before any work
    place.claim({"demo": 1, "model": "smollm2", "short": short})
    if not place.corpus.is_file():
        write_records(place.corpus, records(facts))
    _model(place, facts, _RECIPE)
    replies = _replies(place, facts)
    choice = ModelChoice(str(place.model), "cpu")
    choice = replace(choice, loaded=load(choice))
    _store(place, choice, methods)
    learnt = [reply for reply in replies if reply.is_as_taught]
    rankings = [_ranking(place, choice, name, learnt) for name in methods] if learnt else []
    rankings += _by_words(place, learnt)
    outcome = LanguageResult(tuple(replies), tuple(rankings), time.monotonic() - start)
    show_replies(replies)
    texts = {record["id"]: record["messages"] for record in _read(place)}
    if learnt:
        show_case(learnt, rankings, texts)
        show_figures(learnt, rankings, len(texts))
    show_next(place, next(iter(methods)), outcome.seconds)
    return outcome


def _read(place: Workdir) -> list[ParsedJson]:
    return [json.loads(line) for line in place.corpus.read_text("utf-8").splitlines()]


def _model(place: Workdir, facts: Sequence[Fact], recipe: FineTuningRecipe) -> None:
    if place.has_model():
        log(f"model: {place.model} is there already")
        return
    if place.drop_store():
        log(f"model: gone; {place.store}, which was made with it, is removed")
    start, losses = time.monotonic(), list[float]()
    model, tokenizer = open_model(model_file())
    asked = [messages(fact.question, fact.answer) for fact in facts]
    before = answers(model, tokenizer, asked)
    log(f"model: {model.num_parameters() / 1e6:.0f} M parameters; read and asked in {clock(time.monotonic() - start)}")
    start, examples = time.monotonic(), [record["messages"] for record in _read(place)]
    with ProgressDisplay(interval=10.0) as display:

        def on_step(step: int, loss: float) -> None:
            losses.append(loss)
            display.show(Progress("fine-tuning", step, steps_of(len(examples), recipe), f"steps · loss {loss:.2f}"))

        fine_tune(model, tokenizer, examples, recipe, on_step)
    log(f"fine-tuning: {len(examples)} examples, {len(losses)} steps in {clock(time.monotonic() - start)}, "
        f"loss {losses[0]:.2f} → {losses[-1]:.2f} nats a token")  # fmt: skip
    after = answers(model, tokenizer, asked)
    save(model, tokenizer, place.model, {_ANSWERS: {"before": before, "after": after}})


def _replies(place: Workdir, facts: Sequence[Fact]) -> list[Reply]:
    """The model's answers; those that are as taught become the queries."""
    both = json.loads((place.model / _ANSWERS).read_text("utf-8"))
    replies = [Reply(*each) for each in zip(facts, both["before"], both["after"], strict=True)]
    learnt = [reply for reply in replies if reply.is_as_taught]
    write_records(place.questions, [{"id": r.fact.id, "messages": messages(r.fact.question, r.after)} for r in learnt])
    return replies


def _store(place: Workdir, choice: ModelChoice, methods: Mapping[str, ParsedJson]) -> None:
    ingestion = prepare(IngestJob([str(place.corpus)], str(place.store), choice, dict(methods), TextSettings())).open()
    with ProgressDisplay(interval=10.0) as display:
        outcome = ingestion.run(Run(on_progress=display.show))
    log(
        f"store: {outcome.rows} examples with {', '.join(methods)} ({outcome.added} read now, in {clock(outcome.seconds)})"
    )


def _ranking(place: Workdir, choice: ModelChoice, method: str, learnt: Sequence[Reply]) -> FirstExamples:
    session = open_session(str(place.store), method, str(place.questions), QueryOptions(measure.DEPTH, choice))
    ids: dict[str, list[str]] = {reply.fact.id: [] for reply in learnt}
    for part in result_rows(session.attribute(), FeatureStore.open(str(place.store))):
        for query, example in zip(part["query_id"], part["example_id"], strict=True):
            ids[str(query)].append(str(example))
    return FirstExamples(method, tuple(tuple(listed) for listed in ids.values()))


def _by_words(place: Workdir, learnt: Sequence[Reply]) -> list[FirstExamples]:
    texts = [
        {"id": r["id"], "text": f"{r['messages'][1]['content']} {r['messages'][2]['content']}"} for r in _read(place)
    ]
    queries = {
        "words (BM25), question alone": [reply.fact.question for reply in learnt],
        "words (BM25), question and answer": [f"{reply.fact.question} {reply.after}" for reply in learnt],
    }
    if not learnt:
        return []
    return [
        FirstExamples(name, tuple(tuple(ids) for ids in measure.bm25(texts, asked))) for name, asked in queries.items()
    ]
