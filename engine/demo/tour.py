"""`headwater demo`: corpus, model, store, answers and hit rates, step by step.

    tour("demo", "rise", settings={"kr": 64, "kh": 64, "kg": 32})

Every step writes a finished file or folder in the workdir, prints one line on stderr, and is skipped if it is done already.
Knows no method beyond the name and the settings it is given.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...store.json_values import ParsedJson
from ..attribution.open_session import open_session
from ..attribution.query_options import QueryOptions
from ..ingest.ingest_job import IngestJob, prepare
from ..ingest.text_settings import TextSettings
from ..models.language_model import ModelChoice
from ..results.answers_origin import origin_of
from ..results.printable import printable
from ..results.result_files import ResultFile
from ..results.result_tables import RESULT_FIELDS, About, result_rows
from ..runtime.progress import ProgressDisplay, clock
from ..runtime.run import Progress, Run
from . import docstring_corpus as texts
from . import hit_rates as measure
from .small_model import SHORT, DemoModelRecipe, build
from .workdir import Workdir

TOP = 10  # examples per question
SHOWN = (3, 3)  # questions printed, and examples of each
LENGTH = 256  # maximal tokens per example; a long docstring becomes several examples


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a demo."""

    texts: int | None
    """Approximate number of texts in the corpus; None for all."""
    questions: int
    """Maximal number of held-out questions."""
    recipe: DemoModelRecipe
    """Recipe of the model."""


