"""Type aliases for objects of the transformers library. It finds its classes by name when a model is loaded, and does
not declare types for the attributes and calls that headwater uses. Knows nothing else.
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
