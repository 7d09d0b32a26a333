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
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from actors.runtime.process import ActorSpec, NodeSpec
from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings, TlsFiles
from supervisor import services, tree
from supervisor.launchers.zygote import Image, images_of
from supervisor.layout import Layout
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

ROOT = "supervisor"
PLANE = "supervisor/plane"
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
SERVER_BACKOFF = tree.Backoff(initial_s=0.1, max_s=2.0)


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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a supervisor needs to know before its first process."""

    namespace: str
    topology: Path
    tree: tree.SupervisorSpec
    nats: NatsSettings
    etcd: EtcdSettings
    ports: dict[str, int]
    """Of the embedded servers."""


def make_plan(
    topology: Topology,
    layout: Layout,
    environ: Mapping[str, str],
    *,
    log_level: str = "info",
) -> Plan:
    """Choose ports, write the servers' configuration, and lay the tree out.

    Raises ServerNotFoundError, OSError.
    """
    nats_port, etcd_port, peer_port = services.free_ports(3)
    servers: list[services.Server] = []
    if topology.nats.embedded:
        own_nats = services.embed_nats(layout, environ, topology.nats.port or nats_port)
        servers.append(own_nats.server)
        nats = NatsSettings(urls=(own_nats.url,), token=own_nats.token)
    else:
        nats = nats_settings(topology.nats)
    if topology.etcd.embedded:
        own_etcd = services.embed_etcd(layout, environ, topology.etcd.port or etcd_port, peer_port)
        servers.append(own_etcd.server)
        etcd = EtcdSettings(urls=(own_etcd.url,))
    else:
        etcd = etcd_settings(topology.etcd)
    nodes = _Nodes(topology, layout, environ, nats, etcd, log_level)
    children = nodes.specs(topology.children)
    zygotes = nodes.zygotes(topology.base_dir)
    if servers or zygotes:
        children = (_plane(servers, zygotes, layout, environ), *children)
    return Plan(
        namespace=topology.namespace,
        topology=topology.path,
        tree=_supervisor(ROOT, topology.supervision, children),
        nats=nats,
        etcd=etcd,
        ports={server.name: server.port for server in servers},
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
    zygotes: list[tree.ChildSpec],
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
            # The zygotes first: they import while the servers start.
            *zygotes,
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
            drain_s=node.drain_s or None,
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
                    options=msgspec.Raw(msgspec.json.encode(actor.options)),
                )
                for actor in instance.actors
            ),
            link=str(self._layout.socket),
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
        )


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
