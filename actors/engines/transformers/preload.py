"""What can be imported before it is known which process will run the engine. Importing this module
does most of it: torch, Transformers and the engine.
"""

from __future__ import annotations

import contextlib

# Needed where a model is made without its values, as Transformers does before it loads them.
import torch.fx.experimental.symbolic_shapes  # noqa: F401

import actors.engines.transformers.engine
import actors.engines.transformers.model
import actors.engines.transformers.steps  # noqa: F401
from actors.engines.transformers.library import AutoConfig, import_model


def preload(model: str) -> None:
    """Import the classes of this model too; start nothing.

    A model that cannot be read is passed over: `start` will say what is wrong with it.
    """
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        import_model(config)
        _compile_renamings(config.model_type)
    except (OSError, ValueError, KeyError):
        return


def _compile_renamings(model_type: str) -> None:
    """Transformers compiles a thousand patterns as it loads its first model, which is half of what
    loading a small one takes, and keeps them. It has had them since 5.0."""
    with contextlib.suppress(ImportError):
        from transformers.conversion_mapping import (  # noqa: PLC0415 - not in every version
            get_checkpoint_conversion_mapping,
        )

        get_checkpoint_conversion_mapping(model_type)
