"""Figures drawn of an evaluation: LDS of each query; figures of retrieval, precision against recall, scores. PNG, SVG or PDF.

matplotlib is an extra (`headwater[plot]`). Knows results; computes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import SettingsError
from ...store.layout import Array
from ..evaluation.agreement import Agreement
from ..evaluation.removal import Removal
from ..evaluation.retrieval import Retrieval, precision_recall_curve

SUFFIXES = (".png", ".svg", ".pdf")


def refuse_picture(path: str) -> None:
    """Raise SettingsError where a picture cannot be drawn there, before anything is computed."""
    if Path(path).suffix not in SUFFIXES:
        raise SettingsError(f"{path}: pictures are {', '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SettingsError("pictures need matplotlib: pip install 'headwater[plot]'") from None


def draw_agreement(found: Agreement, path: str) -> None:
    """Correlations of all queries as a histogram, with their mean, its interval and the ceiling."""
    figure, axes = _figure(1)
    values, (axis,) = found.each[np.isfinite(found.each)], axes
    axis.hist(values, bins=min(40, max(5, len(values) // 4)), range=(-1, 1), color="#4878a8")
    axis.axvspan(found.mean.low, found.mean.high, color="#d08030", alpha=0.3, label="95 % of the mean")
    axis.axvline(found.mean.value, color="#d08030", label=f"mean {found.mean.value:.3f}")
    axis.axvline(found.shuffled.value, color="grey", linestyle=":", label=f"shuffled {found.shuffled.value:.3f}")
    if np.isfinite(found.ceiling):
        axis.axvline(found.ceiling, color="black", linestyle="--", label=f"ceiling {found.ceiling:.3f}")
    axis.set(xlabel=f"{found.measure.upper()} of a query (Spearman over {found.subsets} subsets)", ylabel="queries")
    axis.legend(frameon=False)
    _save(figure, path)


def draw_retrieval(found: Retrieval, path: str) -> None:
    """Means with their intervals, precision against recall, and how scores of relevant examples lie among the others'."""
    figure, (bars, line, scores) = _figure(3)
    means = [(name, one) for name, one in found.means().items() if one.count]
    at = np.arange(len(means))
    low = [max(0.0, one.value - one.low) for _, one in means]
    high = [max(0.0, one.high - one.value) for _, one in means]
    bars.barh(at, [one.value for _, one in means], xerr=[low, high], color="#4878a8", error_kw={"ecolor": "#333333"})
    bars.set_yticks(at, [name for name, _ in means])
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.02), xlabel=f"mean over {len(found.queries)} queries, 95 %")
    line.plot(*precision_recall_curve(found), color="#d08030")
    line.axhline(
        float(np.mean([hits.mean() for hits in found.hits])),
        color="grey",
        linestyle=":",
        label="mixed up, of what was ranked",
    )
    line.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    line.legend(frameon=False)
    every, hits = np.concatenate(found.scores), np.concatenate(found.hits)
    edges = _edges(every)
    for chosen, colour, label in ((~hits, "grey", "all others"), (hits, "#d08030", "relevant")):
        scores.hist(every[chosen], edges, density=bool(chosen.any()), color=colour, alpha=0.6, label=label)
    scores.set(xlabel="score", ylabel="density")
    scores.legend(frameon=False)
    _save(figure, path)


def _edges(values: Array) -> Array:
    """Of 40 bins; around values that differ by their rounding at most, of a wider range."""
    values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    least = max(1e-6 * max(abs(low), abs(high)), 1e-12)
    middle = (low + high) / 2
    return np.linspace(min(low, middle - least), max(high, middle + least), 41)


def draw_removal(found: Removal, path: str) -> None:
    """How much every query's loss rose without its best examples, beside what taking away others did."""
    figure, (axis,) = _figure(1)
    edges = _edges(np.concatenate([found.rises, found.by_chance]))
    axis.hist(found.by_chance, edges, density=True, color="grey", alpha=0.6, label="others taken away")
    axis.hist(found.rises, edges, density=True, color="#d08030", alpha=0.6, label="its best taken away")
    axis.set(xlabel="rise of a query's loss (nats)", ylabel="density")
    axis.legend(frameon=False)
    _save(figure, path)


def _figure(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * count, 4.2), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def _save(figure: Any, path: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from None
