"""Nodes over the local bus, and the actors that play on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from actors.runtime.actor import Actor, Down, Joined, Returned, handler
from actors.runtime.errors import Declined
from actors.runtime.message import Message
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.transport.local import LocalBus, LocalTransport

A = TypeVar("A", bound=Actor)
NAMESPACE = "test"


class Note(Message, frozen=True):
    text: str


class Wait(Message, frozen=True):
    """Answered once the echo's gate is open."""

    text: str


class Beside(Message, frozen=True):
    """As `Wait`, but handled concurrently."""

    text: str


class Fail(Message, frozen=True):
    text: str


class Decline(Message, frozen=True):
    text: str


class Produce(Message, frozen=True):
    """Answered with so many bytes; with something that cannot travel when negative."""

    size: int


class Foreign(Message, frozen=True):
    """A message no actor here takes."""

    text: str


class Echo(Actor):
    """Answers, waits, fails: whatever it is told to."""

    class Options(msgspec.Struct, frozen=True):
        suffix: str = "!"

    options: Options
    mailbox_limit = 4

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.gate = asyncio.Event()
        self.heard: list[str] = []
        self.running = 0
        self.most_running = 0
        self.published: object | None = None
        self.events: list[str] = []

    def meta(self) -> object | None:
        return self.published

    async def draining(self) -> None:
        self.events.append("draining")

    async def stopping(self) -> None:
        self.events.append("stopping")

    @handler
    async def note(self, message: Note) -> str:
        self.heard.append(message.text)
        return message.text + self.options.suffix

    @handler
    async def wait(self, message: Wait) -> str:
        return await self._pass(message.text)

    @handler(concurrent=True)
    async def beside(self, message: Beside) -> str:
        return await self._pass(message.text)

    async def _pass(self, text: str) -> str:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.heard.append(text)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return text

    @handler
    async def fail(self, message: Fail) -> None:
        raise KeyError(message.text)

    @handler
    async def decline(self, message: Decline) -> None:
        raise Declined(message.text)

    @handler
    async def produce(self, message: Produce) -> object:
        return object() if message.size < 0 else bytes(message.size)


class Watcher(Actor):
    """Keeps what the runtime tells it; `until` waits for a certain number of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Down | Joined | Returned] = []
        self._changed = asyncio.Condition()

    @handler
    async def see(self, message: Down | Joined | Returned) -> None:
        async with self._changed:
            self.seen.append(message)
            self._changed.notify_all()

    async def until(self, count: int) -> list[Down | Joined | Returned]:
        """What was seen, once that is `count` messages."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.seen) >= count)
        return self.seen

    def downs(self) -> list[Down]:
        return [message for message in self.seen if isinstance(message, Down)]


class Deaf(Actor):
    """Handles nothing, not even `Returned`."""


class Stage:
    """Some nodes that share a bus and a registry."""

    def __init__(self) -> None:
        self.bus = LocalBus()
        self.store = LocalStore()
        self.store.revision = 100  # so that there are lives before the first
        self.nodes: list[Node] = []

    async def node(
        self, *hosted: Hosted, host: str | None = None, host_silence_s: float | None = None
    ) -> Node:
        transport, registry = LocalTransport(self.bus), LocalRegistry(self.store)
        name = f"n{len(self.nodes)}"
        node = Node(name, NAMESPACE, transport, registry, host=host, host_silence_s=host_silence_s)
        self.nodes.append(node)
        await node.start(hosted)
        return node

    async def host(self, actor: type[A], role: str, instance: int = 0, **more: Any) -> A:
        """One actor in a node of its own."""
        node = await self.node(Hosted(actor=actor, role=role, instance=instance, **more))
        hosted = node.cells[0].actor
        assert isinstance(hosted, actor)
        return hosted


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A stage whose nodes are stopped at the end."""
    opened = Stage()
    try:
        yield opened
    finally:
        for node in reversed(opened.nodes):
            await node.stop()


async def settle() -> None:
    """Let everything go on that can go on without the clock."""
    for _ in range(20):
        await asyncio.sleep(0)
