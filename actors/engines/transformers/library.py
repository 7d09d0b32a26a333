"""What of Transformers is used here, imported in one place so that it is imported lean."""

from __future__ import annotations

from typing import Any

from actors.engines.transformers.lean import without_the_compiler

with without_the_compiler():
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
    from transformers.cache_utils import Cache
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.utils.logging import disable_progress_bar

__all__ = [
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoConfig",
    "AutoModelForCausalLM",
    "Cache",
    "disable_progress_bar",
    "import_model",
    "sdpa_attention_forward",
    "sdpa_mask",
]


def import_model(config: Any) -> None:
    """Import the classes of the model that a configuration describes, which looking them up does.
    Raises KeyError when there are none."""
    with without_the_compiler():
        AutoModelForCausalLM._model_mapping[type(config)]  # noqa: SLF001 - no public look-up
