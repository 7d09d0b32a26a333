"""From options to an engine. Only the engine chosen is imported."""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.engines.base import Engine
from actors.engines.simulated.options import SimulatedOptions
from actors.worker.options import EngineOptions


def make_engine(options: EngineOptions, base_dir: Path) -> Engine:
    """The engine the options describe, not yet started."""
    if isinstance(options, SimulatedOptions):
        from actors.engines.simulated import SimulatedEngine  # noqa: PLC0415 - see the module

        return SimulatedEngine(options)
    from actors.engines.transformers import TransformersEngine  # noqa: PLC0415 - see the module

    source = model_source(options, base_dir)
    return TransformersEngine(msgspec.structs.replace(options, model=source))


def model_source(options: EngineOptions, base_dir: Path) -> str:
    """Where the model (of a simulated engine: the tokenizer) is loaded from.

    A directory is meant relative to the topology file and wins over a hub id of the same name.
    """
    named = options.tokenizer or "" if isinstance(options, SimulatedOptions) else options.model
    directory = base_dir / named
    return str(directory.resolve()) if named and directory.is_dir() else named


def engine_name(options: EngineOptions) -> str:
    """What the topology calls the engine's kind."""
    return str(type(options).__struct_config__.tag)
