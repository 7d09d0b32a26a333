"""Topologies that several tests read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from supervisor.topology import Overrides, Topology, TopologyError, read_text

HERE = Path("/srv/x.yaml")
NO_ENVIRON: Mapping[str, str] = MappingProxyType({})

FULL = """\
namespace: capitals
nats: embedded
etcd: embedded
supervision: {strategy: one_for_one, intensity: 10, period: 60s, auto_shutdown: never}
x-engine: &engine {kind: transformers, model: models/capitals}
children:
  - name: context
    actor: context
    replicas: 2
    restart: permanent
    significant: false
    start_deadline: 120s
    drain: 0s
    shutdown: 5s
    backoff: {initial: 200ms, max: 10s, factor: 2, jitter: 0.2, reset_after: 30s}
    max_failures: null
    env: {OMP_NUM_THREADS: 1}
    cwd: .
    options: {engine: *engine}
  - name: front
    replicas: 2
    actors:
      - {actor: ingress, options: {port: 8080}}
      - {actor: preprocessor}
  - name: workers
    strategy: one_for_all
    intensity: 3
    period: 10s
    children:
      - {actor: generation, options: {engine: {<<: *engine, model: other}}}
      - {name: sums, actor: "adding.machine:Adder", shutdown: infinity}
"""


def topology(
    text: str,
    *sets: str,
    environ: Mapping[str, str] = NO_ENVIRON,
    port: int | None = None,
    namespace: str | None = None,
) -> Topology:
    overrides = Overrides(sets=sets, port=port, namespace=namespace)
    return read_text(text, HERE, environ=environ, overrides=overrides).topology


def mistakes(
    text: str, *sets: str, environ: Mapping[str, str] = NO_ENVIRON, port: int | None = None
) -> list[str]:
    """Each problem as one line, without the directory."""
    try:
        topology(text, *sets, environ=environ, port=port)
    except TopologyError as error:
        return [str(problem).removeprefix("/srv/") for problem in error.problems]
    return []
