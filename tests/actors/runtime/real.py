"""Nodes over real servers, for the tests that break these servers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from actors.runtime.actor import Actor
from actors.runtime.address import Address
from actors.runtime.errors import AskTimeout, DeliveryError, PlaneUnavailable
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.base import Observation, Registry
from actors.runtime.registry.etcd import EtcdRegistry
from actors.runtime.transport.nats import NatsTransport
from tests.actors.runtime.stage import Note
from tests.plane import Plane

A = TypeVar("A", bound=Actor)
_numbers = itertools.count()


class RealStage:
    """Nodes in a namespace of their own on shared servers."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.namespace = f"test{next(_numbers)}"
        self.nodes: list[Node] = []

    def registry(self) -> EtcdRegistry:
        return EtcdRegistry(self.plane.etcd_settings, self.namespace)

    async def host(self, actor: type[A], role: str, **more: Any) -> A:
        """One actor in a node of its own."""
        name = f"n{len(self.nodes)}"
        transport = NatsTransport(self.plane.nats_settings, name)
        node = Node(name, self.namespace, transport, self.registry())
        self.nodes.append(node)
        await node.start([Hosted(actor=actor, role=role, **more)])
        hosted = node.cells[0].actor
        assert isinstance(hosted, actor)
        return hosted


@asynccontextmanager
async def real_stage(plane: Plane) -> AsyncIterator[RealStage]:
    """A stage whose nodes are stopped at the end."""
    opened = RealStage(plane)
    try:
        yield opened
    finally:
        for node in reversed(opened.nodes):
            await node.stop()


class View:
    """An observer that can be waited on."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self._read = 0
        self._news = asyncio.Event()

    def __call__(self, observation: Observation) -> None:
        self.observations.append(observation)
        self._news.set()

    async def until(self, holds: Callable[[Observation], bool]) -> Observation:
        """The next observation for which this holds, after the one found last."""
        while True:
            while self._read < len(self.observations):
                self._read += 1
                if holds(observation := self.observations[self._read - 1]):
                    return observation
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def observed(registry: Registry) -> AsyncIterator[View]:
    """The registry, started, and what it reports."""
    view = View()
    try:
        await registry.start(view)
        yield view
    finally:
        await registry.close()


async def ask_until_answered(actor: Actor, target: Address) -> str:
    """Ask with short timeouts until an answer comes; the test's deadline bounds it."""
    while True:
        try:
            return await actor.ask(target, Note("again"), reply=str, timeout_s=0.3)
        except (AskTimeout, PlaneUnavailable, DeliveryError):
            await asyncio.sleep(0)
