from .engine.api import evaluations as evaluate
from .engine.api.attributions import Answer, Attributions, ScoredExample
from .engine.api.capture import Capture
from .engine.api.comparison import Comparison
from .engine.api.evaluations import Evaluation
from .engine.api.ingesting import ingest, method
from .engine.api.ingesting import open as open
from .engine.api.opened_store import Store
from .engine.api.selections import Selection
from .engine.api.values import Values
from .store.errors import HeadwaterError

__version__: str
__all__ = [
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
