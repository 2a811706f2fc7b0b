"""The methods that an ingestion is asked for: their settings, their seeds, and whether they suit the model. Knows no file."""

from __future__ import annotations

from ...store.errors import SettingsError, StoreMismatch
from ...store.feature_store import FeatureStore, method_group
from ...store.json_values import JsonObject
from ..arrays.precision.precisions import Sign
from ..interface.method import Method, Similarity, TextSimilarity
from ..interface.registry import load as load_method
from ..interface.subset_method import SubsetMethod
from .provider import Provider
from .stored_columns import precisions_of

DEFAULT_METHOD = "rise"
"""The method of a new store, and of a question to a store with several."""


def default_methods(path: str) -> list[str]:
    """The methods of an ingestion that names none: those of the store, or `rise` for a new one."""
    if not FeatureStore.exists(path):
        return [DEFAULT_METHOD]
    store = FeatureStore.open(path)
    own = [name for name in store.methods if not store.groups[method_group(name)].model]
    return own or [DEFAULT_METHOD]


def requested_method(name: str, settings: JsonObject, store: FeatureStore | None) -> Method:
    """The method with these settings; those left out are the store's if the store has the method, else the defaults."""
    method_class = load_method(name)
    try:
        if store is None or method_group(name) not in store.groups:
            return method_class.from_settings(settings)
        stored = method_class.from_settings(store.groups[method_group(name)].settings).settings()
        method = method_class.from_settings({**stored, **settings})
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}", hint=error.hint) from None
    differences = [f"{name}.{key} is {stored[key]!r} in the store, {value!r} in this run"
                   for key, value in method.settings().items() if stored.get(key) != value]  # fmt: skip
    if differences:
        raise StoreMismatch(f"{store.path} was made with other settings: {'; '.join(differences)}")
    return method


def with_seeds(name: str, method: Method, seeds: int, store: FeatureStore | None) -> dict[str, Method]:
    """The method, and copies of it with the next seeds as NAME@1, NAME@2, …"""
    if seeds < 2:
        return {name: method}
    settings = method.settings()
    seed = settings.get("seed")
    if not isinstance(seed, int):
        raise SettingsError(f"method {name} has no setting seed", hint="leave out --seeds")
    return {name: method} | {
        f"{name}@{offset}": requested_method(f"{name}@{offset}", {**settings, "seed": seed + offset}, store)
        for offset in range(1, seeds)
    }


def check_kind(name: str, method: Method) -> None:
    """Raise SettingsError for a method that stores no rows."""
    if isinstance(method, TextSimilarity):
        raise SettingsError(f"method {name} stores no rows: headwater attribute runs it on any store that keeps texts")
    if isinstance(method, SubsetMethod):
        raise SettingsError(f"method {name} stores no rows: headwater fit fits it to a store's examples")


def check_method(name: str, method: Method, provider: Provider) -> None:
    """Raise SettingsError for a method whose declarations do not suit this model."""
    model_shape = provider.head.model_shape
    columns = [column.name for column in method.columns(model_shape)]
    if not columns or len(set(columns)) != len(columns):
        raise SettingsError(f"method {name} declares columns {columns}: it needs at least one, and no name twice")
    try:
        precisions_of(method, model_shape)
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}", hint=error.hint) from None
    statistics_of = method.statistics(model_shape) if isinstance(method, Similarity) else None
    if statistics_of and isinstance(precisions_of(method, model_shape)[statistics_of[0]], Sign):
        raise SettingsError(
            f"method {name} needs statistics of its rows, which sign bits cannot give",
            hint=f"set it by --set {name}.precision float16",
        )
    reads_logits = method.needs(model_shape).reductions or type(method).reductions is not Method.reductions
    if model_shape.vocabulary < 2 and reads_logits:
        raise SettingsError(
            f"method {name} needs logits of at least 2 classes; this corpus holds only vectors",
            hint="use --method vectors",
        )
    missing_layers = method.needs(model_shape).beyond(model_shape)
    if missing_layers:
        raise SettingsError(
            f"method {name} needs hidden layers {list(missing_layers)}; "
            f"besides the last, the model has layers 0 to {model_shape.layers - 1}",
            hint="leave the last layer out of needs: outputs.hidden() gives it without",
        )
