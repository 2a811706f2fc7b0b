"""Each evaluation as one call, from files to figures. Knows where figures come from and nothing of how they are computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...store.completeness import is_whole, require_whole
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..results.example_ids import require_known_ids
from ..runtime.output_files import whole_file
from .agreement import Agreement, evaluate_lds, evaluate_subsets
from .labels import Labels, TextMatch, read_labels
from .mask_files import read_masks
from .matrices import read_array
from .rankings import AllScores, read_answers
from .removal import Removal, brittleness
from .retrieval import CUTS, Retrieval, evaluate_retrieval


@dataclass(frozen=True, slots=True)
class OutcomesFile:
    """A file of outcomes of training on subsets."""

    path: str
    """File of (S, Q) or (seeds, S, Q) numbers."""
    kind: str = "loss"
    """A `loss` falls where training helps; a `gain` rises."""
    subsets: str = ""
    """Range of the subsets to use, such as 80:100; empty for all."""


def lds_from_files(scores: str, masks: str, outcomes: OutcomesFile, resamples: int = 1000) -> Agreement:
    """`evaluate lds` from files.

    Raises:
        SettingsError: a file does not exist or has an unknown format.
        DataError: a file holds something else than expected, or shapes do not match.
    """
    mask, outcome = read_masks(masks), read_array(outcomes.path, "outcomes")
    chosen = _parse_range(outcomes.subsets, len(mask))
    if outcomes.subsets:
        mask, outcome = mask[chosen], _select_subsets(outcome, chosen)
    return evaluate_lds(read_array(scores, "scores"), mask, outcome, outcomes.kind, resamples)


def subsets_from_files(predicted: str, outcomes: OutcomesFile, resamples: int = 1000) -> Agreement:
    """`evaluate subsets` from files; the range of subsets applies to predictions, too."""
    predictions = read_array(predicted, "predictions")
    chosen = _parse_range(outcomes.subsets, len(predictions))
    predictions = predictions[chosen]
    outcome = _select_subsets(read_array(outcomes.path, "outcomes"), chosen)
    return evaluate_subsets(predictions, outcome, outcomes.kind, resamples)


def brittleness_from_file(outcomes: str) -> Removal:
    """`evaluate brittleness` from the outcomes of `ground-truth --without`.

    Raises:
        SettingsError: the file does not exist. DataError: its shape is not that of removals.
    """
    return brittleness(read_array(outcomes, "outcomes"))


@dataclass(frozen=True, slots=True)
class RankingFiles:
    """Where the rankings of an evaluation come from: either results or scores."""

    results: str = ""
    """A table of results, as `attribute -o` writes it."""
    scores: str = ""
    """All scores, as `attribute --all-scores` writes them."""
    store: str = ""
    """The store of the examples; scores need it."""
    partial: bool = False
    """Whether an unfinished store is accepted."""
    method: str = ""
    """The method whose answers are read, of a table with those of several."""


def retrieval_from_files(
    files: RankingFiles, labels: Labels, cuts: Sequence[int] = CUTS
) -> tuple[Retrieval, list[str]]:
    """`evaluate retrieval` from a table of results or from all scores, and notes on it for the user. If a store is given, labels
    and results must be of its examples; labels may be of examples that an accepted unfinished store does not have yet.

    Raises:
        StoreMissing: the store is unfinished, and that is not accepted. DataError: labels or results name examples that the
            store does not hold.
    """
    if bool(files.results) == bool(files.scores):
        raise SettingsError("give either --results or --scores")
    if files.scores and not files.store:
        raise SettingsError("--scores has no example ids: --store DIR says which rows these are")
    if not files.store:
        retrieval = evaluate_retrieval(read_answers(files.results, files.method), labels, cuts, whole=False)
        return retrieval, [*_unchecked_notes(labels, retrieval), *_unanswered_notes(retrieval)]
    store = FeatureStore.open(files.store)
    notes = require_whole(store, partial=files.partial)
    known = set(AllScores.names_of(store))
    notes += _labels_without_examples(labels, known, store, files)
    if files.scores:
        retrieval = evaluate_retrieval(
            AllScores(files.scores, store, texts=isinstance(labels, TextMatch)), labels, cuts, whole=True
        )
    else:
        rankings = list(read_answers(files.results, files.method))
        for ranking in rankings:
            require_known_ids(ranking.examples, known, f"{files.results}: query {ranking.query}", store)
        retrieval = evaluate_retrieval(rankings, labels, cuts, whole=False)
    return retrieval, [*notes, *_unanswered_notes(retrieval)]


def _labels_without_examples(labels: Labels, known: set[str], store: FeatureStore, files: RankingFiles) -> list[str]:
    """A note on labels of examples that an unfinished store does not have yet; of a finished store, or if no label is of its
    examples, they are refused.
    """
    missing = len(labels.known - known)
    if not missing or is_whole(store) or missing == len(labels.known):
        require_known_ids(labels.known, known, "the file of labels", store)
        return []
    effect = "recall and average precision count them as not retrieved" if files.results else "they are left out"
    return [f"{missing:,} of {len(labels.known):,} labelled examples are not in the unfinished store: {effect}"]


def _unchecked_notes(labels: Labels, retrieval: Retrieval) -> list[str]:
    """What is not known without a store: whether labels that no query ranks are of its examples."""
    if not retrieval.unranked:
        return []
    counts = f"{retrieval.unranked:,} of {len(labels.known):,} labelled examples are"
    return [f"{counts} in no answer: with --store DIR, labels of examples that the store does not hold are refused"]


def _unanswered_notes(retrieval: Retrieval) -> list[str]:
    """How many queries are labelled, and have no answer."""
    queries = retrieval.unanswered
    if not queries:
        return []
    return [f"{len(queries):,} labelled queries have no answer, such as {queries[0]}: they are left out"]


def select_labels(path: str, column: str, queries: str, pattern: str) -> Labels:
    """Labels from a file, or from a regular expression searched in the texts."""
    if bool(path) == bool(pattern):
        raise SettingsError("give either --labels or --match")
    if pattern:
        return TextMatch(pattern)
    if queries and not column:
        raise SettingsError("--query-labels needs --column", hint="name the column that holds the labels")
    return read_labels(path, column, queries)


def save(facts: ParsedJson, path: str) -> None:
    """Write figures as JSON, whole or not at all."""
    file = Path(path)
    if file.suffix != ".json":
        raise SettingsError(f"{path}: figures are written as .json")
    with whole_file(file) as hidden:
        hidden.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _parse_range(text: str, total: int) -> slice:
    """ "80:100" as a slice of `total` subsets; "" as all."""
    if not text:
        return slice(None)
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, last)):
        raise SettingsError(f"--subset-range {text}", hint="name them as FROM:TO, such as 80:100")
    start, stop = int(first or 0), int(last or total)
    if not start < stop <= total:
        raise SettingsError(f"--subset-range {text}: there are {total} subsets, 0:{total}")
    return slice(start, stop)


def _select_subsets(outcomes: Array, chosen: slice) -> Array:
    """Select subsets, which are the second-last axis, or the only one."""
    if outcomes.ndim == 1:
        return outcomes[chosen]
    selected: Array = outcomes[..., chosen, :]
    return selected
