"""Type aliases for objects of the transformers library. Its classes are found by name when a model is loaded, and their
attributes and calls that headwater uses have no types there. Knows nothing else.
"""

from __future__ import annotations

from typing import Any, TypeAlias

HfModel: TypeAlias = Any
"""A torch module of transformers: a causal LM, or its trunk below the head."""
HfConfig: TypeAlias = Any
"""A model's config."""
HfTokenizer: TypeAlias = Any
"""A fast tokenizer."""
HfOutput: TypeAlias = Any
"""What a trunk returns: hidden states by attribute."""
HfClass: TypeAlias = Any
"""A class or module of the library, such as AutoModelForCausalLM."""
HookArgs: TypeAlias = Any
"""Positional or keyword arguments of a module's forward call, or its output."""
