"""From a topology to what is run: a tree of specs, and for each leaf how to start it.

    supervisor                 the file's own supervision settings
    ├── supervisor/plane       the embedded servers, if any, and the zygotes
    │   ├── zygote/worker, ...  see `launchers.zygote`
    │   ├── nats
    │   └── etcd
    └── the file's children    a node with N replicas is N children: context/0, context/1

No id of ours can be an id of the file's: `supervisor`, `nats` and `etcd` are reserved there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from actors.runtime.process import ActorSpec, NodeSpec
from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings, TlsFiles
from supervisor import guard, services, tree
from supervisor.adoption import identity_of
from supervisor.launchers.zygote import Image, images_of
from supervisor.layout import Layout, file_name
from supervisor.leftovers import STATE_VARIABLE
from supervisor.probes import SERVER_DEADLINES, Probe, etcd_probe, nats_probe
from supervisor.resources import Limits
from supervisor.runstate import RunState, still_runs
from supervisor.topology import (
    Backoff,
    Child,
    NodeInstance,
    Service,
    Supervision,
    Supervisor,
    Tls,
    Topology,
)
from supervisor.topology.model import HEARTBEAT_EVERY_S
from supervisor.topology.roles import BUILT_IN
from supervisor.watchdog import Deadlines

ROOT = "supervisor"
PLANE = "supervisor/plane"
GUARD = "supervisor/guard"
SERVER_START_DEADLINE_S = 30.0
SERVER_SHUTDOWN_S = 5.0
PLANE_INTENSITY = 30
"""Generous: actors live through an outage of either server, so there is no use in giving up."""
PLANE_PERIOD_S = 60.0
ZYGOTE_ENVIRONMENT = MappingProxyType({"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"})
"""A library that starts threads when it is imported could not be forked."""
NODE_VARIABLE = "UNDERSTUDY_NODE"
"""In the environment of every node and of what it starts: whose it is."""
FORKABLE_VARIABLES = frozenset({"CUDA_VISIBLE_DEVICES"})
"""Environment a node may have of its own and still be forked: read when it is used. Others are
read when a library is loaded, which a zygote has done already."""
COLD_ENGINES = frozenset({"tensorrt_llm"})
"""Engines that must not be forked (MPI, CUDA)."""
MAX_LEAVE_S = 60.0
"""What an orphaned node gets at most, from when it begins to leave, whatever the file says."""
SERVER_BACKOFF = tree.Backoff(initial_s=0.1, max_s=2.0)
PROBES = MappingProxyType({"nats": nats_probe, "etcd": etcd_probe})


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one leaf; the `data` of its `ChildSpec`."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    ready_mark: bytes | None = None
    """Of a server, see `services.Server`. A node says over its link that it is ready."""
    node: NodeSpec | None = None
    """What goes into a node's file, but for `run` and `above`, which each start has its own of."""
    own_env: dict[str, str] = {}
    """The part of `env` that is this node's alone."""
    zygote: str | None = None
    """The child that can fork this node; None starts it in a process of its own."""
    image: Image | None = None
    """Set for a zygote: what it preloads."""
    probe: Probe | None = None
    """Of a server: how it is asked whether it lives."""
    watchdog: Deadlines | None = None
    """When it has failed although its process lives; None: never."""
    limits: Limits = Limits()
    gpus: int | None = None
    """How many GPUs it gets for itself alone; None leaves all visible."""
    surge: bool = False
    """Whether a stand-in may run beside it while it is being replaced, see `change.rollout`."""


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
    what it has left can be taken over. Raises ServerNotFoundError, OSError.
    """
    environ = _marked(environ, layout)
    nats_port, etcd_port, peer_port = _ports(topology, last)
    servers: list[services.Server] = []
    if topology.nats.embedded:
        token = None if last is None else last.nats_token
        own_nats = services.embed_nats(layout, environ, nats_port, token)
        servers.append(own_nats.server)
        nats = NatsSettings(urls=(own_nats.url,), token=own_nats.token)
    else:
        nats = nats_settings(topology.nats)
    if topology.etcd.embedded:
        own_etcd = services.embed_etcd(layout, environ, etcd_port, peer_port)
        servers.append(own_etcd.server)
        etcd = EtcdSettings(urls=(own_etcd.url,))
    else:
        etcd = etcd_settings(topology.etcd)
    nodes = _Nodes(topology, layout, environ, nats, etcd, log_level)
    children = nodes.specs(topology.children)
    # The guard first: it is the last to be stopped.
    helpers = [
        _guard(topology, layout, environ, children),
        *nodes.zygotes(topology.base_dir),
    ]
    return Plan(
        namespace=topology.namespace,
        topology=topology.path,
        tree=_supervisor(
            ROOT,
            topology.supervision,
            (_plane(servers, helpers, layout, environ), *children),
        ),
        nats=nats,
        etcd=etcd,
        ports={server.name: server.port for server in servers},
        etcd_peer_port=peer_port if topology.etcd.embedded else None,
    )


def identities(spec: tree.Spec) -> dict[str, str]:
    """By id: with what each leaf is started that a later supervisor could take over.

    All but the zygotes, which speak to the one that started them. What a node is told anew with
    each start (`run`, `above`) is not part of it, nor is the supervisor's own environment.
    """
    return {name: identity(recipe) for name, recipe in leaves(spec) if recipe.image is None}


def identity(recipe: Recipe) -> str:
    """What `identities` has for one leaf."""
    return identity_of(
        recipe.argv,
        recipe.cwd,
        recipe.own_env,
        recipe.node,
        recipe.probe,
        recipe.limits,
        recipe.gpus,
    )


def leaves(spec: tree.Spec) -> Iterator[tuple[str, Recipe]]:
    """Every leaf's id and recipe, in start order."""
    if isinstance(spec, tree.ChildSpec):
        yield spec.id, spec.data
    else:
        for child in spec.children:
            yield from leaves(child)


