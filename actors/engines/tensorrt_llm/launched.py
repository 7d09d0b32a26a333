"""An engine whose ranks `trtllm-llmapi-launch` has started, TensorRT-LLM's own script for that.

This process is no rank then: TensorRT-LLM finds them by variables that the script has set. They run
already, with the environment of that time, and their number is settled.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.engines.base import EngineFailed

SCRIPT = "trtllm-llmapi-launch"
INSIDE_VARIABLE = "TLLM_SPAWN_PROXY_PROCESS"
SIZE_VARIABLE = "tllm_mpi_size"


def check(ranks: int, switches: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """That the ranks which the script has started, if it has, are those of an engine of `ranks`
    ranks that wants `switches` in the environment of all. Raises EngineFailed."""
    if environ.get(INSIDE_VARIABLE) != "1" or ranks == 1:
        return  # one rank is a process of TensorRT-LLM's own
    started = environ.get(SIZE_VARIABLE)
    if started != str(ranks):
        raise EngineFailed(
            f"{SCRIPT} has started {started} ranks, and the engine is split over {ranks}"
        )
    missing = {key: value for key, value in switches.items() if environ.get(key) != value}
    if missing:
        said = ", ".join(f'{key}: "{value}"' for key, value in missing.items())
        raise EngineFailed(
            f"the ranks that {SCRIPT} has started do not know how KV blocks are transferred; "
            f"add to the worker's entry: env: {{{said}}}"
        )
