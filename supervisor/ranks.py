"""How many ranks of MPI a node's engine is, told from its options alone, and which one is whose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from supervisor.topology import Node

_TENSORRT_LLM = "tensorrt_llm"
LLMAPI = "trtllm-llmapi-launch"
"""A launcher; see `launchers.llmapi`."""
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")


class Server(NamedTuple):
    """What `mpirun` has to start for a node."""

    engine: str
    """Its kind."""
    ranks: int


def server_of(node: Node, base_dir: Path) -> Server | None:
    """What mpirun starts for a node; None: it is started without.

    The Transformers engine needs it for more than one rank. TensorRT-LLM starts its own ranks,
    unless the file asks for an mpirun or a shared world.
    """
    if node.launcher == "local":
        return None
    engines = [actor.options.get("engine") for actor in node.actors]
    found = [_server(engine, base_dir) for engine in engines if isinstance(engine, dict)]
    server = max(found, key=lambda server: server.ranks, default=Server("", 1))
    asked = node.launcher is not None or node.world is not None
    needed = server.ranks > 1 and server.engine != _TENSORRT_LLM
    return server if asked or needed else None


def rank_of(environ: Mapping[str, str]) -> int | None:
    """Which rank this process is; None for one that no mpirun or srun has started."""
    return next((int(environ[name]) for name in _RANK_VARIABLES if name in environ), None)


def server_at(rank: int, sizes: Sequence[int]) -> int:
    """The number of the server that a rank belongs to; their number for one beyond the last."""
    for server, size in enumerate(sizes):
        if rank < size:
            return server
        rank -= size
    return len(sizes)


def _server(engine: dict[str, Any], base_dir: Path) -> Server:
    kind = str(engine.get("kind"))
    if kind == _TENSORRT_LLM:
        arguments = {**_read(engine, base_dir), **(engine.get("arguments") or {})}
        return Server(kind, math.prod(_size(arguments.get(key)) for key in _SIZES))
    if kind == "transformers":
        return Server(kind, _size(engine.get("tensor_parallel_size")))
    return Server(kind, 1)


def _read(engine: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    named = engine.get("engine_args")
    if not isinstance(named, str):
        return {}
    try:
        data = yaml.safe_load((base_dir / named).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # the worker itself will say what is wrong with it
    return data if isinstance(data, dict) else {}


def _size(value: object) -> int:
    """What is no size is for the worker to complain about."""
    return value if isinstance(value, int) and value > 0 else 1