def _marked(environ: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """With what tells our processes from all others, should we have no time to write them down."""
    return {**environ, STATE_VARIABLE: str(layout.state)}


def _ports(topology: Topology, last: RunState | None) -> tuple[int, int, int]:
    """Of NATS, of etcd, and for etcd's peers: the file's, else those of the last time, else any."""
    fresh = services.free_ports(3)
    known = {} if last is None else last.ports
    peer = None if last is None else last.etcd_peer_port
    running = {child.name for child in (last.children if last else ()) if still_runs(child)}

    def choose(server: str, said: int | None, before: int | None, fresh: int) -> int:
        # Nodes that outlived their server look for it where it was.
        kept = before is not None and (server in running or services.is_free(before))
        return said or (before if before is not None and kept else fresh)

    return (
        choose("nats", topology.nats.port, known.get("nats"), fresh[0]),
        choose("etcd", topology.etcd.port, known.get("etcd"), fresh[1]),
        choose("etcd", None, peer, fresh[2]),
    )


def _guard(
    topology: Topology, layout: Layout, environ: Mapping[str, str], nodes: tuple[tree.Spec, ...]
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
        ),
    )


def _leave_s(spec: tree.Spec) -> float:
    """How long the slowest node takes to leave in good order."""
    if isinstance(spec, tree.SupervisorSpec):
        return max((_leave_s(child) for child in spec.children), default=0.0)
    if spec.shutdown_s is None:
        return MAX_LEAVE_S
    return min((spec.drain_s or 0.0) + spec.shutdown_s, MAX_LEAVE_S)


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
    nodes = _Nodes(topology, layout, environ, plan.nats, plan.etcd, log_level)
    children = nodes.specs(topology.children)
    zygotes = nodes.zygotes(topology.base_dir)
    plane = next((spec for spec in plan.tree.children if spec.id == PLANE), None)
    if plane is None:
        plane = _plane([], [], layout, environ)
    assert isinstance(plane, tree.SupervisorSpec), "the plane is a supervisor"
    known = {spec.id for spec in plane.children}
    added = tuple(spec for spec in zygotes if spec.id not in known)
    plane = msgspec.structs.replace(plane, children=(*plane.children, *added))
    if plane.children:
        children = (plane, *children)
    return msgspec.structs.replace(
        plan,
        topology=topology.path,
        tree=_supervisor(ROOT, topology.supervision, children),
    )


