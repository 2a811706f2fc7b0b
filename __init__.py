"""headwater traces what a language model does back to the training examples that caused it."""

__version__ = "0.1.0"
