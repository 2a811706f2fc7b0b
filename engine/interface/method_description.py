"""What a method says of itself: when to use it, its settings with their defaults, what it needs, how long its rows are. Knows no
method by name.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from ...store.errors import HeadwaterError
from ...store.json_values import JsonFields
from .method import BlockSimilarity, Method, Similarity, TextSimilarity
from .model_view import LinearLayer, ModelShape, OutputSpec
from .registry import distribution_of, load
from .subset_method import SubsetMethod

_KINDS: tuple[tuple[type, str], ...] = (
    (TextSimilarity, "compares texts, without a model; stores no rows"),
    (SubsetMethod, "is fitted to subsets of the corpus by `headwater fit`; stores no rows"),
    (BlockSimilarity, "scores stored rows by a function of its own"),
    (Similarity, "scores stored rows by inner products"),
)
_WIDTH, _VOCABULARY, _LAYERS = 1024, 50_000, 24
TYPICAL = ModelShape(
    _WIDTH, _VOCABULARY, _LAYERS, 2048,
    tuple(
        LinearLayer(f"layers.{layer}.{name}", inputs, outputs)
        for layer in range(_LAYERS)
        for name, inputs, outputs in (("self_attn.q_proj", _WIDTH, _WIDTH), ("self_attn.k_proj", _WIDTH, _WIDTH),
                                      ("self_attn.v_proj", _WIDTH, _WIDTH), ("self_attn.o_proj", _WIDTH, _WIDTH),
                                      ("mlp.up_proj", _WIDTH, 4 * _WIDTH), ("mlp.down_proj", 4 * _WIDTH, _WIDTH))
    ),
)  # fmt: skip
"""The model for which the length of rows is stated."""


def description(name: str) -> JsonFields:
    """A method by its name, as JSON values: `about`, `use`, `kind`, `needs`, `bytes_per_example` (None without rows), `settings`.

    Raises:
        PluginError: there is none of the name, or it cannot be loaded.
    """
    kind = load(name)
    method = kind()
    module = inspect.getdoc(inspect.getmodule(kind)) or ""
    return {
        "name": name,
        "distribution": distribution_of(name),
        "about": module.partition("\n\n")[0].replace("\n", " "),
        "use": " ".join((inspect.getdoc(kind) or "").partition("\n\n")[2].split()),
        "kind": next(text for base, text in _KINDS if issubclass(kind, base)),
        "needs": _needs(method),
        "bytes_per_example": _row_bytes(method),
        "settings": _settings(method),
    }


def _settings(method: Method) -> list[JsonFields]:
    """Name, default and docstring of each setting."""
    about: dict[str, str] = {}
    for base in reversed(type(method).__mro__):
        if issubclass(base, Method):
            about |= _field_docstrings(base)
    return [{"name": name, "default": value, "about": about.get(name, "")} for name, value in method.settings().items()]


def _field_docstrings(kind: type[Any]) -> dict[str, str]:
    """The strings that stand below a class's fields in its source; none if it has no source."""
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, SyntaxError, TypeError, ValueError):
        return {}
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: " ".join(below.value.value.partition("\n\n")[0].split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }  # fmt: skip


def _needs(method: Method) -> list[str]:
    """What must be there before a row is computed, in words."""
    if isinstance(method, TextSimilarity):
        return ["the texts of the store (no --no-text)"]
    if isinstance(method, SubsetMethod):
        return [
            "a fit, `headwater fit STORE --method NAME`, to all examples of a store",
            "the model, at the fit and for queries",
        ]
    try:
        spec = method.needs(TYPICAL)
    except HeadwaterError:
        spec = OutputSpec()
    backward = (
        f"a backward pass per batch, through {len(spec.linear_layers)} linear layers of a model of {_LAYERS} layers"
    )
    needs = [backward if spec.linear_layers else "a forward pass alone"]
    needs += ["reductions of the logits"] * bool(spec.reductions)
    needs += ["a fit of corpus statistics on a sample, before the first row"] * (_accumulator(method) is not None)
    return needs


def _accumulator(method: Method) -> object:
    try:
        return method.fit(TYPICAL)
    except HeadwaterError:
        return None


def _row_bytes(method: Method) -> int | None:
    """Bytes that a row takes of the typical model; None if the method stores none, or does not take such a model."""
    if isinstance(method, TextSimilarity | SubsetMethod):
        return None
    try:
        return sum(column.row_bytes for column in method.columns(TYPICAL))
    except HeadwaterError:
        return None
