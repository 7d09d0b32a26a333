"""From options to an engine. Only the engine chosen is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.engines.base import Engine
from actors.engines.simulated.options import SimulatedOptions
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.messages.cards import Duty
from actors.worker.options import EngineOptions, WorkerOptions

if TYPE_CHECKING:
    from actors.engines.tensorrt_llm.files import Arguments


def make_engine(options: EngineOptions, base_dir: Path, *, duty: Duty = "aggregated") -> Engine:
    """The engine the options describe, not yet started."""
    if isinstance(options, SimulatedOptions):
        from actors.engines.simulated import SimulatedEngine  # noqa: PLC0415 - see the module

        return SimulatedEngine(options)
    if isinstance(options, TensorRtLlmOptions):
        from actors.engines.tensorrt_llm import TensorRtLlmEngine  # noqa: PLC0415 - see the module
        from actors.engines.tensorrt_llm.ranks import given  # noqa: PLC0415

        ranks = given(os.environ)
        return TensorRtLlmEngine(options, base_dir=base_dir, duty=duty, ranks=ranks)
    from actors.engines.transformers import TransformersEngine  # noqa: PLC0415 - see the module

    source = model_source(options, base_dir)
    tokenizer = _located(options.tokenizer, base_dir) if options.tokenizer else None
    return TransformersEngine(msgspec.structs.replace(options, model=source, tokenizer=tokenizer))


def model_source(options: EngineOptions, base_dir: Path) -> str:
    """Where the model (of a simulated engine: the tokenizer) is loaded from. Raises ValueError when
    an engine's files do not say."""
    if isinstance(options, TensorRtLlmOptions):
        return _arguments(options, base_dir).model
    named = options.tokenizer or "" if isinstance(options, SimulatedOptions) else options.model
    return _located(named, base_dir)


def public_name(options: WorkerOptions, base_dir: Path) -> str:
    """The name clients ask for."""
    if options.model is not None:
        return options.model
    engine = options.engine
    if isinstance(engine, TensorRtLlmOptions):
        return _arguments(engine, base_dir).name
    return engine.model


def tokenizer_source(options: WorkerOptions, base_dir: Path) -> str:
    """Where the tokenizer is loaded from."""
    if options.tokenizer:
        return _located(options.tokenizer, base_dir)
    engine = options.engine
    if isinstance(engine, TensorRtLlmOptions) and (own := _arguments(engine, base_dir).tokenizer):
        return _located(own, base_dir)
    return model_source(engine, base_dir)


def _arguments(options: TensorRtLlmOptions, base_dir: Path) -> Arguments:
    from actors.engines.tensorrt_llm.files import read_arguments  # noqa: PLC0415 - see the module

    return read_arguments(options, base_dir)


def _located(named: str, base_dir: Path) -> str:
    """A directory is meant relative to the topology file and wins over a hub id of its name."""
    directory = base_dir / named
    return str(directory.resolve()) if named and directory.is_dir() else named


def engine_name(options: EngineOptions) -> str:
    """What the topology calls the engine's kind."""
    return str(type(options).__struct_config__.tag)


def ranks_of(options: WorkerOptions, base_dir: Path) -> int:
    """How many ranks of an MPI program a worker with these options is. Raises ValueError when an
    engine's files do not say."""
    engine = options.engine
    if isinstance(engine, TensorRtLlmOptions):
        return _arguments(engine, base_dir).ranks
    return 1 if isinstance(engine, SimulatedOptions) else engine.tensor_parallel_size


def preload_engine(options: EngineOptions, base_dir: Path) -> None:
    """Import what the engine needs, and nothing more than that."""
    if isinstance(options, SimulatedOptions):
        import actors.engines.simulated.engine  # noqa: F401, PLC0415 - see the module
    elif not isinstance(options, TensorRtLlmOptions):  # which is never forked
        from actors.engines.transformers.preload import preload  # noqa: PLC0415 - see the module

        preload(model_source(options, base_dir))
