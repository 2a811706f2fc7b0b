"""Whether a method's rows are all there: refuses unfinished ones, or says how many rows of how many there are. Knows no query and
no score.

A run that was killed or stopped, or an append that is not at its end, leaves a store that holds fewer rows than it will. Scores
over these rows are right, but the best of them may not be the best of the corpus.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from .errors import StoreMissing
from .feature_store import EXAMPLES, FeatureStore, method_group


def is_whole(store: FeatureStore, method: str = "") -> bool:
    """Whether the corpus was read to its end and, with `method`, whether the method has a row for each example.

    Raises:
        StoreMissing: the store has no rows of the method. DataError: the method's name cannot be one in a store.
    """
    whole = EXAMPLES in store.groups and store.is_complete(EXAMPLES)
    if not method:
        return whole
    group = method_group(method)
    rows = store.rows(group)
    if EXAMPLES not in store.groups:  # rows that were written without a corpus
        return store.is_complete(group)
    return whole and store.is_complete(group) and rows == store.rows(EXAMPLES)


def require_whole(store: FeatureStore, method: str = "", *, partial: bool = False) -> list[str]:
    """Refuse to answer from a part of a method's rows (or of the examples, without `method`), unless `partial`.

    Returns notes for the user: none if all rows are there, else one that says how many of how many are.

    Raises:
        StoreMissing: rows are missing, and not `partial`; the message names the command that adds them.
    """
    if is_whole(store, method):
        return []
    count = _count(store, method)
    if partial:
        return [f"partial: the store has {count}; scores are of these alone"]
    raise StoreMissing(
        f"{store.url} is unfinished, it has {count}",
        hint=f"run {finishing_command(store, method)} to continue, or use what is there with --partial",
    )


def _count(store: FeatureStore, method: str) -> str:
    """How many rows of how many there are, in words."""
    examples = store.rows(EXAMPLES) if EXAMPLES in store.groups else 0
    read = is_whole(store)
    if not method:
        return f"{examples:,} examples of a corpus that was not read to its end"
    rows = store.rows(method_group(method))
    end = "" if read else " read so far, of a corpus that was not read to its end"
    return f"rows of {method} for {rows:,} of {max(rows, examples):,} examples{end}"


def rows_missing(store: FeatureStore) -> list[str]:
    """Notes on methods that have fewer rows than the store has examples, with the command that adds them."""
    if not is_whole(store):
        return []
    behind = [name for name in store.methods if not is_whole(store, name)]
    return [f"{_count(store, name)}: {finishing_command(store, name)} adds the others" for name in behind]


def _has_own_model(store: FeatureStore, names: Sequence[str]) -> bool:
    """Whether one of these methods is a member with a model of its own, which is ingested by a command of its own."""
    return any(store.groups[method_group(name)].model for name in names)


def finishing_command(store: FeatureStore, method: str = "") -> str:
    """The command that adds the missing rows of all methods; its files are those that the store records, if they are few."""
    sources = store.provenance.get("sources", ())
    paths = [str(source.get("path", "")) for source in sources if isinstance(source, dict)]
    files = shlex.join(paths) if all(paths) and len(paths) <= 3 else ""
    unfinished = [name for name in store.methods if name == method or not is_whole(store, name)]
    if is_whole(store) and unfinished and (store.provenance.get("tokens") or store.provenance.get("text")):
        return shlex.join(
            ["headwater", "add", store.url, *unfinished[: 1 if _has_own_model(store, unfinished) else None]]
        )
    own_model = {name: store.groups[method_group(name)].model.get("path", "") for name in unfinished}
    names = [name for name in unfinished if not own_model[name] and not own_model.get(method)]
    model = str(store.provenance.get("model_path", "")) if store.provenance.get("kind") == "text" else ""
    if is_whole(store) and unfinished and not names:  # members with a model of their own: one by one
        member = method or unfinished[0]
        names, model = [member], ""
    words = ["headwater", "ingest", files or "CORPUS", "--store", shlex.quote(store.url)]
    words += ["--model", shlex.quote(model)] if model else []
    return " ".join([*words, *(f"--method {name}" for name in names)])
