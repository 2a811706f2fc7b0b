"""Checks the arguments of the Python API where they enter: names, types, and what is similar to an unknown name. Knows no
store and no method.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..evaluation.matrices import read_array

P = ParamSpec("P")
R = TypeVar("R")
PathLike: typing.TypeAlias = str | Path
"""A path of a file or folder, or a URL."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its annotations before it runs.

    The fields of a keyword TypedDict (`**options: Unpack[Options]`) become keyword parameters of the signature, which help and
    completion show.

    Raises (the decorated function):
        SettingsError: an argument is missing, unknown or of the wrong type; the message names what is similar.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check(function, args, kwargs)
        return function(*args, **kwargs)

    call.__signature__ = _full_signature(function)  # type: ignore[attr-defined]
    return call


def _full_signature(function: Callable[..., object]) -> inspect.Signature:
    """The signature, with the options of a keyword TypedDict as keyword parameters of their own."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = [p.name for p in parameters]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=getattr(kind, "__forward_arg__", kind)
        )
        for name, kind in _option_annotations(function).items()
        if name not in names
    ]
    return signature.replace(parameters=[*parameters, *options])


def _option_annotations(function: Callable[..., object]) -> Mapping[str, object]:
    """Annotations of the keyword TypedDict of a function, as they are written; none without one."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            name = str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")
            kind = function.__globals__.get(name)
            return dict(getattr(kind, "__annotations__", {}))
    return {}


@functools.cache
def _hints(function: Callable[..., object]) -> dict[str, object]:
    """Parameter or option → type."""
    hints = typing.get_type_hints(function)
    hints.pop("return", None)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            (options,) = get_args(hints.pop(parameter.name))
            hints |= typing.get_type_hints(options)
    return hints


def _check(function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    hints, parameters = _hints(function), inspect.signature(function).parameters
    variable = {p.name for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    known = [name for name in (*parameters, *hints) if name != "self" and name not in variable]
    for name in kwargs:
        if name not in known:
            raise SettingsError(f"{function.__name__} has no argument {name!r}{similar(name, known)}")
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(name for name in parameters if name != "self" and name not in variable)
        raise SettingsError(f"{function.__name__}: {error}; its arguments are {names}, and options by name") from None
    values = {name: value for name, value in bound.arguments.items() if name in hints} | {
        name: value for name, value in kwargs.items() if name in hints
    }
    several = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), "")
    for name, value in values.items():
        if name == several:
            hints = {**hints, name: tuple[hints[name], ...]}  # type: ignore[valid-type]
        if not matches(value, hints[name]):
            raise SettingsError(
                f"{function.__name__}: {name} is {_described(value)}, expected {_type_name(hints[name])}"
            )


def matches(value: object, hint: Any) -> bool:
    """Whether a value has the type of an annotation: classes, None, Literal, unions, and sequences or mappings of these."""
    if hint in (Any, object):
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, kind) for kind in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if hint is None or hint is type(None):
        return value is None
    if origin is not None and isinstance(value, origin):
        if issubclass(origin, Mapping):
            return all(matches(item, inner[1]) for item in typing.cast(Mapping[object, object], value).values())
        if issubclass(origin, Collection):  # a string is never taken for a list of its characters
            items = typing.cast(Collection[object], value)
            return not isinstance(value, str | bytes) and all(matches(item, inner[0]) for item in items)
        return True
    if origin is not None:
        return False
    if hint is int:
        return isinstance(value, int | Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float | Real) and not isinstance(value, bool)
    return isinstance(value, hint)


def _described(value: object) -> str:
    """A value in an error: its type, and what it is if that is short."""
    shown = repr(value)
    return f"{type(value).__name__} {shown}" if len(shown) <= 40 else type(value).__name__


def _type_name(hint: Any) -> str:
    """An annotation in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(kind) for kind in inner))
    if origin is Literal:
        return " or ".join(repr(choice) for choice in inner)
    if origin is not None and issubclass(origin, Mapping):
        return "a dict"
    if origin is not None and inner:
        return f"a list of {_type_name(inner[0])}"
    return "None" if hint in (None, type(None)) else str(getattr(hint, "__name__", hint))


def similar(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: what is similar, or what there is."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def at_least(function: str, **numbers: tuple[int | None, int]) -> None:
    """Check that arguments are in range: name=(value, the least allowed); None is no value.

    Raises:
        SettingsError: one is below.
    """
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise SettingsError(f"{function}: {name} is {value}, expected at least {least}")


def array_of(value: Any, name: str) -> Array:
    """An array of numbers, or of the file at a path.

    Raises:
        DataError: it is neither. SettingsError: the file does not exist.
    """
    if isinstance(value, PathLike):
        return read_array(str(value), name)
    names = getattr(getattr(value, "metadata", None), "dimension_names", None)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} are no array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} are an array of {array.dtype}, expected numbers")
    return array.T if names == ("example", "query") else array  # as Store.scores(out=…) writes it
