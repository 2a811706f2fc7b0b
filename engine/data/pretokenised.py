"""Records that hold token ids instead of text: `input_ids` with `labels`, or with a mask. They are read as they are.

Knows no tokenizer and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

from .formats import BadRecord, Fields

IGNORED = -100
"""Label of a token that is no target, as PyTorch's cross-entropy and trainers use it."""
_MASKS = ("loss_mask", "completion_mask", "assistant_masks")
FIELD_NAMES = frozenset({"input_ids", "labels", "attention_mask", *_MASKS})
"""Fields of a record with token ids."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """The tokens of an example, without padding."""

    ids: tuple[int, ...]
    """At least one."""
    targets: tuple[bool, ...]
    """Whether the loss of each token counts; one per token."""


def tokens_in(fields: Fields) -> TokenRecord | None:
    """The tokens of a record; None if it has no `input_ids`, or no labels or mask beside them.

    Raises:
        BadRecord: a field is no list of integers, lengths differ, or a label is another token than its position's.
    """
    beside = [name for name in ("labels", "attention_mask", *_MASKS) if fields.get(name) is not None]
    if fields.get("input_ids") is None or not beside:
        return None
    ids = _integers(fields, "input_ids")
    columns = {name: _integers(fields, name) for name in beside}
    for name, values in columns.items():
        if len(values) != len(ids):
            raise BadRecord(f"field {name!r} has {len(values)} numbers, 'input_ids' {len(ids)}")
    labels = columns.get("labels", ids)
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (token, IGNORED):
            raise BadRecord(f"labels[{at}] is {label}, neither input_ids[{at}] ({token}) nor {IGNORED}")
    masks = [columns[name] for name in _MASKS if name in columns]
    is_target = [label != IGNORED and all(mask[at] for mask in masks) for at, label in enumerate(labels)]
    present = [at for at, value in enumerate(columns.get("attention_mask", [1] * len(ids))) if value]
    if not present:
        raise BadRecord("no token: 'input_ids' is empty or all padding")
    return TokenRecord(tuple(ids[at] for at in present), tuple(is_target[at] for at in present))


def _integers(fields: Fields, name: str) -> list[int]:
    values = fields[name]
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise BadRecord(f"field {name!r} is not a list of integers")
    return [int(value) for value in values]
