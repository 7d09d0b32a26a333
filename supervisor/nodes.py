"""The file's part of a tree: its supervisors, and the nodes with their recipes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.runtime.process import ActorSpec, NodeSpec
from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.tracing import is_wanted
from actors.runtime.transport.nats import NatsSettings
from supervisor import tree
from supervisor.launchers import llmapi
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun
from supervisor.launchers.world import Member, WorldImage
from supervisor.launchers.zygote import Image, images_of
from supervisor.layout import Layout
from supervisor.ranks import LLMAPI, Server, server_of
from supervisor.recipe import NODE_VARIABLE, Recipe, understudy
from supervisor.resources import Limits
from supervisor.topology import (
    Backoff,
    Child,
    NodeInstance,
    Supervision,
    Supervisor,
    Topology,
)
from supervisor.topology.model import HEARTBEAT_EVERY_S
from supervisor.topology.roles import BUILT_IN
from supervisor.watchdog import Deadlines

FORKABLE_VARIABLES = frozenset({"CUDA_VISIBLE_DEVICES"})
"""Environment a node may have of its own and still be forked: read when it is used. Others are
read when a library is loaded, which a zygote has done already."""
STAND_INS_A_NODE = 100_000
"""Far above what a person numbers; a stand-in shows as such by it."""
COLD_ENGINES = frozenset({"tensorrt_llm"})
"""Engines that must not be forked (MPI, CUDA)."""


class Nodes:
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
        self._worlds: dict[str, list[tuple[bool, Member]]] = {}
        """By name: of each node whether it generates, and what it is there."""
        self._world_env: dict[str, dict[str, str]] = {}
        """By name: what the `env` of all its nodes have alike."""

    def images(self) -> list[Image]:
        """What zygotes have to preload for the nodes made so far, one image each."""
        tracing = is_wanted(self._topology.tracing, self._environ)
        return images_of(self._images, self._topology.base_dir, tracing=tracing)

    def worlds(self) -> list[WorldImage]:
        """What nodes made so far share an mpirun; contexts come first, as on TensorRT-LLM's
        page."""
        return [
            WorldImage(
                name=f"world/{name}",
                nodes=tuple(member for _, member in sorted(nodes, key=_generates)),
                socket=str(self._layout.state / f"world-{name}.sock"),
                env=self._world_env[name],
            )
            for name, nodes in self._worlds.items()
        ]

    def _join_world(self, instance: NodeInstance, server: Server) -> str | None:
        name = instance.node.world
        if name is None:
            return None
        generates = any(actor.class_path != BUILT_IN["context"] for actor in instance.node.actors)
        member = Member(str(self._layout.node_spec(instance.name)), server.engine, server.ranks)
        self._worlds.setdefault(name, []).append((generates, member))
        own = instance.node.env
        alike = self._world_env.get(name, own)
        self._world_env[name] = {k: v for k, v in alike.items() if own.get(k) == v}
        return f"world/{name}"

    def specs(self, children: tuple[Child, ...]) -> tuple[tree.Spec, ...]:
        """The same children as parts of a tree."""
        specs: list[tree.Spec] = []
        for child in children:
            if isinstance(child, Supervisor):
                specs.append(self._supervisor(child))
            else:
                nodes = [self._node(instance) for instance in child.instances()]
                specs += nodes
                specs += [understudy(nodes[0], number) for number in child.understudies()]
        return tuple(specs)

    def _supervisor(self, child: Supervisor) -> tree.SupervisorSpec:
        return msgspec.structs.replace(
            supervisor_spec(child.name, child.supervision, self.specs(child.children)),
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

    def _host_silence_s(self) -> float | None:
        # Of the only one there is, nobody but its own supervisor could say anything.
        return self._topology.node_timeout_s if len(self._topology.machines) > 1 else None

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
            host=self._topology.here,
            host_silence_s=self._host_silence_s(),
            link=str(self._layout.socket),
            orphan_timeout_s=self._topology.orphan_timeout_s,
            heartbeat_s=HEARTBEAT_EVERY_S,
            log_level=self._log_level,
            tracing=self._topology.tracing,
        )
        # -P: the process puts the topology's directory on the path itself; its working directory
        # is for data, and a file there must not hide a module.
        argv: tuple[str, ...] = (sys.executable, "-P", "-m", "actors.runtime.process")
        own_env = {NODE_VARIABLE: instance.name, **instance.node.env}
        found: dict[str, str] = {}
        server = server_of(instance.node, self._topology.base_dir)
        if server is None:
            zygote = _zygote_of(instance)
            if zygote is not None:
                self._images.append((zygote, spec.actors))
        else:
            zygote = self._join_world(instance, server)
            own_env = {**ENVIRONMENT, **own_env}
            if instance.node.launcher == LLMAPI:
                path = llmapi.search_path(own_env.get("PATH", self._environ.get("PATH")))
                words = (*argv, str(self._layout.node_spec(instance.name)))
                worker, found = llmapi.wrap(words, path)[:-1], {"PATH": path}
            else:
                worker = (sys.executable, "-P", "-m", "actors.worker")
            argv = command(find_mpirun(self._environ), server.ranks, worker)
        return Recipe(
            argv=(*argv, str(self._layout.node_spec(instance.name))),
            env={**self._environ, "PYTHONUNBUFFERED": "1", **own_env, **found},
            ranks=None if server is None else server.ranks,
            outlived=instance.node.launcher == LLMAPI,
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
            stand_ins_from=_stand_ins_from(self._topology),
        )


def _generates(member: tuple[bool, Member]) -> bool:
    return member[0]


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


def _stand_ins_from(topology: Topology) -> int:
    """Other nodes have replicas of the same roles, and stand-ins at the same time."""
    if topology.here is None:
        return 0
    return STAND_INS_A_NODE * (list(topology.machines).index(topology.here) + 1)


def _may_surge(instance: NodeInstance) -> bool:
    """Whether two of it can run at once, as the file says or by what it would have to share."""
    if instance.node.surge is not None:
        return instance.node.surge
    return not instance.node.gpus and all(
        actor.class_path != BUILT_IN["ingress"] or actor.options.get("port") != 0
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


def supervisor_spec(
    name: str, supervision: Supervision, children: tuple[tree.Spec, ...]
) -> tree.SupervisorSpec:
    """A supervisor with the settings of the file, the root or one inside."""
    return tree.SupervisorSpec(
        id=name,
        strategy=tree.Strategy(supervision.strategy.value),
        intensity=supervision.intensity,
        period_s=supervision.period_s,
        auto_shutdown=tree.AutoShutdown(supervision.auto_shutdown.value),
        children=children,
    )
