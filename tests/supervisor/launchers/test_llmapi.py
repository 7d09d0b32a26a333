"""What runs under TensorRT-LLM's own script, and what runs inside of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from supervisor.launchers.llmapi import LaunchError, for_one_life, is_inside, search_path, wrap
from supervisor.topology import Node, Topology, read_text
from supervisor.topology.model import AutoShutdown, Restart

WORKER = """
  - name: worker
    actor: aggregated
    MORE
    options: {engine: {kind: tensorrt_llm, model: m, arguments: {tensor_parallel_size: 4}}}
"""


def topology(more: str = "", *others: str) -> Topology:
    text = f"children:\n{WORKER.replace('MORE', more)}\n  - actor: router\n{''.join(others)}"
    return read_text(text, Path("/srv/x.yaml"), environ={}).topology


def inside(size: int) -> dict[str, str]:
    return {"TLLM_SPAWN_PROXY_PROCESS": "1", "tllm_mpi_size": str(size)}


def test_the_script_finds_the_python_that_has_tensorrt_llm_first(tmp_path: Path) -> None:
    script = tmp_path / "trtllm-llmapi-launch"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    path = search_path(str(tmp_path))

    assert path == f"{Path(sys.executable).parent}:{tmp_path}"
    assert wrap(("python", "-m", "x"), path) == (str(script), "python", "-m", "x")
    with pytest.raises(LaunchError, match=r"with a space in a path: '/my models/x\.json'"):
        wrap(("python", "/my models/x.json"), path)


def test_a_host_without_the_script_is_told_so() -> None:
    with pytest.raises(LaunchError, match="is not on the PATH"):
        wrap(("python",), "/nowhere")


def test_inside_the_one_worker_is_not_started_again_and_ends_the_rest() -> None:
    assert is_inside(inside(4))
    assert not is_inside({})

    found = for_one_life(topology(), inside(4))

    worker, router, *_ = found.children
    assert isinstance(worker, Node)
    assert isinstance(router, Node)
    assert (worker.restart, worker.significant) == (Restart.TEMPORARY, True)
    assert (router.restart, router.significant) == (Restart.PERMANENT, False)
    assert found.supervision.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT


def test_inside_of_one_rank_a_topology_that_needs_none_is_as_it_is() -> None:
    given = topology("launcher: mpi")

    assert for_one_life(given, inside(1)) is given


@pytest.mark.parametrize(
    ("given", "size", "why"),
    [
        (topology(), 2, "has started 2 ranks .* the topology has worker of 4 ranks"),
        (topology("replicas: 2"), 4, "worker of 8 ranks"),
        (topology("launcher: mpi"), 4, "none of several ranks"),
        (
            topology("", WORKER.replace("MORE", "role: b").replace("worker", "other")),
            4,
            "worker of 4 ranks and other of 4 ranks",
        ),
    ],
)
def test_inside_ranks_without_one_engine_of_that_many_are_refused(
    given: Topology, size: int, why: str
) -> None:
    with pytest.raises(LaunchError, match=why):
        for_one_life(given, inside(size))
