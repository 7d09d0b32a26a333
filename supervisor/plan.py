"""From a topology to what is run: a tree of specs, and for each leaf how to start it.

    supervisor                 the file's own supervision settings
    ├── supervisor/plane       see `plane`
    │   ├── supervisor/guard    see `guard`
    │   ├── zygote/worker, ...  see `launchers.zygote`
    │   ├── world/...           see `launchers.world`
    │   ├── nats                these two if they are embedded, see `connections`
    │   └── etcd
    └── the file's children    see `nodes`; one with N replicas is N: context/0, context/1

No id of ours can be an id of the file's: `supervisor`, `nats` and `etcd` are reserved there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings
from supervisor import tree
from supervisor.connections import connect
from supervisor.layout import Layout
from supervisor.leftovers import STATE_VARIABLE
from supervisor.nodes import Nodes, supervisor_spec
from supervisor.plane import PLANE, guard_spec, plane_spec, world_specs, zygote_specs
from supervisor.runstate import RunState
from supervisor.topology import Topology

ROOT = "supervisor"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a supervisor needs to know before its first process."""

    namespace: str
    topology: Path
    tree: tree.SupervisorSpec
    nats: NatsSettings
    etcd: EtcdSettings
    ports: dict[str, int]
    """Of the embedded servers."""
    etcd_peer_port: int | None = None
    """Of the embedded etcd."""
    here: str | None = None
    """The node of the topology that this is the plan of; None where it has no more than one."""
    machines: tuple[str, ...] = ()
    """All nodes of the topology."""


def make_plan(
    topology: Topology,
    layout: Layout,
    environ: Mapping[str, str],
    *,
    log_level: str = "info",
    last: RunState | None = None,
) -> Plan:
    """Choose ports, write the servers' configuration, and lay the tree out.

    Embedded servers get the ports and the token they had under the `last` supervisor, so that
    what it has left can be taken over. Raises ServerNotFoundError, LoginNotSetError, OSError.
    """
    environ = _marked(environ, layout)
    found = connect(topology, layout, environ, last)
    nodes = Nodes(topology, layout, environ, found.nats, found.etcd, log_level)
    children = nodes.specs(topology.children)
    # The guard first: it is the last to be stopped.
    helpers = [
        guard_spec(topology, layout, environ, children),
        *zygote_specs(nodes.images(), layout, environ),
        *world_specs(nodes.worlds(), layout, environ),
    ]
    plane = plane_spec(found.servers, helpers, layout, environ)
    return Plan(
        namespace=topology.namespace,
        topology=topology.path,
        tree=supervisor_spec(ROOT, topology.supervision, (plane, *children)),
        nats=found.nats,
        etcd=found.etcd,
        ports={server.name: server.port for server in found.servers},
        etcd_peer_port=found.etcd_peer_port,
        here=topology.here,
        machines=tuple(topology.machines),
    )


def replan(
    plan: Plan,
    topology: Topology,
    layout: Layout,
    environ: Mapping[str, str],
    *,
    log_level: str = "info",
) -> Plan:
    """A plan for another version of the topology, with the servers that run already.

    Zygotes stay as they are, too: what they have not imported a fork of them imports itself, and
    to replace one would help no node that runs. Only missing ones are added.
    """
    environ = _marked(environ, layout)
    nodes = Nodes(topology, layout, environ, plan.nats, plan.etcd, log_level)
    children = nodes.specs(topology.children)
    zygotes = zygote_specs(nodes.images(), layout, environ)
    plane = next((spec for spec in plan.tree.children if spec.id == PLANE), None)
    if plane is None:
        plane = plane_spec([], [], layout, environ)
    assert isinstance(plane, tree.SupervisorSpec), "the plane is a supervisor"
    known = {spec.id for spec in plane.children}
    added = tuple(spec for spec in zygotes if spec.id not in known)
    plane = msgspec.structs.replace(plane, children=(*plane.children, *added))
    if plane.children:
        children = (plane, *children)
    return msgspec.structs.replace(
        plan,
        topology=topology.path,
        tree=supervisor_spec(ROOT, topology.supervision, children),
    )


def _marked(environ: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """With what tells our processes from all others, should we have no time to write them down."""
    return {**environ, STATE_VARIABLE: str(layout.state)}
