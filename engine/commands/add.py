"""`add`: adds methods to a store from what it keeps. Knows nothing of how rows are made."""

from __future__ import annotations

from dataclasses import dataclass

import click

from .fit import FitArguments, check_settings, fit_now, subset_methods_among
from .grouped_help import command
from .ingest import run_ingestion
from .options import MODEL_PATH, RUN, RunArguments, command_of, method_settings


@dataclass(frozen=True, kw_only=True)
class AddArguments(RunArguments):
    """Arguments of `add`."""

    store: str
    methods: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    seeds: int
    base: str
    batch_tokens: int | None
    commit_seconds: float

    def fit(self, method: str) -> FitArguments:
        """Arguments of `fit` for one of the methods, a subset method."""
        settings = tuple((key, value) for key, value in self.settings if key.rpartition(".")[0] == method)
        return FitArguments(
            store=self.store, method=method, settings=settings, base=self.base, commit_seconds=self.commit_seconds,
            model=self.model, memory=self.memory, device=self.device, dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )  # fmt: skip


@command()
@click.argument("store")
@click.argument("methods", nargs=-1, metavar="METHOD...", required=True)
@click.option("--set", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
              help="A setting of a method, such as rise.tau 1.0.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True,
              help="Number of seeds, each with a sketch of every method: members NAME, NAME@1, …; `attribute --members all` "
              "then gives standard errors.")  # fmt: skip
@click.option("--base", default="", metavar="PATH", help="Model of the member (NAME@MEMBER), in place of the "
              "store's own: another checkpoint with the same tokenizer. [default: the recorded one]")  # fmt: skip
@MODEL_PATH
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N",
              help="Tokens per batch, padding included. [default: 4096, or fewer to fit --memory]")  # fmt: skip
@click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
              help="Seconds between commits; a kill loses at most this much work.")  # fmt: skip
@RUN
@command_of(AddArguments)
def add(arguments: AddArguments) -> None:
    """Add METHODS to a store from what it keeps.

    No corpus is read: the store's token ids, or its texts, go through the model again. Running it again continues where it
    stopped. A method that is fitted, such as stride, is fitted.

    \b
    headwater add S graddot
    headwater add S logra stride --set stride.subsets 300
    headwater add S rise@early --base ./early-checkpoint
    """
    from ..ingest.ingest_job import IngestJob, prepare
    from ..runtime.run import Run

    a = arguments
    fitted = subset_methods_among(a.methods)
    settings = method_settings(a.methods, a.settings)
    for name in fitted:
        check_settings(name, settings[name], "")  # only for its errors, before anything is stored
    stored = {name: own for name, own in settings.items() if name not in fitted}
    if stored:
        job = IngestJob([], a.store, a.model_choice, stored, batch_tokens=a.batch_tokens, seeds=a.seeds, base=a.base,
                        commit_seconds=a.commit_seconds)  # fmt: skip
        run_ingestion(prepare(job, Run(a.budget)))
    for name in fitted:
        fit_now(a.fit(name))