def renumbered(spec: tree.ChildSpec, number: int) -> tree.ChildSpec:
    """The same node as another instance of its roles."""
    recipe = spec.data
    assert isinstance(recipe, Recipe), "a plan's leaves have recipes"
    assert recipe.node is not None, "only nodes have numbers"
    name = f"{spec.id.rpartition('/')[0]}/{number}"
    actors = tuple(msgspec.structs.replace(a, instance=number) for a in recipe.node.actors)
    own_env = {**recipe.own_env, NODE_VARIABLE: name}
    *argv, file = recipe.argv
    return msgspec.structs.replace(
        spec,
        id=name,
        data=msgspec.structs.replace(
            recipe,
            argv=(*argv, str(Path(file).with_name(f"{file_name(name)}.json"))),
            env={**recipe.env, **own_env},
            own_env=own_env,
            node=msgspec.structs.replace(recipe.node, name=name, actors=actors),
        ),
    )


def nats_settings(service: Service) -> NatsSettings:
    """How nodes reach a NATS of the file's own."""
    return NatsSettings(
        urls=service.urls,
        user=service.user,
        password=service.password,
        token=service.token,
        credentials=service.credentials,
        tls=_tls(service.tls),
    )


def etcd_settings(service: Service) -> EtcdSettings:
    """How nodes reach an etcd of the file's own."""
    return EtcdSettings(
        urls=service.urls,
        user=service.user,
        password=service.password,
        tls=_tls(service.tls),
    )


def _tls(tls: Tls | None) -> TlsFiles | None:
    return None if tls is None else TlsFiles(ca=tls.ca, cert=tls.cert, key=tls.key)


def _plane(
    servers: list[services.Server],
    helpers: list[tree.ChildSpec],
    layout: Layout,
    environ: Mapping[str, str],
) -> tree.SupervisorSpec:
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
                        env=env,
                        cwd=str(layout.state),
                        ready_mark=server.ready_mark,
                        probe=PROBES[server.name](server.port),
                        watchdog=SERVER_DEADLINES,
                    ),
                )
                for server in servers
            ),
        ),
    )


class _Nodes:
    """Turns the children of a topology into those of a tree."""

    def __init__(
        self,
        topology: Topology,
        layout: Layout,
        environ: Mapping[str, str],
        nats: NatsSettings,
        etcd: EtcdSettings,
        log_level: str,
    ) -> None:
        self._topology = topology
        self._layout = layout
        self._environ = environ
        self._nats = nats
        self._etcd = etcd
        self._log_level = log_level
        self._images: list[tuple[str, tuple[ActorSpec, ...]]] = []

    def zygotes(self, base_dir: Path) -> list[tree.ChildSpec]:
        """A zygote for each image that the nodes made so far want."""
        return [
            tree.ChildSpec(
                id=image.name,
                shutdown_s=SERVER_SHUTDOWN_S,
                backoff=SERVER_BACKOFF,
                data=Recipe(
                    argv=(),
                    env={**self._environ, **ZYGOTE_ENVIRONMENT},
                    cwd=str(self._layout.state),
                    image=image,
                ),
            )
            for image in images_of(self._images, base_dir)
        ]

    def specs(self, children: tuple[Child, ...]) -> tuple[tree.Spec, ...]:
        specs: list[tree.Spec] = []
        for child in children:
            if isinstance(child, Supervisor):
                specs.append(self._supervisor(child))
            else:
                specs += [self._node(instance) for instance in child.instances()]
        return tuple(specs)

    def _supervisor(self, child: Supervisor) -> tree.SupervisorSpec:
        return msgspec.structs.replace(
            _supervisor(child.name, child.supervision, self.specs(child.children)),
            restart=tree.Restart(child.restart.value),
            significant=child.significant,
        )

    def _node(self, instance: NodeInstance) -> tree.ChildSpec:
        node = instance.node
        return tree.ChildSpec(
            id=instance.name,
            restart=tree.Restart(node.restart.value),
            significant=node.significant,
            drain_s=(node.drain_s or None) if node.shutdown_s else None,
            shutdown_s=None if math.isinf(node.shutdown_s) else node.shutdown_s,
            brutal_kill=node.shutdown_s == 0,
            start_deadline_s=node.start_deadline_s or None,
            backoff=_backoff(node.backoff),
            max_failures=node.max_failures,
            data=self._recipe(instance),
        )

    def _recipe(self, instance: NodeInstance) -> Recipe:
        spec = NodeSpec(
            name=instance.name,
            namespace=self._topology.namespace,
            base_dir=str(self._topology.base_dir),
            nats=self._nats,
            etcd=self._etcd,
            actors=tuple(
                ActorSpec(
                    actor=actor.class_path,
                    role=actor.role,
                    instance=actor.instance,
                    # In a fixed order: an option that has moved in the file is not a change.
                    options=msgspec.Raw(msgspec.json.encode(actor.options, order="deterministic")),
                )
                for actor in instance.actors
            ),
            link=str(self._layout.socket),
            orphan_timeout_s=self._topology.orphan_timeout_s,
            heartbeat_s=HEARTBEAT_EVERY_S,
            log_level=self._log_level,
        )
        # -P: the process puts the topology's directory on the path itself; its working directory
        # is for data, and a file there must not hide a module.
        argv = (sys.executable, "-P", "-m", "actors.runtime.process")
        own_env = {NODE_VARIABLE: instance.name, **instance.node.env}
        zygote = _zygote_of(instance)
        if zygote is not None:
            self._images.append((zygote, spec.actors))
        return Recipe(
            argv=(*argv, str(self._layout.node_spec(instance.name))),
            env={**self._environ, "PYTHONUNBUFFERED": "1", **own_env},
            own_env=own_env,
            cwd=instance.node.cwd,
            node=spec,
            zygote=zygote,
            watchdog=_deadlines(instance),
            limits=Limits(
                nice=instance.node.nice,
                cpus=instance.node.cpus,
                memory_bytes=instance.node.memory_bytes,
                open_files=instance.node.open_files,
            ),
            gpus=instance.node.gpus,
            surge=_may_surge(instance),
        )


