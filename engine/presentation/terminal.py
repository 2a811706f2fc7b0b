"""Store contents, examples and memory plans for a terminal. Knows no method and computes nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from ...store.json_values import JsonFields, ParsedJson
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..results.printable import printable
from ..results.shown_examples import ShownExample
from ..runtime.memory import Plan, resident_bytes, show_bytes
from ..runtime.progress import clock


def print_method(facts: ParsedJson) -> None:
    """Print the facts of a method's `description`."""
    size = facts["bytes_per_example"]
    lines = [
        f"{facts['name']}  ({facts['distribution']})",
        *_indented(facts["about"]),
        *_indented(facts["use"]),
        "",
        f"  kind      {facts['kind']}",
        f"  needs     {'; '.join(facts['needs'])}",
        *(
            []
            if size is None
            else [f"  stores    {show_bytes(size)} per example, of a model of 24 layers, width 1,024"]
        ),
        "",
        "  settings (--set NAME.SETTING VALUE)",
    ]
    for setting in facts["settings"]:
        lines += [f"    {setting['name']:<14} {setting['default']!s}", *_indented(setting["about"], 19)]
    print(printable("\n".join(lines)))


def _indented(text: str, columns: int = 2) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=" " * columns, subsequent_indent=" " * columns)


def print_info(facts: ParsedJson) -> None:
    """Print the facts of :func:`store_facts`."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)

    def show(line: str) -> None:
        console.print(printable(line))

    provenance = facts["provenance"]
    state = "complete" if facts["complete"] else f"unfinished: run {facts['to_finish']} to continue"
    show(f"{facts['store']}: {facts['examples']:,} examples, {state}; written by headwater {facts['version']}")
    for line in _corpus_lines(provenance, facts["mean_loss"]):
        show(line)
    for name, method in facts["methods"].items():
        for line in _method_lines(name, method, facts["examples"]):
            show(line)
    for name, record in facts["fits"].items():
        show(_fit_line(name, record))


def _corpus_lines(provenance: ParsedJson, mean_loss: float | None) -> Iterator[str]:
    """Lines about the model, the corpus, and how it was read."""
    yield f"model      {provenance.get('model_path', 'arrays') or 'an object in memory'} ({provenance['model']})"
    yield f"corpus     {', '.join(source['name'] for source in provenance['sources'])}"
    for key in ("max_length", "attribute", "truncate", "boundary", "clock", "text"):
        if provenance.get(key) is not None:
            yield f"{key:<10} {provenance[key]}"
    for field, template in provenance.get("template", {}).items():
        if template:
            yield f"template   {field}: {template!r}"
    if mean_loss is not None:
        yield f"mean loss  {mean_loss:.4f} nats per target token"


def _method_lines(name: str, method: ParsedJson, examples: int) -> Iterator[str]:
    """Lines about a method's rows, and about their copies."""
    size = show_bytes(method["bytes_per_example"])
    state = "" if method["complete"] else f" of {max(method['rows'], examples):,}, unfinished:"
    settings = ", ".join(f"{key} {value}" for key, value in method["settings"].items())
    yield f"method     {name}: {method['rows']:,}{state} rows of {size}; {settings}"
    if method.get("model"):
        yield f"  model    {method['model']['path']} ({method['model']['model']})"
    if method.get("rows_after_statistics"):
        yield f"  {method['rows_after_statistics']:,} rows were appended after the corpus statistics were frozen"
    for copy, copy_facts in method["precisions"].items():
        yield f"  copy     {copy}: {copy_facts['rows']:,} rows of {show_bytes(copy_facts['bytes_per_example'])}"


def _fit_line(name: str, record: ParsedJson) -> str:
    """One line about a fit: number of subsets and examples, seed, model, and whether it is complete."""
    settings = record["settings"]
    seed = f", seed {settings['seed'] + record['draw']}" if isinstance(settings.get("seed"), int) else ""
    model = f", model {record['base']}" if record["base"] else ""
    state = "" if record["done"] else ", unfinished: run fit again to continue"
    return f"fit        {name}: {settings.get('subsets', 0):,} subsets of {record['examples']:,} examples{seed}{model}{state}"


def print_plan(plan: Plan, budget: int | None, unit: str) -> None:
    """Print the parts of a memory plan, their total, the budget, and the memory that this process now has."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column("at most", justify="right")
    for part in sorted(plan.parts, key=lambda part: -part.bytes):
        table.add_row(part.name, show_bytes(part.bytes))
    table.add_row("total", show_bytes(plan.total))
    console = Console(highlight=False)
    console.print(table)
    allowed = "no budget" if budget is None else f"budget {show_bytes(budget)}"
    console.print(
        f"{unit}; {allowed}; this process now has {show_bytes(resident_bytes())}, "
        "with the model and the libraries, which are not part of the plan"
    )


def plan_facts(plan: Plan, budget: int | None, shape: ScanShape, forecast: Forecast | None) -> JsonFields:
    """A memory plan and its forecast as JSON values."""
    return {
        "parts": {part.name: part.bytes for part in plan.parts},
        "total": plan.total,
        "budget": budget,
        "block_rows": shape.block_rows,
        "workers": shape.workers,
        "forecast": asdict(forecast) if forecast else None,
    }


def show_forecast(forecast: Forecast | None) -> str:
    """One line about a forecast: bytes to read, time, and measured rate."""
    if forecast is None:
        return "no forecast: the method does not score by inner products of stored rows"
    seconds = forecast.seconds
    duration = f"{seconds:.1f} s" if seconds < 100 else clock(seconds)
    return (f"reads {show_bytes(forecast.bytes)} in about {duration}, after the queries' forward pass "
            f"(at {show_bytes(int(forecast.rate))}/s, as measured on the first {show_bytes(forecast.sample)})")  # fmt: skip


def print_examples(examples: Iterable[ShownExample]) -> None:
    """Print examples as the model reads them: targets are highlighted on a terminal, between ⟦ and ⟧ elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for example in examples:
        console.print(f"row {example.row}  {printable(example.id)}  {printable(example.source)}:{example.line}  "
                      f"{example.tokens} tokens, {example.target_count} targets, mean loss {example.loss:.4f}")  # fmt: skip
        text = Text()
        for part, is_target in example.parts:
            shown = printable(part)
            text.append(shown if console.is_terminal or not is_target else f"⟦{shown}⟧", "bold green" * is_target)
        console.print(text, "", sep="\n")
