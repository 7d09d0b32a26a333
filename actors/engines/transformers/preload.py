"""What can be imported before it is known which process will run the engine. Importing this module
does most of it: torch, Transformers and the engine.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

import actors.engines.transformers.engine
import actors.engines.transformers.model  # noqa: F401


def preload(model: str) -> None:
    """Import the classes of this model too; start nothing.

    A model that cannot be read is passed over: `start` will say what is wrong with it.
    """
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        # Looking the class up imports its module, which is a second by itself.
        AutoModelForCausalLM._model_mapping[type(config)]  # noqa: SLF001 - no public look-up
    except (OSError, ValueError, KeyError):
        return
