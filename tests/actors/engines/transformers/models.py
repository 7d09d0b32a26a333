"""Small random models of several families, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from actors.engines.transformers.lean import without_the_compiler

with without_the_compiler():
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

VOCABULARY = 256
CONTEXT = 512
EOS = 255
FAMILIES = ("llama", "qwen2", "qwen3", "mistral")

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def save_model(family: str, directory: Path, **changes: Any) -> Path:
    """A random model of two layers with grouped-query attention."""
    config_class, model_class = _CLASSES[family]
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": None,
    }
    if family == "mistral":
        settings["sliding_window"] = None
    torch.manual_seed(FAMILIES.index(family))
    model_class(config_class(**(settings | changes))).save_pretrained(directory)
    return directory
