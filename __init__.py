"""headwater traces what a language model does back to the training examples that caused it.

import headwater as hw

store = hw.ingest("corpus.jsonl", "my-store", model="./my-model")
answers = store.attribute([{"prompt": "45 km in m?", "completion": "450"}], top=10)

The names below are imported when they are first used: `import headwater` itself is light. `__init__.pyi` has their types.
"""

__version__ = "0.1.0"

__all__ = [  # without `open`, so that `from headwater import *` does not hide Python's own
    "Answer",
    "Attributions",
    "Capture",
    "Comparison",
    "Evaluation",
    "HeadwaterError",
    "ScoredExample",
    "Selection",
    "Store",
    "Values",
    "evaluate",
    "ingest",
    "method",
]

_WHERE = {
    "Answer": "engine.api.attributions",
    "Attributions": "engine.api.attributions",
    "Capture": "engine.api.capture",
    "Comparison": "engine.api.comparison",
    "Evaluation": "engine.api.evaluations",
    "HeadwaterError": "store.errors",
    "ScoredExample": "engine.api.attributions",
    "Selection": "engine.api.selections",
    "Store": "engine.api.opened_store",
    "Values": "engine.api.values",
    "evaluate": "engine.api.evaluations",
    "ingest": "engine.api.ingesting",
    "method": "engine.api.ingesting",
    "open": "engine.api.ingesting",
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_WHERE[name]}", __name__)
    value = module if name == "evaluate" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_WHERE, "__version__"])
