"""Ground truth as one call: what the command line and the Python API ask. Knows files and names; trains nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...store.errors import CorpusError, DataError, SettingsError
from ...store.layout import Array
from ..data.documents import RecordErrors, Template
from ..data.sources import find_sources
from ..evaluation.matrices import read_array, read_masks
from ..evaluation.removal import removal_masks
from ..ingest.examples import Example, Place
from ..ingest.text_provider import TextProvider
from ..ingest.text_settings import text_settings
from ..models.language_model import LanguageModel, load_untrained
from .builder import GroundTruth, Task
from .masks import clustered_masks, given_masks, random_masks, text_clusters
from .token_sets import gathered
from .training_loop import RetrainingRecipe


@dataclass(frozen=True, slots=True)
class GroundTruthJob:
    """What is asked for."""

    corpus: Sequence[str]
    """Files, folders or globs."""
    queries: str
    """A file of queries, whose losses are the outcomes."""
    model: str
    """Folder of a model's config and tokenizer."""
    folder: str
    """Where it goes."""
    subsets: int = 64
    fraction: float = 0.5
    """Share of the corpus in each subset."""
    seeds: int = 5
    """Trainings of each subset."""
    recipe: RetrainingRecipe = field(default_factory=RetrainingRecipe)
    clusters: int = 0
    """Draw whole clusters of like texts instead of examples: so many."""
    masks: str = ""
    """A file of masks to take instead of drawing them."""
    without: str = ""
    """A file of scores: the subsets lack each query's best examples, or as many others."""
    top: int = 10
    """How many they lack."""
    seed: int = 0
    """Of the subsets."""
    template: Template = field(default_factory=Template)
    max_length: int | None = None
    """Tokens of the longest example; what is longer is cut, prompts first."""


def prepare_truth(job: GroundTruthJob) -> GroundTruth:
    """Read the corpus, draw the subsets, make the folder or take up the one that is there.

    Raises:
        CorpusError, ModelError, SettingsError, DataError: whatever of these is not as it should be.
        StoreMismatch: the folder was begun with other settings.
    """
    if job.subsets < 1 or job.seeds < 1:
        raise SettingsError("ground truth needs one subset and one seed at least")
    if sum(map(bool, (job.masks, job.without, job.clusters))) > 1:
        raise SettingsError("--masks, --without and --clusters each say which subsets: give one of them")
    model = load_untrained(job.model)
    examples = _examples(job, model, list(job.corpus))
    queries = _examples(job, model, [job.queries])
    for query in queries:
        if not query.counted:
            raise CorpusError(f"{query.source}:{query.line}: the query has one token, and nothing predicts it")
    masks = _masks(job, examples, len(queries))
    task = Task(
        job.model,
        gathered(example.payload for example in examples),
        gathered(example.payload for example in queries),
        masks,
        job.seeds,
        job.recipe,
    )
    return GroundTruth(job.folder, task)


def _examples(job: GroundTruthJob, model: LanguageModel, paths: list[str]) -> list[Example]:
    settings = text_settings(model.head.model_shape, job.max_length, "completion", job.template, truncate=True)
    provider = TextProvider(model, find_sources(paths), settings, RecordErrors("fail"))
    found = list(provider.examples(Place()))
    if not found:
        raise CorpusError(f"{', '.join(paths)}: no example")
    return found


def _removals(job: GroundTruthJob, examples: int, queries: int) -> Array:
    scores = read_array(job.without, "scores")
    if scores.ndim != 2 or scores.shape[1] != examples:
        raise DataError(
            f"{job.without}: scores {scores.shape} are (queries, examples), and the corpus has {examples} examples"
        )
    if len(scores) != queries:
        raise DataError(f"{job.without} has scores of {len(scores)} queries, and {job.queries} has {queries}")
    return removal_masks(scores, job.top, job.seed)


def _masks(job: GroundTruthJob, examples: Sequence[Example], queries: int) -> Array:
    if job.masks:
        return given_masks(read_masks(job.masks), len(examples))
    if job.without:
        return _removals(job, len(examples), queries)
    held = Path(job.folder) / "masks.npy"
    if job.clusters and held.exists():
        return read_masks(str(held))  # another version of the library may cluster otherwise
    if job.clusters:
        labels = text_clusters([example.prompt + example.text for example in examples], job.clusters, job.seed)
        return clustered_masks(job.subsets, labels, job.fraction, job.seed)
    return random_masks(job.subsets, len(examples), job.fraction, job.seed)
