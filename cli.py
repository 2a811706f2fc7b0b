"""The command line: collects the commands and turns errors into one line. Knows nothing of how anything is computed.

Commands are in engine/commands. Only click is imported there and here; a command imports what it needs when it runs, so that
`--help` and `methods` answer at once.
Every error of ours becomes one line in one place, :class:`_Commands`. Exit codes: 0 done, 1 our error, 2 usage, 130 stopped.
"""

from __future__ import annotations

from typing import Any

import click

from .engine.commands import attribution as ask
from .engine.commands import evaluation as prove
from .engine.commands import fit, ingest
from .engine.commands import selection as choose
from .engine.commands import stores as keep
from .store.errors import HeadwaterError


class _Commands(click.Group):
    """A group that turns headwater's errors, and nobody else's, into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadwaterError as error:
            line = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
            click.echo(f"error: {line}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="headwater")
def main() -> None:
    """Trace what a language model does back to the training examples that caused it.

    \b
    headwater demo
    headwater ingest corpus.jsonl --store S --model MODEL
    headwater attribute S --queries questions.jsonl
    """


@main.group()
def plan() -> None:
    """What a run would take; answers nothing and writes nothing."""


@main.command()
@click.option(
    "--workdir", default="demo", show_default=True, metavar="DIR", help="Where the corpus, model and store are kept."
)
@click.option("--short", is_flag=True, help="A smaller model and corpus: a minute, and weaker answers.")
def demo(workdir: str, short: bool) -> None:
    """The whole job, offline: a corpus, a model trained on it, a store, and answers. Minutes on two cores."""
    from .engine.demo.tour import tour

    # The dense residual weighed by its own norm: on a model this small and unsure it points to the right module in 65 of
    # 100 questions, where RISE's published temperature of 0.1 and unit norms do in 49.
    tour(workdir, "rise", short, {"kr": 96, "kh": 64, "kg": 32, "tau": 1.0, "floor": 1.0})


for _command in (ingest.ingest, fit.fit, ask.attribute, ask.value, ask.self_influence, keep.compress, keep.methods, keep.info,
                 keep.verify, keep.upgrade, prove.ground_truth, prove.evaluate, choose.predict, choose.calibrate,
                 choose.select):  # fmt: skip
    main.add_command(_command)
plan.add_command(ingest.plan_ingest)
plan.add_command(fit.plan_fit)
plan.add_command(ask.plan_attribute)
