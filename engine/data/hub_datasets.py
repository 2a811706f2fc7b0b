"""Data sets by name, as `datasets` loads them from the Hugging Face hub or a local folder, streamed: hf:ORG/NAME?split=train.

`config` and `revision` are named in the same way. (Files of a data set have URLs: hf://datasets/ORG/NAME/….) Knows no document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from ...store.errors import CorpusError
from .formats import Fields
from .python_data import data_of
from .record_source import RecordSource
from .remote_errors import reason_of

_REFERENCE = re.compile(r"hf:(?!//)(?P<name>[^?\s]+)(?:\?(?P<query>\S*))?")
_OPTIONS = {"split": "split", "config": "name", "revision": "revision"}  # ours → load_dataset's


def is_hub_dataset(path: str) -> bool:
    """Whether a path names a data set: hf:NAME, with or without options."""
    return _REFERENCE.fullmatch(path) is not None


def hub_dataset(reference: str) -> RecordSource:
    """The records of a data set, streamed; after a stop, reading continues at the shard of the record, where the format allows
    it. Its digest is of the first 256 records and of the description.

    Raises:
        CorpusError: the data set, split or configuration is not there, or cannot be reached; an option is unknown; or `datasets`
            is not installed.
    """
    parsed = _REFERENCE.fullmatch(reference)
    assert parsed, "is_hub_dataset says so"
    options = dict(parse_qsl(parsed["query"] or "", keep_blank_values=True))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise CorpusError(f"{reference}: unknown option {unknown[0]!r}", hint=f"the options are {', '.join(_OPTIONS)}")
    with _naming(reference):
        dataset = _load(parsed["name"], {_OPTIONS[option]: value for option, value in options.items()})
        if isinstance(dataset, dict):
            dataset = _only_split(dataset, reference, options)
        name = "/".join(filter(None, (parsed["name"], options.get("config"), str(dataset.split or ""))))
        (source,) = data_of(dataset, texts=False, name=name)
        assert isinstance(source, RecordSource), "data sets are records"
    return replace(source, records=lambda start: _records(source, start), address=reference)


def _load(name: str, options: dict[str, str]) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise CorpusError(f"hf:{name}: datasets is not installed", hint="pip install 'headwater[datasets]'") from None
    return load_dataset(name, streaming=True, **options)


def _only_split(splits: dict[str, Any], reference: str, options: dict[str, str]) -> Any:
    """The data set's one split.

    Raises:
        CorpusError: it has several.
    """
    if len(splits) != 1:
        first = f"{reference}{'&' if options else '?'}split={next(iter(splits))}"
        raise CorpusError(f"{reference} has the splits {', '.join(splits)}", hint=f"name one, as in {first}")
    return next(iter(splits.values()))


def _records(source: RecordSource, start: int) -> Iterator[Fields]:
    """The source's records; an error of the library names the record reached."""
    count = start
    with _naming(source.name, lambda: f":{count}: cannot read beyond this"):
        for record in source.records(start):
            count += 1
            yield dict(record)


@contextmanager
def _naming(name: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Turn an error of the library into a CorpusError."""
    try:
        yield
    except (CorpusError, GeneratorExit):
        raise
    except Exception as error:  # of the library, of its file systems, of a file's reader
        words, hint = reason_of(error, "hf://datasets")
        if isinstance(error, ValueError):  # its own words name the splits or configurations that there are
            words, hint = " ".join(str(error).split()), ""
        raise CorpusError(f"{name}{where()}: {words}", hint=hint) from None
