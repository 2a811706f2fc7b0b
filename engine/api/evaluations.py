"""Evaluations from arrays or files, as `hw.evaluate`: figures that show and plot themselves. Computes nothing itself.

figures = hw.evaluate.lds(scores, masks, outcomes)
figures.plot("lds.png")
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..evaluation.agreement import Agreement, evaluate_lds, evaluate_subsets
from ..evaluation.labels import Labels, RelevantIds, RelevantPairs
from ..evaluation.mask_files import read_masks
from ..evaluation.rankings import AllScores
from ..evaluation.removal import Removal
from ..evaluation.removal import brittleness as evaluate_brittleness
from ..evaluation.retrieval import CUTS, Ranking, Retrieval, evaluate_retrieval
from ..results.example_ids import require_known_ids
from .arguments import PathLike, array_of, at_least, checked
from .attributions import Attributions
from .display import table_html, table_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

__all__ = ["Evaluation", "brittleness", "lds", "retrieval", "subsets"]


class Evaluation:
    """Figures of one evaluation; `figures` is the result with all of them."""

    def __init__(self, figures: Agreement | Retrieval | Removal) -> None:
        self.figures = figures

    def facts(self) -> ParsedJson:
        """All figures as JSON values."""
        return self.figures.facts()

    @property
    def value(self) -> float:
        """The main figure: the mean LDS or correlation, the mean average precision, or the rise of the loss."""
        estimates = self._estimates()
        if isinstance(self.figures, Retrieval):
            return float(next(own for name, own in estimates.items() if name.startswith("average precision")).value)
        return float(next(iter(self._estimates().values())).value)

    def plot(self, path: PathLike | None = None) -> Figure:
        """Draw the figures with matplotlib; with a path, write them there as .png, .svg or .pdf.

        Raises:
            SettingsError: matplotlib is missing, or the suffix is another one.
        """
        from ..presentation.plots import figure_of, refuse_plot, save_plot

        if path is not None:
            refuse_plot(str(path))
        figure = figure_of(self.figures)
        if path is not None:
            save_plot(figure, str(path))
        return figure

    def _estimates(self) -> Mapping[str, Any]:
        if isinstance(self.figures, Retrieval):
            return self.figures.means()
        if isinstance(self.figures, Removal):
            return {"rise of the loss (nats)": self.figures.rise, "beyond chance removals": self.figures.beyond}
        return {self.figures.measure.upper(): self.figures.mean, "chance (subsets shuffled)": self.figures.shuffled}

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [name, f"{own.value:.4f}", f"{own.low:.4f} to {own.high:.4f}", str(own.count)]
            for name, own in self._estimates().items()
        ]
        if isinstance(self.figures, Agreement) and np.isfinite(self.figures.ceiling):
            rows.append(["noise ceiling", f"{self.figures.ceiling:.4f}", "", ""])
        return ["metric", "value", "95 %", "queries"], rows

    def __repr__(self) -> str:
        return table_text(*self._cells())

    def _repr_html_(self) -> str:
        return table_html(*self._cells())


@checked
def lds(
    scores: Any, masks: Any, outcomes: Any, *, outcome: Literal["loss", "gain"] = "loss", resamples: int = 1000
) -> Evaluation:
    """The linear datamodelling score (Park et al. 2023, definition 2.3): do scores predict what training on subsets does?

    scores: (Q, N), as `Store.scores` returns them, or the path of an export. masks: (S, N), which examples each subset has.
    outcomes: (S, Q) or (seeds, S, Q), losses of the queries after training on each. Paths may stand for each.

    Raises:
        DataError: shapes do not match, or there are fewer than three subsets.

    >>> import numpy as np
    >>> scores, masks = store.scores("questions.jsonl"), np.random.default_rng(0).random((20, len(store))) < 0.5
    >>> losses = -(masks @ scores.T)
    >>> figures = hw.evaluate.lds(scores, masks, losses)
    >>> round(figures.value, 2)
    1.0
    """
    at_least("lds", resamples=(resamples, 1))
    _require_finite(outcomes, "outcomes")
    return Evaluation(
        evaluate_lds(array_of(scores, "scores"), _masks(masks), array_of(outcomes, "outcomes"), outcome, resamples)
    )


@checked
def subsets(
    predicted: Any, outcomes: Any, *, outcome: Literal["loss", "gain"] = "loss", resamples: int = 1000
) -> Evaluation:
    """Rank correlation of predicted utilities (S,) or (S, tasks) with outcomes (S,), (S, tasks) or (seeds, S, tasks)."""
    at_least("subsets", resamples=(resamples, 1))
    return Evaluation(
        evaluate_subsets(array_of(predicted, "predictions"), array_of(outcomes, "outcomes"), outcome, resamples)
    )


@checked
def brittleness(outcomes: Any) -> Evaluation:
    """How much losses rise without the best examples, from the outcomes of `headwater ground-truth --without`."""
    return Evaluation(evaluate_brittleness(array_of(outcomes, "outcomes")))


@checked
def retrieval(answers: Any, relevant: Any) -> Evaluation:
    """Precision, recall and average precision of answers (:class:`Attributions`).

    relevant: ids of the relevant examples of every query; or a dict of the query's id → ids.

    Raises:
        DataError: there is no query with a relevant example.

    >>> answers = store.attribute("questions.jsonl", top=5)
    >>> hw.evaluate.retrieval(answers, relevant=["corpus.jsonl:4", "corpus.jsonl:9"]).facts()["queries"]
    ['questions.jsonl:1', 'questions.jsonl:2']
    """
    if not isinstance(answers, Attributions):
        raise SettingsError(f"retrieval: answers is {type(answers).__name__}, expected what Store.attribute returns")
    listed = [relevant] if not isinstance(relevant, dict) else list(relevant.values())
    if any(isinstance(ids, str) or not isinstance(ids, Iterable) for ids in listed):
        raise SettingsError("retrieval: relevant is a list of ids, or a dict of a query's id → list of ids")
    labelled = [name for ids in listed for name in ids]
    if any(not isinstance(name, str) for name in labelled):
        raise SettingsError("retrieval: relevant are ids, which are texts: store[row].id is that of a row number")
    store = FeatureStore.open(answers.origin.store)
    require_known_ids(labelled, set(AllScores.names_of(store)), "relevant", store)
    if isinstance(relevant, dict):
        labels: Labels = RelevantPairs({query: frozenset(map(str, ids)) for query, ids in relevant.items()})
    else:
        labels = RelevantIds([str(name) for name in relevant])
    rankings = [Ranking(answer.id, answer.ids, answer.texts, np.array(answer.scores, np.float32)) for answer in answers]
    return Evaluation(evaluate_retrieval(rankings, labels, CUTS, whole=False))


def _masks(value: Any) -> Array:
    """Masks (S, N) of 0 and 1 that differ between subsets.

    Raises:
        DataError: they are something else.
    """
    masks = read_masks(str(value)) if isinstance(value, PathLike) else array_of(value, "masks")
    if masks.ndim != 2 or not ((masks == 0) | (masks == 1)).all():
        raise DataError(f"masks {masks.shape} are (subsets, examples) of 0 and 1")
    if len(masks) and (masks == masks[:1]).all():
        raise DataError("masks are the same for every subset: no outcome can depend on them")
    return masks


def _require_finite(value: Any, name: str) -> None:
    """Raise DataError if an array holds NaN or infinite numbers."""
    if not np.isfinite(array_of(value, name)).all():
        raise DataError(f"{name} hold NaN or infinite numbers: leave these subsets out")
