"""The list of all checks, and those of the method itself: settings, identity, remarks, scratch.

A check raises AssertionError with one sentence, or returns "" or why it does not apply (a test may skip with that). No model,
no file and no test framework is needed: hidden states and heads are random, in several sizes, on the device asked for.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...engine.interface.method import API, Method, TextSimilarity
from ...engine.interface.model_view import BATCH_EXAMPLES, LinearLayer, ModelShape
from ...engine.interface.subset_method import SubsetMethod
from ...engine.runtime.memory import reset_peak
from ...store.errors import SettingsError
from ...store.json_values import JsonObject
from .corpus_fits import FIT_CHECKS
from .measurements import MEASUREMENT_CHECKS
from .rows import ROW_CHECKS
from .scores import SCORE_CHECKS, an_example_finds_itself, parts_change_no_score
from .sums import SUM_CHECKS
from .trial import MODELS, demand, trials

_SLACK = 8 << 20  # of the allocator: arenas of threads, pages of small objects


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement, ready to be run on a method."""

    about: Callable[..., str]
    """The function that checks it; its docstring is the requirement."""
    arguments: tuple[object, ...] = ()
    """Models, device and share, as given to :func:`checks`."""

    def __call__(self, method: Method) -> str:
        """Run it: "" or why it does not apply.

        Raises:
            AssertionError: the method does not meet it.
        """
        if isinstance(method, TextSimilarity | SubsetMethod) and self.arguments:
            return "the method stores no rows"
        return self.about(method, *self.arguments)

    def __str__(self) -> str:
        return self.about.__name__


def checks(*, finds_itself: float = 0.95, models: Sequence[ModelShape] = MODELS, device: str = "cpu") -> list[Check]:
    """All checks.

    `finds_itself`: share of examples that must rank first for the query that is the example itself. A cosine reaches 1. A score
    that is not a cosine may rightly rank a longer example first: its author states a lower share here, or 0.
    `models`: models to try. A model that lacks layers that the method needs is left out; at least one must remain.
    """
    tried = [
        *ROW_CHECKS,
        *SUM_CHECKS,
        *FIT_CHECKS,
        *SCORE_CHECKS,
        remarks_are_lines,
        scratch_grows_with_positions,
        scratch_covers_what_is_allocated,
    ]
    return [
        *(Check(check) for check in (*_PLAIN, parts_change_no_score, *MEASUREMENT_CHECKS)),
        *(Check(check, (tuple(models), device)) for check in tried),
        Check(an_example_finds_itself, (tuple(models), device, finds_itself)),
    ]


def settings_survive_json(method: Method) -> str:
    """Settings survive JSON, and make an equal method with an equal hash."""
    kind, settings = type(method), method.settings()
    read = json.loads(json.dumps(settings, allow_nan=False))
    demand(read == settings, f"settings() is {settings}, and JSON gives {read} back: the store would see a difference")
    names = {field.name for field in dataclasses.fields(method)}
    demand(set(settings) == names, f"settings() has {sorted(settings)}, the fields are {sorted(names)}")
    again = kind.from_settings(read)
    demand(again == method and hash(again) == hash(method), f"from_settings(settings()) is {again}, not {method}")
    demand(kind.from_settings({}) == kind(), "from_settings({}) is not the method with all defaults")
    return ""


def wrong_settings_are_refused(method: Method) -> str:
    """A setting that is unknown, or of another type than its default's, raises SettingsError."""
    wrong: list[JsonObject] = [{"no such setting": 1}, *({name: {}} for name in method.settings())]
    for settings in wrong:
        try:
            type(method).from_settings(settings)
        except SettingsError:
            continue
        raise AssertionError(f"from_settings({settings}) is accepted; it must raise SettingsError")
    return ""


