"""Each evaluation as one call, from files to figures. Knows where figures come from and nothing of how they are computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.files import JsonObject, whole_file
from ...store.layout import Array
from .agreement import Agreement, evaluate_lds, evaluate_subsets
from .labels import Labels, TextMatch, read_labels
from .matrices import read_array, read_masks
from .rankings import AllScores, read_answers, require_known
from .removal import Removal, brittleness
from .retrieval import CUTS, Retrieval, evaluate_retrieval


def lds_of(
    scores: str, masks: str, outcomes: str, subsets: str = "", kind: str = "loss", resamples: int = 1000
) -> Agreement:
    """`evaluate lds`; `subsets`: "80:100" takes these alone.

    Raises:
        SettingsError, DataError: files that are not there or not what they should be, shapes that disagree.
    """
    chosen = _span(subsets)
    mask, outcome = read_masks(masks), read_array(outcomes, "outcomes")
    if chosen != slice(None):
        mask, outcome = mask[chosen], _subsets(outcome, chosen)
    return evaluate_lds(read_array(scores, "scores"), mask, outcome, kind, resamples)


def subsets_of(
    predicted: str, outcomes: str, subsets: str = "", kind: str = "loss", resamples: int = 1000
) -> Agreement:
    """`evaluate subsets`; the span holds for both files."""
    chosen = _span(subsets)
    return evaluate_subsets(
        read_array(predicted, "predictions")[chosen],
        _subsets(read_array(outcomes, "outcomes"), chosen),
        kind,
        resamples,
    )


def brittleness_of(outcomes: str) -> Removal:
    """`evaluate brittleness`, of the outcomes of `ground-truth --without`.

    Raises:
        SettingsError, DataError: a file that is not there, or not of removals.
    """
    return brittleness(read_array(outcomes, "outcomes"))


def retrieval_of(results: str, scores: str, store: str, labels: Labels, cuts: Sequence[int] = CUTS) -> Retrieval:
    """`evaluate retrieval`: of answers, or of all scores of a store's examples; a store also says which labels are known."""
    if bool(results) == bool(scores):
        raise SettingsError("give either --results or --scores")
    if scores and not store:
        raise SettingsError("--scores names no example: --store DIR says which rows these are")
    opened = FeatureStore.open(store) if store else None
    if scores:
        assert opened
        every = AllScores(scores, opened, texts=isinstance(labels, TextMatch))
        require_known(labels, every.examples, store)
        return evaluate_retrieval(every, labels, cuts, whole=True)
    if opened:
        require_known(labels, AllScores.names_of(opened), store)
    return evaluate_retrieval(read_answers(results), labels, cuts, whole=False)


def labels_of(path: str, column: str, queries: str, pattern: str) -> Labels:
    """Labels from a file, or by a pattern in the text."""
    if bool(path) == bool(pattern):
        raise SettingsError("give either --labels or --match")
    if pattern:
        return TextMatch(pattern)
    if queries and not column:
        raise SettingsError("--query-labels goes with --column")
    return read_labels(path, column, queries)


def save(facts: JsonObject, path: str) -> None:
    """Write figures as JSON, whole or not at all."""
    file = Path(path)
    if file.suffix != ".json":
        raise SettingsError(f"{path}: figures are written as .json")
    with whole_file(file) as hidden:
        hidden.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _span(text: str) -> slice:
    """ "80:100" as a slice; "" as all."""
    if not text:
        return slice(None)
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, last)):
        raise SettingsError(f"--subsets {text}: name them as FROM:TO, such as 80:100")
    return slice(int(first) if first else None, int(last) if last else None)


def _subsets(outcomes: Array, chosen: slice) -> Array:
    """Subsets are the axis before the last, or the only one."""
    if outcomes.ndim == 1:
        return outcomes[chosen]
    found: Array = outcomes[..., chosen, :]
    return found
