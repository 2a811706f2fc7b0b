"""Tables of what `steering.py` measured: names and backdoor, diagnostics, settings, cost. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import compare
import machine
import numpy as np

TwoStageResult: TypeAlias = Mapping[Any, dict[str, Any]]
"""`steering.Run` → what was measured."""


def show(found: TwoStageResult, beside: Sequence[dict[str, Any]]) -> str:
    """Tables: names, backdoor, the N/K curve with diagnostics, settings one at a time, cost."""
    plain = {run: one for run, one in found.items() if not run.choice}
    return "\n\n".join(
        [
            _names(plain, beside),
            _backdoor(plain, beside),
            show_curve(plain),
            _signs(found),
            _choices(found),
            _cost(plain, beside),
        ]
    )


def _interval(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _names(found: TwoStageResult, beside: Sequence[dict[str, Any]]) -> str:
    own: dict[str, list[dict[str, Any]]] = {}
    for run, one in found.items():
        if (run.task, run.degree, run.updates) == ("lds", 10, 150):
            label = f"stride, K = {run.subsets:,}" + (f", {run.bases} bases" if run.bases > 1 else "")
            own.setdefault(label, []).append(one)
    for one in beside:
        if one["task"] == "lds":
            own.setdefault(one["method"], []).append(one)
    rows = [[label, *_over_models(lines)] for label, lines in own.items()]
    ceiling = next(one["ceiling"] for run, one in found.items() if run.task == "lds")
    header = ["names", "LDS, mean (range) over models", "of the first, 95 % over queries"]
    return machine.markdown(header, rows) + f"\n\nNoise allows {ceiling:.3f}."


def _over_models(lines: Sequence[dict[str, Any]]) -> tuple[str, str]:
    values = [compare.value(one) for one in lines]
    return ("not defined", "") if np.isnan(values).any() else (_range(values), _interval(lines[0]["figure"]))


def _backdoor(found: TwoStageResult, beside: Sequence[dict[str, Any]]) -> str:
    rows = []
    for omega in ("example", "one"):
        for subsets in sorted({run.subsets for run in found if (run.task, run.omega) == ("backdoor", omega)}):
            own = [one["figure"]["value"] for run, one in found.items()
                   if (run.task, run.omega, run.subsets) == ("backdoor", omega, subsets)]  # fmt: skip
            rows.append([f"stride, K = {subsets:,}, {'with' if omega == 'example' else 'without'} ω", _range(own)])
    for method in dict.fromkeys(one["method"] for one in beside):
        own = [compare.value(one) for one in beside if (one["task"], one["method"]) == ("backdoor", method)]
        rows.append([method, _range(own)])
    return machine.markdown(["backdoor", "average precision, mean (range) over models"], rows)


def _range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.2f} to {max(values):.2f}; {len(values)})"


def show_curve(found: TwoStageResult) -> str:
    """K, N/K, diagnostics and figures."""
    rows = []
    for run, one in sorted(
        found.items(), key=lambda item: (item[0].task, item[0].omega, item[0].subsets, item[0].updates)
    ):
        diagnostics = one["diagnostics"]
        known = [value for value in diagnostics["reliability"] if value is not None]
        agree = f"{np.median(known):.2f}" if known else ""
        sizes = [f"{run.subsets:,}", f"{diagnostics['rows'] / run.subsets:.1f}", str(run.updates), str(run.bases)]
        signs = [agree, f"{np.median(diagnostics['explained']):.2f}"]
        rows.append([f"{run.task} {run.seed}, ω {run.omega}", *sizes, *signs, f"{one['figure']['value']:.3f}"])
    header = ["run", "K", "N/K", "updates", "bases", "two fittings agree", "explained held out", "LDS or AP"]
    return machine.markdown(header, rows)


def _signs(found: TwoStageResult) -> str:
    """Rank correlations of diagnostics with figures, over all runs of a task."""
    from scipy.stats import spearmanr

    rows = []
    for task, label in (("lds", "names"), ("backdoor", "backdoor")):
        own = [(run, one) for run, one in found.items() if run.task == task and run.bases == 1]
        figures = [one["figure"]["value"] for _, one in own]
        told = {"K/N": [run.subsets for run, _ in own]}
        for sign in ("explained", "reliability"):
            told[sign] = [
                np.median([v for v in one["diagnostics"][sign] if v is not None] or [np.nan]) for _, one in own
            ]
        rows.append(
            [f"{label}, {len(own)} runs", *(f"{spearmanr(values, figures).statistic:.2f}" for values in told.values())]
        )
    return machine.markdown(
        ["rank correlation with the figure of", "K/N", "explained held out", "two fittings agree"], rows
    )


def _choices(found: TwoStageResult) -> str:
    plain = next(run for run in found if run.name == "lds-0-300-one-1")
    chosen = {run: one for run, one in found.items() if replace(run, choice="") == plain}
    rows = [[run.choice or "defaults", _interval(one["figure"]), f"{np.median(one['diagnostics']['explained']):.2f}",
             f"{one['fit']:.0f}"] for run, one in chosen.items()]  # fmt: skip
    return machine.markdown(["names, K = 300", "LDS", "explained held out", "fit, CPU s"], rows)


def _cost(found: TwoStageResult, beside: Sequence[dict[str, Any]]) -> str:
    rows = [[f"{run.task}: stride, K = {run.subsets:,}", f"{one['fit']:.0f}", f"{one['query']:.0f}", f"{one['peak'] / 1e6:.0f}"]
            for run, one in found.items() if run.seed == 0 and run.bases == 1 and run.updates == 150]  # fmt: skip
    rows += [[f"{one['task']}: {one['method']}", f"{one['build']:.0f}", f"{one['query']:.0f}", f"{one['peak'] / 1e6:.0f}"]
             for one in beside if "build" in one and one["method"] in ("logra", "trak", "headgn")]  # fmt: skip
    return machine.markdown(["of the same corpus", "fit or ingest, CPU s", "query, CPU s", "peak MB"], rows)
