"""The table and the picture of `compare.py`: a row a method, a column a task. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

ALSO = {"facts": "recall@10"}
"""A second figure of a task, told after the first."""


def value(line: dict[str, Any]) -> float:
    """The figure; NaN where it is not defined, as where a method scores all examples alike."""
    value = line["figure"]["value"]
    return math.nan if value is None else float(value)


def show(figures: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """A row a method, a column a task; then what each took on the first task; then what was noise's ceiling."""
    rows = []
    for label in dict.fromkeys(line["method"] for line in figures):
        own = [line for line in figures if line["method"] == label]
        first = next(line for line in own if "bytes" in line)
        cells = [cell([line for line in own if line["task"] == name]) for name in names]
        took = [f"{first['bytes']:,}", f"{first['build']:.0f}", f"{first['query']:.0f}", f"{first['peak'] / 1e6:.0f}"]
        rows.append([label, *cells, *took])
    text = machine.markdown(["method", *names, "bytes a row", "build CPU s", "query CPU s", "peak MB"], rows)
    ceilings = {line["task"]: line["ceiling"] for line in figures if line["ceiling"]}
    return (
        text
        + "".join(f"\n\n{name}: noise allows {ceiling:.3f}." for name, ceiling in ceilings.items())
        + compared_with_rapidin(figures)
    )


def compared_with_rapidin(figures: Sequence[dict[str, Any]]) -> str:
    """RISE's bytes beside those of RapidIn, at equal quality: RISE's smallest form that is as good on the backdoor task."""
    own = {label: [line for line in figures if (line["task"], line["method"]) == ("backdoor", label)]
           for label in dict.fromkeys(line["method"] for line in figures)}  # fmt: skip
    mean = {label: float(np.mean([value(line) for line in lines])) for label, lines in own.items() if lines}
    size = {label: next(line["bytes"] for line in lines if "bytes" in line) for label, lines in own.items() if lines}
    if "rapidin" not in mean or not any(label.startswith("rise") for label in mean):
        return ""
    told = ["\n\nBytes of an example on the backdoor task, beside those of RapidIn (± two standard errors over seeds):"]
    for label in (one for one in mean if one.startswith("rise") or one in ("logra", "trackstar")):
        ratio, gap = size["rapidin"] / size[label], mean[label] - mean["rapidin"]
        told.append(
            f"* {label}: {size[label]:,}, {ratio:.1f} × fewer, average precision {gap:+.3f} ± {_noise(own, label):.3f}"
        )
    equal = [
        label for label in mean if label.startswith("rise") and mean[label] >= mean["rapidin"] - _noise(own, label)
    ]
    best = min(equal, key=size.__getitem__, default="")
    ratio = size["rapidin"] / size[best] if best else math.nan
    told.append(
        f"\nAt equal quality (not below by more than two standard errors over seeds): {best or 'none'}, {ratio:.0f} × fewer."
    )
    return "\n".join(told)


def _noise(own: dict[str, list[dict[str, Any]]], label: str) -> float:
    """Two standard errors of the difference from RapidIn over seeds; nothing where there is one seed."""
    values = {name: {line["seed"]: value(line) for line in own[name]} for name in (label, "rapidin")}
    gaps = [values[label][seed] - values["rapidin"][seed] for seed in values[label] if seed in values["rapidin"]]
    return 2 * float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0


def cell(lines: Sequence[dict[str, Any]]) -> str:
    """Of several seeds the mean and the range; of one its interval."""
    if not lines:
        return ""
    values = [value(line) for line in lines]
    if math.isnan(values[0]):
        return "not defined"
    if len(lines) > 1:
        return f"{np.mean(values):.3f} ({min(values):.2f} to {max(values):.2f})"
    (only,) = lines
    more = f"; {only['means'][ALSO[only['task']]]['value']:.2f}" if only["task"] in ALSO else ""
    return f"{values[0]:.3f} ({only['figure']['low']:.2f} to {only['figure']['high']:.2f}){more}"


def draw(figures: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    """The same as a picture: a panel a task."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(line["method"] for line in figures))
    figure = Figure(figsize=(3.6 * len(names) + 1.5, 0.32 * len(labels) + 1.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True):
        for at, label in enumerate(labels):
            own = [value(line) for line in figures if line["method"] == label and line["task"] == name]
            if own:
                axis.barh(at, np.mean(own), color="#4878a8")
                axis.plot(own, [at] * len(own), "o", color="#d08030", markersize=3)
        axis.set(title=name, yticks=range(len(labels)))
        axis.set_yticklabels(labels)
        axis.invert_yaxis()
    figure.savefig(path, dpi=150)
