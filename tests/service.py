"""A whole service in one process: every role a node of its own, over the local bus.

The roles, the messages and the HTTP server are the real ones; only processes, NATS and etcd are
left out. For tests of behaviour; what needs real processes is in tests/serving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.ingress.actor import Ingress
from actors.ingress.options import IngressOptions
from actors.preprocessor.actor import Preprocessor
from actors.router.actor import Router
from actors.runtime.actor import Actor
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.transport.local import LocalBus, LocalTransport
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker
from actors.worker.options import WorkerOptions

CAPITALS = Path(__file__).parent.parent / "topologies" / "models" / "capitals"
MODEL = "test/simulated"


def simulated(**options: Any) -> dict[str, Any]:
    """Worker options with an infinitely fast simulated engine."""
    engine = {"kind": "simulated", "tokenizer": str(CAPITALS), "speedup": 0, **options}
    return {"model": MODEL, "engine": engine}


class Service:
    """The nodes of one service, by name."""

    def __init__(self, namespace: str = "test") -> None:
        self.namespace = namespace
        self.bus = LocalBus()
        self.store = LocalStore()
        self.nodes: dict[str, Node] = {}

    async def start(self, *hosted: Hosted) -> Node:
        """Start one node that hosts these actors, named after the first."""
        name = f"{hosted[0].role}/{hosted[0].instance}"
        node = Node(name, self.namespace, LocalTransport(self.bus), LocalRegistry(self.store))
        self.nodes[name] = node
        await node.start(hosted)
        return node

    async def start_worker(
        self, actor: type[Actor], role: str, instance: int = 0, **options: Any
    ) -> Node:
        decoded = msgspec.convert(simulated(**options), WorkerOptions)
        return await self.start(Hosted(actor=actor, role=role, instance=instance, options=decoded))

    async def start_roles(self, **ingress: Any) -> Ingress:
        """Router, preprocessor and ingress, each in its own node; returns the ingress."""
        await self.start(Hosted(actor=Router, role="router"))
        await self.start(Hosted(actor=Preprocessor, role="preprocessor"))
        options = IngressOptions(port=0, **ingress)
        node = await self.start(Hosted(actor=Ingress, role="ingress", options=options))
        actor = node.cells[0].actor
        assert isinstance(actor, Ingress)
        return actor

    async def stop(self) -> None:
        for node in reversed(self.nodes.values()):
            await node.stop()


@asynccontextmanager
async def disaggregated(
    *, ingress: dict[str, Any] | None = None, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    """One context and one generation worker with simulated engines, and the light roles."""
    service = Service()
    try:
        await service.start_worker(ContextWorker, "context", **engine)
        await service.start_worker(GenerationWorker, "generation", **engine)
        yield service, await service.start_roles(**(ingress or {}))
    finally:
        await service.stop()


@asynccontextmanager
async def aggregated(
    *, ingress: dict[str, Any] | None = None, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    """One aggregated worker with a simulated engine, and the light roles."""
    service = Service()
    try:
        await service.start_worker(AggregatedWorker, "aggregated", **engine)
        yield service, await service.start_roles(**(ingress or {}))
    finally:
        await service.stop()
