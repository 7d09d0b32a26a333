"""The stand-in in this process, one generation at a time."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.engines.tensorrt_llm import TensorRtLlmEngine, TensorRtLlmOptions

STANDIN = Path(__file__).parent / "standin"
GENERATIONS = ("0.17", "0.19", "0.21", "1.0", "1.2", "1.3")
HANDING_OVER = GENERATIONS[1:]


@contextmanager
def installed(generation: str, environ: MutableMapping[str, str], world: Path) -> Iterator[Any]:
    """`import tensorrt_llm` gives the stand-in meanwhile; yields its `generations` module.

    `environ` is the process's own: the stand-in reads its switches there, as the real one does.
    """
    names = ("TENSORRT_LLM_STANDIN", "TENSORRT_LLM_STANDIN_WORLD")
    switches = ("TRTLLM_USE_MPI_KVCACHE", "TRTLLM_USE_UCX_KVCACHE")
    before = {name: environ.get(name) for name in (*names, *switches)}
    environ.update(zip(names, (generation, str(world)), strict=True))
    sys.path.insert(0, str(STANDIN))
    _forget()
    try:
        yield importlib.import_module("tensorrt_llm.generations")
    finally:
        sys.path.remove(str(STANDIN))
        _forget()
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


def save_model(directory: Path) -> Path:
    """What the engine reads of a model: 256 tokens, the last of which ends a text."""
    config = {"vocab_size": 256, "eos_token_id": 255, "max_position_embeddings": 512}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def make_engine(model: Path, *, duty: str = "generation", **options: Any) -> TensorRtLlmEngine:
    """An engine that does not wait longer than the stand-in makes it."""
    quick = {"quiet_s": 0.1, "poll_s": 0.005, "cancel_grace_s": 2.0, "shutdown_s": 5.0}
    settings = TensorRtLlmOptions(model=str(model), **{**quick, **options})
    return TensorRtLlmEngine(settings, base_dir=model, duty=duty)
