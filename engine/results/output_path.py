"""Checks, before anything is computed, that a command writes neither over its own input nor inside a store. Knows no format."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...store.errors import HeadwaterError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.root import store_around


def refuse_output(path: str | None, inputs: Iterable[str], store: str = "") -> None:
    """Refuse an output path that would destroy an input or damage a store; None: nothing is written.

    `inputs`: files, folders, globs, or lists of files that are separated by commas, as commands take them; empty ones count as
    none. `store`: the store that is read; the files that it was made from count as inputs.

    Raises:
        SettingsError: the path is an input (under any name), holds one, or lies in one that is a folder and exists there
            already; or it is a store, or lies inside one.
    """
    if not path:
        return
    outer = store_around(Path(path))
    if outer is not None:
        raise SettingsError(
            f"{path} lies inside the store {outer}, whose files are headwater's own", hint="write to another folder"
        )
    target = Path(path)
    if not target.exists():
        return
    for name in [*_files_of(inputs), *_corpus_of(store)]:
        source = Path(name)
        if source.exists() and _is_in(target, source):
            raise SettingsError(f"{path} is an input of this command ({name})", hint="write to another file")


def _files_of(inputs: Iterable[str]) -> Iterator[str]:
    for path in filter(None, inputs):
        yield path
        yield from path.split(",") if "," in path else ()
        if glob.has_magic(path):
            yield from glob.iglob(path, recursive=True)  # noqa: PTH207 — Path.glob takes no absolute pattern


def _corpus_of(store: str) -> list[str]:
    """The paths of the files that a store was made from; none if there is no such store: opening it says so later."""
    try:
        sources = FeatureStore.open(store).provenance.get("sources", ()) if store else ()
    except HeadwaterError:
        return []
    return [str(source["path"]) for source in sources if isinstance(source, dict) and source.get("path")]


def _is_in(target: Path, source: Path) -> bool:
    """Whether an existing file is another one, under whatever name, or lies in it."""
    return target.samefile(source) or (source.is_dir() and source.resolve() in target.resolve().parents)
