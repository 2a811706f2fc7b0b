"""Options that several commands share. Knows no command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click


def options(*decorators: Any) -> Callable[[Any], Any]:
    """Several as one decorator, in their order."""

    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


RUN = options(
    click.option("--memory", metavar="BYTES", help="Refuse to start if the plan exceeds this: 512MB, 2GB, 1.5GiB."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--trust-remote-code", is_flag=True, help="Run the code that ships with the model."),
)
FIELDS = options(
    click.option(
        "--text", "text_field", default="", metavar="TEMPLATE", help="Record to text, such as '{title}: {body}'."
    ),
    click.option(
        "--prompt", "prompt_field", default="", metavar="TEMPLATE", help="Record to prompt, such as '{question}\\n'."
    ),
    click.option("--completion", "completion_field", default="", metavar="TEMPLATE", help="Record to completion."),
)
READING = options(
    click.argument("corpus", nargs=-1, required=True),
    click.option("--store", required=True, metavar="DIR", help="Folder of the store; made if it is not there."),
    click.option("--model", default="", metavar="PATH", help="Folder or hub id of a causal LM, or of a LoRA adapter."),
    click.option("--method", "methods", multiple=True, default=("rise",), show_default=True, metavar="NAME",
                 help="Attribution method; several share one forward pass."),
    click.option("-o", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="A method's setting, such as -o rise.tau 1.0."),
    click.option("--seeds", type=click.IntRange(1), default=1, show_default=True,
                 help="Sketches of each method under as many seeds: `attribute --seeds` tells from them what is noise."),
    FIELDS,
    click.option("--max-length", type=int, metavar="TOKENS", help="Longest example; longer texts are cut. "
                 "[default: the model's context, at most 1024]"),
    click.option("--attribute", type=click.Choice(["completion", "all"]), default=None,
                 help="What counts in a row that has a prompt. [default: completion]"),
    click.option("--truncate", is_flag=True, default=None, help="Cut prompted rows that are too long, prompt first."),
    click.option("--lines", is_flag=True, default=None, help="In plain text, a line is a document (not a paragraph)."),
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="What a bad record does; skipped ones are counted and shown."),
    click.option("--no-text", is_flag=True, default=None, help="Keep references to the texts only; no tokens either."),
    click.option("--no-tokens", is_flag=True, default=None,
                 help="Keep no token ids: a fit then tokenises stored texts again."),
    click.option("--append", is_flag=True, help="Add files that are new to an existing store."),
    click.option("--batch-tokens", type=click.IntRange(1), metavar="N",
                 help="Padded tokens of a batch. [default: 4096, less if memory asks]"),
    click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
                 help="A kill loses at most so much work."),
)  # fmt: skip
ASKING = options(
    click.argument("store"),
    click.option("--method", default="rise", show_default=True, metavar="NAME", help="Method whose rows are asked."),
    click.option("--queries", required=True, metavar="FILE", help="Queries, in any corpus format."),
    click.option("--model", default="", metavar="PATH", help="Where the store's model is now, if it has moved."),
    FIELDS,
)
SEARCHING = options(
    click.option("--scan", "form", default="", metavar="FORM", help="Scan this form (see `headwater compress`), then score "
                 "the best candidates again as stored."),
    click.option("--candidates", type=click.IntRange(1), metavar="N", help="Rows a query that are scored again. "
                 "[default: int8, bf16: 2 K, at least 100; sign: 10 K, at least 1000]"),
    click.option("--certify", is_flag=True, help="Scan the form int8, and take the candidates that the exact answer needs."),
)  # fmt: skip
TRUSTING = options(
    click.option("--seeds", "seeded", is_flag=True, help="Ask all seeds that `ingest --seeds` stored: mean scores with their "
                 "standard error, and the ranks that noise allows."),
    click.option("--by", default="", metavar="COLUMN", help="Add scores up by `source`, or by a column of --columns."),
    click.option("--columns", default="", metavar="FILE", help="Table of the examples' id and COLUMN, such as the corpus."),
)  # fmt: skip
TELLING = options(
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
    click.option("-o", "--output", metavar="FILE.json", help="Write all figures, each query's too."),
    click.option("--plot", metavar="FILE", help="Draw them: .png, .svg or .pdf."),
)
OUTCOMES = options(
    click.option("--outcomes", required=True, metavar="FILE",
                 help="What training did: (subsets, queries) or (seeds, subsets, queries); .npy, .parquet or .zarr."),
    click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
                 help="A loss falls where training helps; a gain rises."),
    click.option("--subsets", default="", metavar="FROM:TO", help="Only these subsets, such as 80:100."),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Of the bootstrap."),
)  # fmt: skip


def budget(text: str | None) -> int | None:
    """What --memory says, in bytes."""
    from ..runtime.memory import parse_bytes

    return None if text is None else parse_bytes(text)


def method_settings(names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any]]:
    """Method → setting → value, of `-o NAME.SETTING VALUE`; a value that is no JSON is a string."""
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, text in pairs:
        name, dot, setting = key.partition(".")
        if not dot or name not in settings:
            raise click.UsageError(f"-o {key}: write NAME.SETTING with one of --method {', '.join(names)}")
        try:
            settings[name][setting] = json.loads(text)
        except ValueError:
            settings[name][setting] = text
    return settings
