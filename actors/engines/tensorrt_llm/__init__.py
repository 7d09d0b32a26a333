"""NVIDIA TensorRT-LLM through its LLM API, 0.17 to 1.3, by what the installed version can do.

Importing this package loads nothing of TensorRT-LLM; starting an engine does. It must never be
imported in a process that is forked later: it opens CUDA and MPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.engines.tensorrt_llm.options import TensorRtLlmOptions

if TYPE_CHECKING:
    from actors.engines.tensorrt_llm.engine import TensorRtLlmEngine

__all__ = ("TensorRtLlmEngine", "TensorRtLlmOptions")


def __getattr__(name: str) -> Any:
    """The engine, for who asks: its options alone are read in processes that never run one."""
    if name == "TensorRtLlmEngine":
        from actors.engines.tensorrt_llm.engine import TensorRtLlmEngine  # noqa: PLC0415 - the point of it

        return TensorRtLlmEngine
    raise AttributeError(name)
