"""From a server of TensorRT-LLM's disaggregated configuration to our worker's options. Pure."""

from __future__ import annotations

from typing import Any

from supervisor.topology.disaggregation import Server

_TENSORRT_LLM = "tensorrt_llm"


class CannotSplitError(ValueError):
    """The engine named for the workers cannot be cut as the file wants it."""


def worker_options(options: dict[str, Any], server: Server) -> tuple[dict[str, Any], int | None]:
    """The options of a server's worker, and how many GPUs are to be its alone.

    TensorRT-LLM gets all arguments of the server's section, over those that the options have.
    Other engines, which stand in for it where it cannot run, get the parallel size they know.
    Raises CannotSplitError.
    """
    engine = options.get("engine", {})
    if not isinstance(engine, dict):
        return options, None  # the check of the options will say it
    kind = engine.get("kind", _TENSORRT_LLM)
    if kind == _TENSORRT_LLM:
        arguments = {**(engine.get("arguments") or {}), **server.arguments}
        engine = {"kind": kind, **engine, "arguments": arguments}
        return {**options, "engine": engine}, server.ranks
    if server.ranks != server.tensor_parallel_size:
        raise CannotSplitError(
            f"expected pipeline and context parallel sizes of 1 for an engine of kind {kind}"
        )
    if server.tensor_parallel_size > 1:
        engine = {**engine, "tensor_parallel_size": server.tensor_parallel_size}
    return {**options, "engine": engine}, None
