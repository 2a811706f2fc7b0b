"""Finds the method that made stored rows, with the settings recorded for them. Knows no query and no score."""

from __future__ import annotations

from ...store.errors import BrokenMethod, PluginError, StoreMissing
from ...store.feature_store import FeatureStore, method_group
from ..interface.method import Similarity
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from .members import hint, members_of


def stored_method(store: FeatureStore, name: str) -> Similarity:
    """The method with the settings of its stored rows.

    Raises:
        StoreMissing: the store holds no rows of it.
        BrokenMethod: it does not score by similarity.
    """
    group = method_group(name)
    if group not in store.groups:
        if _is_fitted(name):
            raise StoreMissing(
                f"method {name} is fitted and stores no rows in {store.url}", hint="use it with attribute or value"
            )
        stored = ", ".join(store.methods) or "none"
        together = hint(members_of(store.methods, name)) if "@" not in name else ""
        raise StoreMissing(
            f"{store.url} has no rows of method {name} (it has rows of: {stored})",
            hint=f"headwater add {store.url} {name} adds them (in Python: store.add){together}",
        )
    method = load(name).from_settings(store.groups[group].settings)
    if not isinstance(method, Similarity):
        raise BrokenMethod(f"method {name} does not score single examples by similarity")
    return method


def _is_fitted(name: str) -> bool:
    try:
        return issubclass(load(name), SubsetMethod)
    except PluginError:
        return False
