"""`ground-truth` as one call: checks files and options, then runs the builder. Knows files and names; trains nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...store.errors import CorpusError, DataError, SettingsError
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..data.documents import RecordErrors, Template
from ..data.sources import find_sources
from ..evaluation.mask_files import mask_file_shape, read_masks
from ..evaluation.matrices import read_array
from ..evaluation.removal import removal_masks
from ..evaluation.truth_record import TruthRecord
from ..ingest.examples import Example, Place
from ..ingest.text_provider import TextProvider
from ..ingest.text_settings import TextSettings
from ..models.language_model import load_untrained
from ..runtime.run import SILENT, Run
from .builder import GroundTruth, RetrainingTask
from .masks import clustered_masks, random_masks, require_masks_match, text_clusters
from .retraining_plan import Retraining
from .token_sets import concatenate_tokens
from .training_loop import RetrainingRecipe


@dataclass(frozen=True, slots=True)
class GroundTruthJob:
    """Settings of `ground-truth`."""

    corpus: Sequence[str]
    """Files, folders or globs."""
    queries: str
    """File of queries, whose losses are the outcomes."""
    model: str
    """Folder of a model's config and tokenizer."""
    folder: str
    """Output folder."""
    subsets: int = 64
    fraction: float = 0.5
    """Fraction of the corpus in each subset."""
    seeds: int = 5
    """Number of trainings of each subset."""
    recipe: RetrainingRecipe = field(default_factory=RetrainingRecipe)
    clusters: int = 0
    """If not 0, divide the examples into this many clusters of similar texts and draw whole clusters."""
    masks: str = ""
    """File of masks to use instead of drawing them."""
    without: str = ""
    """File of scores: subsets leave out the best examples of a query, or as many random ones."""
    top: int = 10
    """Number of examples that `without` leaves out."""
    seed: int = 0
    """Seed of the subsets."""
    template: Template = field(default_factory=Template)
    max_length: int | None = None
    """Maximal tokens per example; longer ones are truncated, the prompt first."""
    boundary: Literal["joined", "apart"] = "joined"
    """How prompts and completions are tokenised."""
    processes: int = 1
    """Most trainings that run at a time."""


def prepare_ground_truth(job: GroundTruthJob, run: Run = SILENT) -> GroundTruth:
    """Read the corpus, make the memory plan, draw the subsets, and create the folder or open an existing one. Only the run's
    budget counts here.

    Raises:
        BudgetError: not even one training process fits the budget.
        CorpusError: a file of the corpus or of queries cannot be used. ModelError: the model cannot be read.
        SettingsError: settings contradict each other. DataError: masks or scores do not match the corpus.
        StoreMismatch: the folder has other settings. StoreDamaged: its record is damaged.
    """
    if job.subsets < 1 or job.seeds < 1:
        raise SettingsError(
            f"got {job.subsets} subsets and {job.seeds} seeds; ground truth needs one subset and one seed at least"
        )
    if sum(map(bool, (job.masks, job.without, job.clusters))) > 1:
        raise SettingsError("--masks, --without and --clusters each say which subsets", hint="give one of them")
    model, record = load_untrained(job.model), TruthRecord.read(Path(job.folder))
    clock = str(record.settings.get("clock") or "") if record else ""
    settings = TextSettings(
        job.template, max_length=job.max_length, truncate=True, boundary=job.boundary, clock=clock or None
    )
    reader = TextProvider(model, [], settings.resolved(model.head.model_shape), RecordErrors("fail"))
    examples = concatenate_tokens(example.payload for example in _examples(reader, list(job.corpus)))
    queries = concatenate_tokens(example.payload for example in _with_targets(_examples(reader, [job.queries])))
    subsets = _subset_count(job, len(queries))
    _, processes = Retraining(model, examples, queries, subsets, job.recipe.batch).planned(job.processes, run.budget)
    masks = _masks(job, reader, len(examples), len(queries))
    day = reader.chat.day.isoformat() if reader.chat and reader.chat.reads_clock else ""
    names = () if job.masks or job.without else ("subsets", "fraction", "clusters", "seed")
    drawn: JsonFields = {name: getattr(job, name) for name in names}
    task = RetrainingTask(job.model, examples, queries, masks, job.seeds, job.recipe, day, drawn)
    return GroundTruth(job.folder, task, processes)


def _examples(reader: TextProvider, paths: list[str]) -> Iterator[Example]:
    """Examples of some files, one at a time, read with the model and settings of `reader`."""
    provider = TextProvider(reader.model, find_sources(paths), reader.settings, reader.record_errors)
    count = 0
    for example in provider.examples(Place()):
        count += 1
        yield example
    if not count:
        raise CorpusError(f"{', '.join(paths)}: no example")


def _with_targets(queries: Iterator[Example]) -> Iterator[Example]:
    for query in queries:
        if not query.target_count:
            raise CorpusError(f"{query.source}:{query.line}: the query has one token, and nothing predicts it")
        yield query


def _subset_count(job: GroundTruthJob, queries: int) -> int:
    """Number of subsets, as far as it is known before they are read."""
    shape = mask_file_shape(job.masks) if job.masks else None
    return shape[0] if shape else 2 * queries if job.without else job.subsets


def _removals(job: GroundTruthJob, examples: int, queries: int) -> Array:
    scores = read_array(job.without, "scores")
    if scores.ndim != 2 or scores.shape[1] != examples:
        raise DataError(
            f"{job.without}: scores {scores.shape} are (queries, examples), and the corpus has {examples} examples"
        )
    if len(scores) != queries:
        raise DataError(f"{job.without} has scores of {len(scores)} queries, and {job.queries} has {queries}")
    return removal_masks(scores, job.top, job.seed)


def _masks(job: GroundTruthJob, reader: TextProvider, examples: int, queries: int) -> Array:
    """(S, N) bool: which examples each subset holds."""
    if job.masks:
        return require_masks_match(read_masks(job.masks), examples)
    if job.without:
        return _removals(job, examples, queries)
    masks_file = Path(job.folder) / "masks.npy"
    if job.clusters and masks_file.exists() and TruthRecord.read(masks_file.parent) is not None:
        return read_masks(str(masks_file))  # another version of scikit-learn may cluster differently
    if job.clusters:
        texts = [example.prompt + example.text for example in _examples(reader, list(job.corpus))]
        return clustered_masks(job.subsets, text_clusters(texts, job.clusters, job.seed), job.fraction, job.seed)
    return random_masks(job.subsets, examples, job.fraction, job.seed)