def is_a_frozen_dataclass(method: Method) -> str:
    """The class itself (not only its base) is a frozen dataclass, and every field has a default that JSON can hold."""
    kind = type(method)
    parameters = vars(kind).get("__dataclass_params__")
    demand(parameters, f"{kind.__name__} is not decorated with @dataclass(frozen=True): its fields are not settings")
    demand(
        parameters and parameters.frozen and parameters.eq,
        f"{kind.__name__} is a dataclass, but not frozen (and compared by its fields)",
    )
    for field in dataclasses.fields(kind):
        items = field.default if isinstance(field.default, tuple) else (field.default,)
        fits = all(type(item) in (bool, int, float, str) for item in items)
        demand(fits, f"setting {field.name} needs a default: bool, int, float, str, or a tuple of one of these")
    return ""


def is_pickled(method: Method) -> str:
    """An unpickled method equals the pickled one, so that it can be sent to another process."""
    try:
        again = pickle.loads(pickle.dumps(method))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{type(method).__name__} does not pickle (is it defined in a module?): {error}") from None
    demand(again == method and hash(again) == hash(method), f"pickling gives {again}, not {method}")
    return ""


def is_of_this_api(method: Method) -> str:
    """The method is written for the API number of this headwater."""
    demand(type(method.api) is int, f"api is {method.api!r}, not an integer")
    demand(method.api == API, f"api is {method.api}; this headwater has {API}")
    return ""


def remarks_are_lines(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`remarks` gives a tuple of lines of text, which a plan prints behind the method's name."""
    for trial in trials(method, models, device):
        remarks = method.remarks(trial.model)
        are_lines = isinstance(remarks, tuple) and all(
            isinstance(line, str) and len(line.splitlines()) == 1 for line in remarks
        )
        demand(are_lines, f"remarks gives {remarks!r}, not a tuple of lines")
    return ""


def scratch_grows_with_positions(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`scratch` is an integer, never less for more positions, and more for a wide batch than for one position."""
    for trial in trials(method, models, device):
        counts = [1, 2, 16, 100, 1024, 4096, 65536]
        given = [method.scratch(trial.model, count) for count in counts]
        demand(all(type(size) is int and size >= 0 for size in given), f"scratch gives {given}, not whole bytes")
        demand(given == sorted(given), f"scratch falls as positions grow: {dict(zip(counts, given, strict=True))}")
        demand(given[-1] > given[0], f"scratch says {given[0]} bytes for 1 position and for {counts[-1]}")
    return ""


def scratch_covers_what_is_allocated(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """Computing rows takes at most `scratch` bytes (and 8 MiB), and `fit` at most `fit_scratch`, for many short examples and for
    one long one.
    """
    if device != "cpu" or not reset_peak():
        return "resident memory is measured on a CPU, where the system keeps its peak (Linux)"
    layers = tuple(
        LinearLayer(layer.name, 256, 256) for layer in max((model.linear_layers for model in models), key=len)
    )
    large = ModelShape(256, 4096, max(model.layers for model in models), 2048, layers)
    next(trials(method, [large], device)).rows([0, 1])  # compile, load, start threads
    for lengths in ([2048 // BATCH_EXAMPLES] * BATCH_EXAMPLES, [2048]):
        trial = next(trials(method, [large], device, lengths=lengths))
        used, planned = trial.allocated(), method.scratch(large, 2048)
        demand(used <= planned + _SLACK, f"precompute and rows took {used:,} bytes of {len(lengths)} examples with 2,048 "
                f"positions in all, scratch says {planned:,} ({large})")  # fmt: skip
        small = dataclasses.replace(large, vocabulary=1024)  # statistics may need V² numbers and V³ operations
        trial = next(trials(method, [small], device, lengths=lengths))
        used, planned = trial.allocated_by_fit(), method.fit_scratch(small, 2048)
        demand(used <= planned + _SLACK, f"fit took {used:,} bytes, fit_scratch says {planned:,} ({small})")
    return ""


_PLAIN = (settings_survive_json, wrong_settings_are_refused, is_a_frozen_dataclass, is_pickled, is_of_this_api)
