"""Options of the workers. Importing this loads no engine."""

from __future__ import annotations

import msgspec

from actors.engines.simulated.options import SimulatedOptions
from actors.engines.transformers.options import TransformersOptions

EngineOptions = SimulatedOptions | TransformersOptions


class WorkerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of context, generation and aggregated workers."""

    engine: EngineOptions
    """`kind` says which engine; the rest are its own options."""
    model: str | None = None
    """The public name; the engine's model when None."""
    tokenizer: str | None = None
    """Directory or hub id; where the engine's model is when None."""
