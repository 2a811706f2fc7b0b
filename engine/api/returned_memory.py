"""The memory of what a question from Python returns, for its plan: a matrix of scores, a table held whole. Computes nothing."""

from __future__ import annotations

from ..results.example_table import ROW_BYTES, TEXTS, Examples
from ..results.table_plan import Output, PartsPlan, Scored, best_results
from ..runtime.memory import Part, Plan

_STRING_COPIES = 4  # bytes of a character of a Python string, at most


def score_matrix(scored: Scored) -> PartsPlan:
    """All scores in one array (Q, N) float32."""
    return _fixed(Part("scores in one array", 4 * scored.queries * scored.rows))


def score_vector(scored: Scored) -> PartsPlan:
    """A value for each example, and the blocks that they are joined from."""
    return _fixed(Part("values in one array", 8 * scored.rows))


def sampled_scores(examples: int) -> Output:
    """The scores of some examples by each of several methods that are compared, as they are and as ranks in float64."""

    def planned(scored: Scored) -> PartsPlan:
        return _fixed(Part("scores that are compared", (4 + 3 * 8) * scored.queries * min(2 * examples, scored.rows)))

    return planned


def whole_table(top: int) -> Output:
    """A table of the `top` best examples of each query with their texts, whole in memory."""

    def planned(scored: Scored) -> PartsPlan:
        parts, examples = best_results(top)(scored), Examples(scored.store)
        rows = scored.queries * min(top, scored.rows)
        longest = examples.longest(TEXTS, 1 << 16) if scored.budget is not None else 0
        texts = min(rows * longest, scored.queries * examples.text_bytes(TEXTS))
        table = Part("answers in one table", rows * ROW_BYTES + _STRING_COPIES * texts)
        return lambda most: parts(most) + Plan.of(table)

    return planned


def _fixed(part: Part) -> PartsPlan:
    return lambda most: Plan.of(part)
