"""Causal language models through Hugging Face Transformers, on CPU or CUDA.

Importing this package loads neither torch nor transformers; starting an engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.engines.transformers.options import TransformersOptions

if TYPE_CHECKING:
    from actors.engines.transformers.engine import TransformersEngine

__all__ = ("TransformersEngine", "TransformersOptions")


def __getattr__(name: str) -> Any:
    """The engine, for who asks: its options alone are read in processes that never run one."""
    if name == "TransformersEngine":
        from actors.engines.transformers.engine import TransformersEngine  # noqa: PLC0415 - the point of it

        return TransformersEngine
    raise AttributeError(name)
