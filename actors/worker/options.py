"""Options of the workers. Importing this loads no engine."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.engines.simulated.options import SimulatedOptions
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.engines.transformers.options import TransformersOptions
from actors.text.answers.names import ReasoningFamily, ToolFamily

EngineOptions = SimulatedOptions | TransformersOptions | TensorRtLlmOptions


class WorkerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of context, generation and aggregated workers."""

    engine: EngineOptions
    """`kind` says which engine; the rest are its own options."""
    model: str | None = None
    """The public name; the engine's model when None."""
    tokenizer: str | None = None
    """Directory or hub id; where the engine's model is when None."""
    tool_parser: ToolFamily | None = None
    """How the model writes calls of tools. Without it `tool_choice` may be `required` or name a
    tool, but not be `auto`."""
    reasoning_parser: ReasoningFamily | None = None
    """How the model marks what it thinks before it answers; None passes it on as text."""
    router: str = "router"
    """The role that is told of the cache and the load."""
    report_every_s: Annotated[float, msgspec.Meta(gt=0)] = 0.05
    """How far apart two such reports are at least. One that is due goes with the next tokens, or
    20 ms later."""
