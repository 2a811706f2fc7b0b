"""Plots of evaluations: LDS by query, retrieval metrics, precision against recall, score histograms; PNG, SVG or PDF.

matplotlib is an extra (`headwater[plot]`). Draws results; computes no metric.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...store.errors import SettingsError
from ...store.layout import Array
from ..evaluation.agreement import Agreement
from ..evaluation.removal import Removal
from ..evaluation.retrieval import Retrieval, precision_recall_curve
from ..runtime.output_files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")


def refuse_plot(path: str) -> None:
    """Raise SettingsError if a plot cannot be written to `path` (suffix, matplotlib); called before anything is computed."""
    if Path(path).suffix not in SUFFIXES:
        raise SettingsError(f"{path}: plots can only be written as {', '.join(SUFFIXES)}")
    require_matplotlib()


def require_matplotlib() -> None:
    """Raise SettingsError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SettingsError("plots need matplotlib: pip install 'headwater[plot]'") from None


def figure_of(figures: Agreement | Retrieval | Removal) -> Figure:
    """Draw the figures of an evaluation.

    Raises:
        SettingsError: matplotlib is missing.
    """
    require_matplotlib()
    if isinstance(figures, Agreement):
        return _agreement_figure(figures)
    return _retrieval_figure(figures) if isinstance(figures, Retrieval) else _removal_figure(figures)


def draw(figures: Agreement | Retrieval | Removal, path: str) -> None:
    """Draw the figures of an evaluation into a file."""
    save_plot(figure_of(figures), path)


def _agreement_figure(agreement: Agreement) -> Figure:
    """Draw a histogram of the queries' correlations with their mean, its interval and the noise ceiling."""
    figure, axes = _figure(1)
    values, (axis,) = agreement.each[np.isfinite(agreement.each)], axes
    axis.hist(values, bins=min(40, max(5, len(values) // 4)), range=(-1, 1), color="#4878a8")
    axis.axvspan(agreement.mean.low, agreement.mean.high, color="#d08030", alpha=0.3, label="95 % of the mean")
    axis.axvline(agreement.mean.value, color="#d08030", label=f"mean {agreement.mean.value:.3f}")
    axis.axvline(
        agreement.shuffled.value, color="grey", linestyle=":", label=f"shuffled {agreement.shuffled.value:.3f}"
    )
    if np.isfinite(agreement.ceiling):
        axis.axvline(agreement.ceiling, color="black", linestyle="--", label=f"ceiling {agreement.ceiling:.3f}")
    axis.set(
        xlabel=f"{agreement.measure.upper()} of a query (Spearman over {agreement.subsets} subsets)", ylabel="queries"
    )
    axis.legend(frameon=False)
    return figure


def _retrieval_figure(retrieval: Retrieval) -> Figure:
    """Draw means with their intervals, the precision-recall curve, and score histograms of relevant and other examples."""
    figure, (bars, line, scores) = _figure(3)
    means = [(name, estimate) for name, estimate in retrieval.means().items() if estimate.count]
    positions = np.arange(len(means))
    low = [max(0.0, estimate.value - estimate.low) for _, estimate in means]
    high = [max(0.0, estimate.high - estimate.value) for _, estimate in means]
    bars.barh(
        positions,
        [estimate.value for _, estimate in means],
        xerr=[low, high],
        color="#4878a8",
        error_kw={"ecolor": "#333333"},
    )
    bars.set_yticks(positions, [name for name, _ in means])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.02), xlabel=f"mean over {len(retrieval.queries)} queries, 95 %")
    line.plot(*precision_recall_curve(retrieval), color="#d08030")
    line.axhline(
        float(np.mean([hits.mean() for hits in retrieval.hits])),
        color="grey",
        linestyle=":",
        label="chance",
    )
    line.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    line.legend(frameon=False)
    all_scores, hits = np.concatenate(retrieval.scores), np.concatenate(retrieval.hits)
    edges = _edges(all_scores)
    for mask, colour, label in ((~hits, "grey", "all others"), (hits, "#d08030", "relevant")):
        scores.hist(all_scores[mask], edges, density=bool(mask.any()), color=colour, alpha=0.6, label=label)
    scores.set(xlabel="score", ylabel="density")
    scores.legend(frameon=False)
    return figure


def _edges(values: Array) -> list[float]:
    """(41,) edges of 40 bins; the range is widened if all values are equal up to rounding."""
    values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    min_half_width = max(1e-6 * max(abs(low), abs(high)), 1e-12)
    middle = (low + high) / 2
    edges = np.linspace(min(low, middle - min_half_width), max(high, middle + min_half_width), 41)
    return [float(edge) for edge in edges]


def _removal_figure(removal: Removal) -> Figure:
    """Draw a histogram of the rises of queries' losses without their top examples, and without random ones."""
    figure, (axis,) = _figure(1)
    edges = _edges(np.concatenate([removal.rises, removal.by_chance]))
    axis.hist(removal.by_chance, edges, density=True, color="grey", alpha=0.6, label="random examples left out")
    axis.hist(removal.rises, edges, density=True, color="#d08030", alpha=0.6, label="top examples left out")
    axis.set(xlabel="rise of a query's loss (nats)", ylabel="density")
    axis.legend(frameon=False)
    return figure


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` plots side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * count, 4.2), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def save_plot(figure: Figure, path: str) -> None:
    """Write a figure, completely or not at all. Raises StoreFull, SettingsError."""
    file = Path(path)
    with whole_file(file) as hidden:
        figure.savefig(hidden, format=file.suffix.removeprefix("."), dpi=150)
