"""NVIDIA TensorRT-LLM through its LLM API, 0.17 to 1.3, by what the installed version can do.

Importing this package loads nothing of TensorRT-LLM; starting an engine does. It must never be
imported in a process that is forked later: it opens CUDA and MPI.
"""

from __future__ import annotations

from actors.engines.tensorrt_llm.engine import TensorRtLlmEngine
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions

__all__ = ("TensorRtLlmEngine", "TensorRtLlmOptions")