FULL = Size(None, 150, DemoModelRecipe())
BRIEF = Size(800, 40, SHORT)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Measurements of the demo."""

    questions: int
    """Number of questions."""
    hits: tuple[measure.HitRates, ...]
    """Hit rates of the method, of BM25 with two kinds of query, and of chance."""
    seconds: float
    """Seconds of this run; steps that were done before take none."""


def tour(workdir: str, method: str, short: bool = False, settings: ParsedJson | None = None) -> DemoResult:
    """Run the demo; steps that are done already are skipped.

    Raises:
        HeadwaterError: the folder belongs to something else, or a step failed; finished steps are kept.
    """
    start = time.monotonic()
    size, place = BRIEF if short else FULL, Workdir(workdir)
    place.claim({"demo": 1, "python": sys.version.split()[0], "short": short})
    _corpus(place, size)
    _model(place, size.recipe)
    _store(place, method, settings or {})
    answers = _answers(place, method)
    questions = texts.read_records(place.questions)
    _show(questions[: SHOWN[0]], answers)
    outcome = DemoResult(
        len(questions), _measure_hit_rates(place, method, questions, answers), time.monotonic() - start
    )
    _show_figures(outcome)
    _show_next(place, method, outcome.seconds)
    return outcome


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _corpus(place: Workdir, size: Size) -> None:
    if place.has_corpus():
        _log(f"corpus: {place.corpus} is there already")
        return
    library = texts.standard_library()
    docs = texts.docstrings(library)
    parts = texts.split(texts.select_modules(docs, size.texts) if size.texts else docs, size.questions)
    texts.write_questions(place.questions, parts.questions)
    texts.write_corpus(place.corpus, parts.corpus)
    characters = sum(len(doc.text) for doc in parts.corpus)
    _log(f"corpus: {len(parts.corpus):,} docstrings of {library}, {characters / 1e6:.1f} MB; "
         f"{len(parts.questions)} more held out as questions")  # fmt: skip


def _model(place: Workdir, recipe: DemoModelRecipe) -> None:
    if place.has_model():
        _log(f"model: {place.model} is there already")
        return
    if place.drop_store():
        _log(f"model: gone; {place.store}, which was made with it, is removed")
    records = texts.read_records(place.corpus)
    start = time.monotonic()
    losses: list[float] = []
    with ProgressDisplay(interval=10.0) as display:

        def on_step(step: int, loss: float) -> None:
            losses.append(loss)
            display.show(Progress("model", step, recipe.steps, f"steps · loss {loss:.2f}"))

        parameters = build([record["text"] for record in records], place.model, recipe, on_step)
    _log(f"model: {parameters / 1e6:.1f} M parameters, {recipe.steps} steps in {clock(time.monotonic() - start)}, "
         f"loss {losses[0]:.2f} → {losses[-1]:.2f} nats a token")  # fmt: skip


def _store(place: Workdir, method: str, settings: ParsedJson) -> None:
    choice = ModelChoice(str(place.model), device="cpu")
    job = IngestJob([str(place.corpus)], str(place.store), choice, {method: settings},
                    TextSettings(max_length=LENGTH))  # fmt: skip
    ingestion = prepare(job).open()
    with ProgressDisplay(interval=10.0) as display:
        outcome = ingestion.run(Run(on_progress=display.show))
    size = sum(file.stat().st_size for file in place.store.rglob("*") if file.is_file())
    _log(f"store: {outcome.rows:,} examples with {method} ({outcome.added:,} read now, in {clock(outcome.seconds)}), "
         f"{size / 1e6:.0f} MB")  # fmt: skip


Answers = dict[str, list[ParsedJson]]
"""Question id → its examples, best first."""


def _answers(place: Workdir, method: str) -> Answers:
    start = time.monotonic()
    choice = ModelChoice(str(place.model), device="cpu")
    session = open_session(str(place.store), method, str(place.questions), QueryOptions(TOP, choice))
    results = session.attribute()
    answers: Answers = {}
    origin = origin_of(session.store, session.name, session.rows)
    with ResultFile(str(place.answers), RESULT_FIELDS, origin.to_json()) as file:
        for part in result_rows(results, session.store, about=About(session.queries, origin)):
            file.write(part)
            for values in zip(*part.values(), strict=True):
                row = dict(zip(part, values, strict=True))
                answers.setdefault(row["query_id"], []).append(row)
    _log(f"answers: {len(answers)} questions to {session.rows:,} examples in {clock(time.monotonic() - start)}")
    return answers


def _measure_hit_rates(
    place: Workdir, method: str, questions: Sequence[dict[str, str]], answers: Answers
) -> tuple[measure.HitRates, ...]:
    ids, records = [question["id"] for question in questions], texts.read_records(place.corpus)
    rankings = {
        f"{method} (asked about the completion)": [[row["example_id"] for row in answers[name]] for name in ids],
        "BM25, query = completion": measure.bm25(records, [q["completion"] for q in questions]),
        "BM25, query = prompt + completion": measure.bm25(records, [q["prompt"] + q["completion"] for q in questions]),
    }
    rates = [measure.hit_rates(name, ids, ranking) for name, ranking in rankings.items()]
    return (*rates, measure.chance(ids, [record["id"] for record in records]))


def _show(questions: Sequence[dict[str, str]], answers: Answers) -> None:
    print(
        "\nThe first of the questions: a docstring that the model never saw, cut in two. Which examples did most for the"
    )
    print("second half, given the first?")
    for question in questions:
        print(f"\n  {question['id']}")
        print(_wrapped_text("prompt      ", question["prompt"]))
        print(_wrapped_text("completion  ", question["completion"]))
        for row in answers[question["id"]][: SHOWN[1]]:
            text = f"[{row['example_id']}]  {row['prompt']}{row['completion']}"
            print(_wrapped_text(f"  {row['rank']}  {row['score']:.3f}  ", text))


def _wrapped_text(label: str, text: str, width: int = 116, lines: int = 3) -> str:
    """Text wrapped to a few lines after a label."""
    squeezed = " ".join(printable(text).split())
    indent = " " * (len(label) + 4)
    wrapped = textwrap.wrap(
        squeezed, width, initial_indent=f"    {label}", subsequent_indent=indent, break_on_hyphens=False
    )
    return "\n".join(wrapped[:lines]) + " …" * (len(wrapped) > lines)


def _show_figures(outcome: DemoResult) -> None:
    print(f"\nHow often an example comes from the question's own module, over {outcome.questions} questions:\n")
    print(f"  {'':<36} the first   one of the first {measure.DEPTH}")
    for hit in outcome.hits:
        print(f"  {hit.name:<36} {hit.first:>8.1%}   {hit.among:>8.1%}")


def _show_next(place: Workdir, method: str, seconds: float) -> None:
    store, questions = (shlex.quote(str(path)) for path in (place.store, place.questions))
    print(f"\nAll this took {clock(seconds)}. {place.answers} has all answers. To go on:\n")
    print(f"  headwater info {store}")
    print(f"  headwater attribute {store} --method {method} --queries {questions} --top 3")
    print(f"  headwater value {store} --method {method} --queries {questions}")
    print(f"  headwater verify {store}", flush=True)
