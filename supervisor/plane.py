"""The supervisor's own part of a tree: the guard, the zygotes, the embedded servers.

Started before everything that is the file's, and stopped after it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from supervisor import guard, services, tree
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun
from supervisor.launchers.world import WorldImage
from supervisor.launchers.zygote import Image
from supervisor.layout import Layout
from supervisor.probes import (
    HELPER_DEADLINES,
    SERVER_DEADLINES,
    Probe,
    etcd_probe,
    nats_probe,
)
from supervisor.recipe import NODE_VARIABLE, Recipe
from supervisor.topology import Topology

PLANE = "supervisor/plane"
GUARD = "supervisor/guard"
NATS = "nats"
ETCD = "etcd"
SERVER_START_DEADLINE_S = 30.0
SERVER_SHUTDOWN_S = 5.0
PLANE_INTENSITY = 30
"""Generous: actors live through an outage of either server, so there is no use in giving up."""
PLANE_PERIOD_S = 60.0
ZYGOTE_ENVIRONMENT = MappingProxyType({"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"})
"""A library that starts threads when it is imported could not be forked."""
MAX_LEAVE_S = 60.0
"""What an orphaned node gets at most, from when it begins to leave, whatever the file says."""
SERVER_BACKOFF = tree.Backoff(initial_s=0.1, max_s=2.0)
PROBES = MappingProxyType({NATS: nats_probe, ETCD: etcd_probe})


def plane_spec(
    servers: Sequence[services.Server],
    helpers: Sequence[tree.ChildSpec],
    layout: Layout,
    environ: Mapping[str, str],
) -> tree.SupervisorSpec:
    """The supervisor of `helpers`, which are started first, and of the servers."""
    env = services.server_environment(environ)
    return tree.SupervisorSpec(
        id=PLANE,
        strategy=tree.Strategy.ONE_FOR_ONE,
        intensity=PLANE_INTENSITY,
        period_s=PLANE_PERIOD_S,
        children=(
            # They import while the servers start.
            *helpers,
            *(
                tree.ChildSpec(
                    id=server.name,
                    shutdown_s=SERVER_SHUTDOWN_S,
                    start_deadline_s=SERVER_START_DEADLINE_S,
                    backoff=SERVER_BACKOFF,
                    data=Recipe(
                        argv=server.argv,
                        env={**dict(server.env), **env},
                        cwd=str(layout.state),
                        ready_mark=server.ready_mark,
                        probe=_probe(server),
                        watchdog=SERVER_DEADLINES,
                    ),
                )
                for server in servers
            ),
        ),
    )


def _probe(server: services.Server) -> Probe:
    return replace(PROBES[server.name](server.port), host=server.host, tls=server.tls)


def guard_spec(
    topology: Topology, layout: Layout, environ: Mapping[str, str], nodes: Iterable[tree.Spec]
) -> tree.ChildSpec:
    """See `supervisor.guard`."""
    leave_s = max((_leave_s(spec) for spec in nodes), default=0.0)
    return tree.ChildSpec(
        id=GUARD,
        shutdown_s=SERVER_SHUTDOWN_S,
        backoff=SERVER_BACKOFF,
        data=Recipe(
            argv=guard.command_line(layout, topology.orphan_timeout_s, leave_s),
            env=dict(environ),
            cwd=str(layout.state),
            pulse=True,
            watchdog=HELPER_DEADLINES,
        ),
    )


def _leave_s(spec: tree.Spec) -> float:
    """How long the slowest node takes to leave in good order."""
    if isinstance(spec, tree.SupervisorSpec):
        return max((_leave_s(child) for child in spec.children), default=0.0)
    if spec.shutdown_s is None:
        return MAX_LEAVE_S
    return min((spec.drain_s or 0.0) + spec.shutdown_s, MAX_LEAVE_S)


def zygote_specs(
    images: Iterable[Image], layout: Layout, environ: Mapping[str, str]
) -> list[tree.ChildSpec]:
    """A zygote for each image."""
    return [
        tree.ChildSpec(
            id=image.name,
            shutdown_s=SERVER_SHUTDOWN_S,
            backoff=SERVER_BACKOFF,
            data=Recipe(
                argv=(),
                env={**environ, **ZYGOTE_ENVIRONMENT},
                cwd=str(layout.state),
                image=image,
                pulse=True,
                watchdog=HELPER_DEADLINES,
            ),
        )
        for image in images
    ]


def world_specs(
    images: Iterable[WorldImage], layout: Layout, environ: Mapping[str, str]
) -> list[tree.ChildSpec]:
    """A world for each image. It is never started again: see `launchers.world`."""
    worker = (sys.executable, "-P", "-m", "actors.worker", "--world")
    return [
        tree.ChildSpec(
            id=image.name,
            restart=tree.Restart.TEMPORARY,
            shutdown_s=SERVER_SHUTDOWN_S,
            data=Recipe(
                argv=command(
                    find_mpirun(environ),
                    sum(member.ranks for member in image.nodes),
                    (*worker, image.socket, *(f"{m.engine}:{m.ranks}" for m in image.nodes)),
                    survives=True,
                ),
                env={
                    **environ,
                    **ENVIRONMENT,
                    "PYTHONUNBUFFERED": "1",
                    **image.env,
                    NODE_VARIABLE: image.name,
                },
                cwd=str(layout.state),
                world=image,
            ),
        )
        for image in images
    ]
