"""Causal language models through Hugging Face Transformers, on CPU or CUDA.

Importing this package loads neither torch nor transformers; starting an engine does.
"""

from __future__ import annotations

from actors.engines.transformers.engine import TransformersEngine
from actors.engines.transformers.options import TransformersOptions

__all__ = ("TransformersEngine", "TransformersOptions")