def _deadlines(instance: NodeInstance) -> Deadlines | None:
    limits = instance.node.watchdog
    if limits == "off":
        return None
    return Deadlines(heartbeat_s=limits.heartbeat_s, progress_s=limits.progress_s)


def _zygote_of(instance: NodeInstance) -> str | None:
    """Which zygote can fork the node, if any can."""
    node = instance.node
    if not node.fork or not node.env.keys() <= FORKABLE_VARIABLES:
        return None
    modules = {actor.class_path.partition(":")[0] for actor in instance.actors}
    if any(_may_not_fork(actor.options) for actor in instance.actors):
        return None
    if not all(module.startswith("actors.") for module in modules):
        return "zygote/own"
    return "zygote/worker" if "actors.worker.actor" in modules else "zygote/light"


def _may_surge(instance: NodeInstance) -> bool:
    """Whether two of it can run at once, as the file says or by what it would have to share."""
    if instance.node.surge is not None:
        return instance.node.surge
    return not instance.node.gpus and all(
        actor.class_path != BUILT_IN["ingress"] or actor.options.get("reuse_port") is True
        for actor in instance.actors
    )


def _may_not_fork(options: dict[str, Any]) -> bool:
    engine = options.get("engine")
    return isinstance(engine, dict) and engine.get("kind") in COLD_ENGINES


def _backoff(backoff: Backoff) -> tree.Backoff:
    # The first restart after a stable run is immediate: that is when a service is waiting for it.
    return tree.Backoff(
        first_s=0.0,
        initial_s=backoff.initial_s,
        factor=backoff.factor,
        max_s=backoff.max_s,
        jitter=backoff.jitter,
        reset_after_s=backoff.reset_after_s,
    )


def _supervisor(
    name: str, supervision: Supervision, children: tuple[tree.Spec, ...]
) -> tree.SupervisorSpec:
    return tree.SupervisorSpec(
        id=name,
        strategy=tree.Strategy(supervision.strategy.value),
        intensity=supervision.intensity,
        period_s=supervision.period_s,
        auto_shutdown=tree.AutoShutdown(supervision.auto_shutdown.value),
        children=children,
    )
