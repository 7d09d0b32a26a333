"""TensorRT-LLM's own way onto ranks of MPI: `mpirun -n N trtllm-llmapi-launch COMMAND`.

Every rank runs that script of TensorRT-LLM's. The first runs the command, once and with nothing of
MPI in its environment, and beside it a server to which TensorRT-LLM in the command hands its work;
the others compute. So N is the number of ranks of one engine, the command is a node like any other,
and a program serves one life of it: nobody tells the ranks when it has died.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from supervisor.ranks import LLMAPI, server_of
from supervisor.topology import Node, Topology
from supervisor.topology.model import AutoShutdown, Restart

INSIDE_VARIABLE = "TLLM_SPAWN_PROXY_PROCESS"
SIZE_VARIABLE = "tllm_mpi_size"


class LaunchError(OSError):
    """`trtllm-llmapi-launch` cannot do what the topology wants of it."""


def search_path(path: str | None) -> str:
    """Where the script looks for `python3`: this environment's first, which has TensorRT-LLM."""
    own = str(Path(sys.executable).parent)
    return own if not path else f"{own}:{path}"


def wrap(argv: Iterable[str], path: str) -> tuple[str, ...]:
    """What each rank runs for `argv` to be run by the first. Raises LaunchError."""
    script = shutil.which(LLMAPI, path=path)
    if script is None:
        raise LaunchError(
            f"launcher: {LLMAPI} needs TensorRT-LLM's script of that name, which is not on the PATH"
        )
    words = tuple(argv)
    split = next((word for word in words if word.split() != [word]), None)
    if split is not None:
        raise LaunchError(f"{LLMAPI} cannot start a command with a space in a path: {split!r}")
    return (script, *words)


def is_inside(environ: Mapping[str, str]) -> bool:
    """Whether the script has started this process."""
    return environ.get(INSIDE_VARIABLE) == "1"


def end_program() -> None:
    """End the rank that has started this process, and so all ranks; after a command that has failed
    the script would wait for them for ever."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgrp(), signal.SIGTERM)


def for_one_life(topology: Topology, environ: Mapping[str, str]) -> Topology:
    """The topology as it can run inside of the script: with the worker that the ranks are for, and
    to its end. Raises LaunchError when there is not exactly one for them."""
    started = environ.get(SIZE_VARIABLE, "1")
    nodes = [child for child in topology.children if isinstance(child, Node)]
    sizes = {node.name: _own_ranks(node, topology) for node in nodes}
    found = [name for name, size in sizes.items() if size > 1]
    if not found and started == "1":
        return topology  # nothing here needs the one rank there is
    wanted = [f"{name} of {sizes[name]} ranks" for name in found]
    if len(found) != 1 or str(sizes[found[0]]) != started:
        raise LaunchError(
            f"{LLMAPI} has started {started} ranks for one engine of that many; the topology has "
            f"{' and '.join(wanted) or 'none of several ranks at its top level'}"
        )
    children = tuple(
        replace(child, restart=Restart.TEMPORARY, significant=True)
        if child.name in found
        else child
        for child in topology.children
    )
    supervision = replace(topology.supervision, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
    return replace(topology, children=children, supervision=supervision)


def _own_ranks(node: Node, topology: Topology) -> int:
    """The ranks of a node's TensorRT-LLM that would be looked for in the environment, of all its
    replicas; 0 for what starts its ranks otherwise."""
    if node.launcher in {"mpi", LLMAPI} or node.world is not None:
        return 0
    server = server_of(replace(node, launcher="mpi"), topology.base_dir)
    if server is None or server.engine != "tensorrt_llm" or server.ranks == 1:
        return 0
    return server.ranks * (node.replicas + node.standby)
