"""Small random models of any kind that transformers has."""

from __future__ import annotations

from typing import Any


def tiny(kind: str, **more: Any) -> Any:
    """A random causal LM of one layer or two, 320 tokens, width 32, context 64; `kind` is its config's prefix."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    if kind == "GPT2":
        sizes = {
            "vocab_size": 320,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
    model = getattr(transformers, f"{kind}ForCausalLM" if kind != "GPT2" else "GPT2LMHeadModel")
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **more})
    made = model(config).eval()
    with torch.no_grad():  # larger than usual, so that logits differ and soft-caps bite
        for name, weight in made.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0.0, 0.3)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.5)
    return made
