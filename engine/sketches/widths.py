"""How many numbers each side of a head's sketched gradient gets, and how a remark puts it. Knows no method.

A side that has no more numbers than buckets is stored as it is, and the buckets that this frees go to the other side. So a head
whose V·D numbers fit into a row is stored exactly, and no row is longer than with all buckets in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..interface.model_view import ModelShape


def side_widths(left: Sequence[tuple[int, int]], right: tuple[int, int]) -> tuple[tuple[int, ...], int]:
    """Widths of the left vectors and of the right one, whose outer products make a row; each argument is (size, buckets).

    A width that equals its size means the vector itself; a smaller one is a number of buckets. (sum of the left widths) · (right
    width) is at most the same product of the buckets. Where all sizes are above their buckets, widths are the buckets.
    """
    size, buckets = right
    narrow = min(size, buckets)
    widths = tuple(min(own, own_buckets * buckets // narrow) for own, own_buckets in left)
    length = buckets * sum(own_buckets for _, own_buckets in left)
    return widths, min(size, length // max(1, sum(widths)))


def width_remark(model: ModelShape, *widths: int) -> str:
    """In words: how a head's gradient (V, D) becomes an array of these widths."""
    head, shape = f"the head's gradient ({model.vocabulary:,} × {model.hidden:,})", " × ".join(f"{w:,}" for w in widths)
    if widths == (model.vocabulary, model.hidden):
        return f"{head} is not sketched"
    return f"{head} is sketched to {shape} numbers"
