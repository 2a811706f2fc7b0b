"""Each evaluation as one call, from files to figures. Knows where figures come from and nothing of how they are computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..runtime.output_files import whole_file
from .agreement import Agreement, evaluate_lds, evaluate_subsets
from .labels import Labels, TextMatch, read_labels
from .mask_files import read_masks
from .matrices import read_array
from .rankings import AllScores, read_answers, require_known_examples
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
    chosen = _parse_range(outcomes.subsets)
    mask, outcome = read_masks(masks), read_array(outcomes.path, "outcomes")
    if chosen != slice(None):
        mask, outcome = mask[chosen], _select_subsets(outcome, chosen)
    return evaluate_lds(read_array(scores, "scores"), mask, outcome, outcomes.kind, resamples)


def subsets_from_files(predicted: str, outcomes: OutcomesFile, resamples: int = 1000) -> Agreement:
    """`evaluate subsets` from files; the range of subsets applies to predictions, too."""
    chosen = _parse_range(outcomes.subsets)
    predictions = read_array(predicted, "predictions")[chosen]
    outcome = _select_subsets(read_array(outcomes.path, "outcomes"), chosen)
    return evaluate_subsets(predictions, outcome, outcomes.kind, resamples)


def brittleness_from_file(outcomes: str) -> Removal:
    """`evaluate brittleness` from the outcomes of `ground-truth --without`.

    Raises:
        SettingsError: the file does not exist. DataError: its shape is not that of removals.
    """
    return brittleness(read_array(outcomes, "outcomes"))


def retrieval_from_files(
    results: str, scores: str, store: str, labels: Labels, cuts: Sequence[int] = CUTS
) -> Retrieval:
    """`evaluate retrieval` from a table of results or from all scores; if `store` is given, labels must be of its examples."""
    if bool(results) == bool(scores):
        raise SettingsError("give either --results or --scores")
    if scores and not store:
        raise SettingsError("--scores has no example ids: --store DIR says which rows these are")
    opened = FeatureStore.open(store) if store else None
    if scores:
        assert opened
        all_scores = AllScores(scores, opened, texts=isinstance(labels, TextMatch))
        require_known_examples(labels, all_scores.examples, store)
        return evaluate_retrieval(all_scores, labels, cuts, whole=True)
    if opened:
        require_known_examples(labels, AllScores.names_of(opened), store)
    return evaluate_retrieval(read_answers(results), labels, cuts, whole=False)


def select_labels(path: str, column: str, queries: str, pattern: str) -> Labels:
    """Labels from a file, or from a regular expression searched in the texts."""
    if bool(path) == bool(pattern):
        raise SettingsError("give either --labels or --match")
    if pattern:
        return TextMatch(pattern)
    if queries and not column:
        raise SettingsError("--query-labels needs --column: name the column that holds the labels")
    return read_labels(path, column, queries)


def save(facts: ParsedJson, path: str) -> None:
    """Write figures as JSON, whole or not at all."""
    file = Path(path)
    if file.suffix != ".json":
        raise SettingsError(f"{path}: figures are written as .json")
    with whole_file(file) as hidden:
        hidden.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _parse_range(text: str) -> slice:
    """ "80:100" as a slice; "" as all."""
    if not text:
        return slice(None)
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, last)):
        raise SettingsError(f"--subsets {text}: name them as FROM:TO, such as 80:100")
    return slice(int(first) if first else None, int(last) if last else None)


def _select_subsets(outcomes: Array, chosen: slice) -> Array:
    """Select subsets, which are the second-last axis, or the only one."""
    if outcomes.ndim == 1:
        return outcomes[chosen]
    selected: Array = outcomes[..., chosen, :]
    return selected
