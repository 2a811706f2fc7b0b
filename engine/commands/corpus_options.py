"""Options that say how a corpus or queries are read. Knows no command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from .options import method_names, options

if TYPE_CHECKING:
    from ..data.conversations import Turns
    from ..data.documents import Template
    from ..ingest.text_settings import TextSettings


@dataclass(frozen=True, kw_only=True)
class FieldArguments:
    """Values of `FIELDS`."""

    text_template: str
    prompt_template: str
    completion_template: str
    response: str | None
    turns: Turns | None
    on_error: Literal["fail", "skip"] = "fail"

    @property
    def template(self) -> Template:
        """How a record becomes text."""
        from ..data.documents import Template

        return Template(self.text_template, self.prompt_template, self.completion_template, self.response, self.turns)

    @property
    def query_text(self) -> TextSettings:
        """How queries are read."""
        from ..ingest.text_settings import TextSettings

        return TextSettings(self.template, self.on_error)


FIELDS = options(
    click.option(
        "--text-template",
        "text_template",
        default="",
        metavar="TEMPLATE",
        help="A record's text, with its fields in braces: '{title}: {body}'.",
    ),
    click.option(
        "--prompt-template",
        "prompt_template",
        default="",
        metavar="TEMPLATE",
        help="A record's prompt, with its fields in braces: '{question}\\n'.",
    ),
    click.option(
        "--completion-template",
        "completion_template",
        default="",
        metavar="TEMPLATE",
        help="A record's completion, with its fields in braces: '{answer}'.",
    ),
    click.option(
        "--response",
        type=click.Choice(["chosen", "rejected"]),
        default=None,
        help="Which answer of a preference pair is read.",
    ),
    click.option(
        "--turns",
        type=click.Choice(["last", "all"]),
        default=None,
        help="Whether the last answer of a conversation is a target, or all of them. [default: last]",
    ),
)
CORPUS = options(
    click.argument("corpus", nargs=-1, required=True),
    click.option("--store", required=True, metavar="DIR", help="Folder of the store; created if it does not exist."),
    click.option("--model", default="", metavar="PATH", help="Model: folder, hub id or GGUF file of a causal LM, or adapter."),
    click.option("--method", "methods", multiple=True, metavar="NAME",
                 shell_complete=method_names,
                 help="Attribution method; several of them are stored in one forward pass. [default: the store's, or rise]"),
    click.option("--set", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="A setting of a method, such as rise.tau 1.0."),
    click.option("--seeds", type=click.IntRange(1), default=1, show_default=True,
                 help="Number of seeds, each with a sketch of every method: members NAME, NAME@1, …; `attribute --members all` "
                 "then gives standard errors."),
    click.option("--base", default="", metavar="PATH", help="Model of the member (NAME@MEMBER), in place of "
                 "the store's own: another checkpoint with the same tokenizer. [default: the recorded one]"),
    FIELDS,
    click.option("--max-length", type=int, metavar="TOKENS", help="Tokens of the longest example; longer texts are split. "
                 "[default: the model's context, at most 1024]"),
    click.option("--targets", "attribute", type=click.Choice(["completion", "all"]), default=None,
                 help="Tokens whose loss counts, if an example has a prompt: the completion's, or all. [default: completion]"),
    click.option("--boundary", type=click.Choice(["joined", "apart", "auto"]), default=None,
                 help="Tokenise a prompt and its completion joined as one text, or apart; auto: apart if that clearly lowers the "
                 "model's loss, otherwise joined. "
                 "[default: auto for a new store, else the store's]"),
    click.option("--truncate", is_flag=True, default=None,
                 help="Truncate examples with a prompt that are too long, the prompt first."),
    click.option("--lines", is_flag=True, default=None,
                 help="In plain text, one document per line instead of per paragraph."),
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="Whether a bad record is an error, or is skipped and counted."),
    click.option("--no-text", is_flag=True, default=None,
                 help="Store neither texts nor token ids, only ids, file names and line numbers."),
    click.option("--no-tokens", is_flag=True, default=None,
                 help="Store no token ids; a fit then tokenises the stored texts again."),
    click.option("--keep", multiple=True, metavar="COLUMN", help="Column of the corpus to store as text beside each example, for "
                 "--by, --quota, --where; meta.topic is a field in an object. Several may be given."),
    click.option("--append", is_flag=True, help="Add new files to an existing store."),
    click.option("--batch-tokens", type=click.IntRange(1), metavar="N",
                 help="Tokens per batch, padding included. [default: 4096, or fewer to fit --memory]"),
    click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
                 help="Seconds between commits; a kill loses at most this much work."),
)  # fmt: skip
QUERY_FIELDS = options(
    FIELDS,
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="Whether a bad record is an error, or is skipped and counted."),
)  # fmt: skip
