"""Fixtures that several test files share: small random models with a tokenizer, saved as a user's are, once a session."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported; no test asks the network
for threads in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # for tiny tensors a second one only spins; read at import too
    os.environ.setdefault(threads, "1")

import pytest  # noqa: E402 — after what is read at import
from random_models import tiny  # noqa: E402
from small import save_tokenizer  # noqa: E402


def _numerical_settings() -> dict[str, object]:
    """What decides a process's floating-point results, of the libraries that are loaded by now."""
    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    settings: dict[str, object] = {}
    if torch is not None and hasattr(torch, "get_num_threads"):
        settings["torch's threads"] = torch.get_num_threads()
        settings["torch's dtype"] = torch.get_default_dtype()
        settings["torch's deterministic mode"] = torch.are_deterministic_algorithms_enabled()
        settings["denormals"] = float(torch.full((), 1e-30) * 1e-10) > 0
    if numba is not None and hasattr(numba, "get_num_threads"):
        settings["numba's threads"] = numba.get_num_threads()
    return settings


@pytest.fixture(autouse=True)
def same_state_for_every_test() -> Iterator[None]:
    """Seed torch's generator, and refuse a test that leaves numerical settings changed.

    A test that draws from torch without a seed otherwise sees numbers that depend on which tests ran before it in its worker.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(0)
    before = _numerical_settings()
    yield
    after = _numerical_settings()
    assert {name: after[name] for name in before} == before, "a test left numerical settings changed"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch and numba on one thread: for tiny tensors a second one only spins, ten times slower on a busy machine."""
    import numba
    import torch

    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    yield
    torch.set_num_threads(threads[0])
    numba.set_num_threads(threads[1])


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """model_folder("Llama", tie_word_embeddings=True) → the folder of such a model with its tokenizer, made once."""
    known: dict[str, Path] = {}

    def folder(kind: str, **more: Any) -> Path:
        key = repr((kind, sorted(more.items())))
        if key not in known:
            known[key] = tmp_path_factory.mktemp(kind.lower())
            tiny(kind, **more).save_pretrained(known[key])
            save_tokenizer(known[key])
        return known[key]

    return folder
