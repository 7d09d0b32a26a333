"""A whole service in one process: every role a node of its own, over the local bus.

The roles, the messages and the HTTP server are the real ones; only processes, NATS and etcd are
left out. For tests of behaviour; what needs real processes is in tests/serving.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from actors.engines.simulated import SimulatedEngine, SimulatedOptions, expected_tokens
from actors.ingress.actor import Ingress
from actors.ingress.options import IngressOptions
from actors.messages.assign import Assigned, Rejected
from actors.messages.events import Inventory, Placed, Report
from actors.messages.explain import Explained
from actors.messages.frame import Frame
from actors.messages.route import Route
from actors.messages.submit import Submit
from actors.messages.work import Cancel, Decode, Fetched, Generate, Prefill
from actors.preprocessor.actor import Preprocessor
from actors.router.actor import Router
from actors.runtime.actor import Actor, Down, Returned, handler
from actors.runtime.message import Message
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.transport.base import Bounce, Receiver, Subscription
from actors.runtime.transport.local import LocalBus, LocalTransport
from actors.text.tokenizer import Tokenizer
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker, Worker
from actors.worker.options import WorkerOptions

CAPITALS = Path(__file__).parent.parent / "topologies" / "models" / "capitals"
MODEL = "test/simulated"
PATIENCE_S = 15.0
"""How long something that must come may take before a test fails."""

A = TypeVar("A", bound=Actor)
M = TypeVar("M", bound=Message)


# -- what the model says -----------------------------------------------------------------------


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(CAPITALS)


def packed(tokens: Sequence[int]) -> bytes:
    """Token ids as they travel."""
    return b"".join(token.to_bytes(4, "little") for token in tokens)


def encoded(text: str) -> bytes:
    """A prompt of the completions API as token ids."""
    return tokenizer().encode(text, add_special_tokens=True)


def encoded_chat(*messages: dict[str, str]) -> bytes:
    """Messages of the chat API as token ids."""
    text = tokenizer().chat_templates.render(messages)
    return tokenizer().encode(text, add_special_tokens=False)


def reference(prompt: bytes, seed: int, count: int) -> list[int]:
    """The first tokens a simulated engine with ordinary options says after a prompt."""
    return expected_tokens(prompt, seed, count, SimulatedOptions().words)


def text_of(tokens: Sequence[int]) -> str:
    """What a client reads when it gets these tokens."""
    stream = tokenizer().detokenizer()
    return stream.push(tokens) + stream.flush()


def reference_text(prompt: bytes, seed: int, count: int) -> str:
    return text_of(reference(prompt, seed, count))


# -- waiting -----------------------------------------------------------------------------------


async def eventually(condition: Callable[[], bool]) -> None:
    """Return once it holds; for what has no event of its own to wait for."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - states of another's code that set no event
            await asyncio.sleep(0.001)


class Probe(Actor):
    """Stands in for any role: keeps what it is sent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received: list[Message] = []
        self._news = asyncio.Event()

    @handler
    def note(
        self,
        message: Submit
        | Route
        | Assigned
        | Rejected
        | Generate
        | Prefill
        | Decode
        | Fetched
        | Cancel
        | Frame
        | Report
        | Inventory
        | Placed
        | Explained
        | Returned
        | Down,
    ) -> None:
        self.received.append(message)
        self._news.set()

    def of(self, kind: type[M]) -> list[M]:
        """What has come of one type, in order."""
        return [message for message in self.received if isinstance(message, kind)]

    async def take(self, kind: type[M]) -> M:
        """The oldest message of the type, taken out; waits for it."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := self.of(kind)):
                self._news.clear()
                await self._news.wait()
        self.received.remove(found[0])
        return found[0]


# -- the network -------------------------------------------------------------------------------


class Wire(LocalTransport):
    """A connection that can be cut, as that of a killed process is."""

    def __init__(self, bus: LocalBus) -> None:
        super().__init__(bus)
        self._is_cut = False
        self._subscribed: list[Subscription] = []

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        def deliver(frame: bytes, reply: str) -> None:
            if not self._is_cut:
                receiver(frame, reply)

        subscription = await super().subscribe(subject, deliver)
        self._subscribed.append(subscription)
        return subscription

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        if not self._is_cut:
            super().publish(subject, frame, bounce)

    async def cut(self) -> None:
        """From now on nothing goes out and nothing comes in."""
        self._is_cut = True
        for subscription in self._subscribed:
            await subscription.cancel()


class Weather:
    """A fate for a bus: of every `of` frames so many are lost, doubled and delayed, in an order
    the seed decides. So no run of more frames than that is spared."""

    def __init__(self, seed: int, *, of: int, lost: int, doubled: int, delayed: int) -> None:
        self.frames = 0
        self._dice = random.Random(seed)
        self._all = ["lost"] * lost + ["doubled"] * doubled + ["delayed"] * delayed
        self._all += ["spared"] * (of - len(self._all))
        self._next: list[str] = []

    @property
    def struck(self) -> bool:
        """Whether every kind of trouble has occurred."""
        return self.frames >= len(self._all)

    def __call__(self, _subject: str, _frame: bytes) -> list[float]:
        self.frames += 1
        if not self._next:
            self._next = self._dice.sample(self._all, len(self._all))
        match self._next.pop():
            case "lost":
                return []
            case "doubled":
                return [0.0, self._dice.uniform(0.0, 0.02)]
            case "delayed":
                return [self._dice.uniform(0.001, 0.02)]
            case _:
                return [0.0]


# -- the service -------------------------------------------------------------------------------


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
        self._wires: dict[str, Wire] = {}

    async def start(self, *hosted: Hosted) -> Node:
        """Start one node that hosts these actors, named after the first."""
        name = f"{hosted[0].role}/{hosted[0].instance}"
        wire = Wire(self.bus)
        node = Node(name, self.namespace, wire, LocalRegistry(self.store))
        self.nodes[name], self._wires[name] = node, wire
        await node.start(hosted)
        return node

    async def start_worker(
        self, actor: type[Actor], role: str, instance: int = 0, **options: Any
    ) -> Node:
        decoded = msgspec.convert(simulated(**options), WorkerOptions)
        return await self.start(Hosted(actor=actor, role=role, instance=instance, options=decoded))

    async def start_probe(self, role: str, instance: int = 0) -> Probe:
        """A `Probe` in the place of a role."""
        await self.start(Hosted(actor=Probe, role=role, instance=instance))
        return self.actor(Probe, f"{role}/{instance}")

    async def start_ingress(self, instance: int = 0, **options: Any) -> Ingress:
        """An ingress on a free port."""
        decoded = msgspec.convert({"port": 0, **options}, IngressOptions)
        await self.start(Hosted(actor=Ingress, role="ingress", instance=instance, options=decoded))
        return self.actor(Ingress, f"ingress/{instance}")

    async def start_roles(self, **ingress: Any) -> Ingress:
        """Router, preprocessor and ingress, each in its own node; returns the ingress."""
        await self.start(Hosted(actor=Router, role="router"))
        await self.start(Hosted(actor=Preprocessor, role="preprocessor"))
        return await self.start_ingress(**ingress)

    def actor(self, kind: type[A], name: str) -> A:
        """The first actor of a node."""
        actor = self.nodes[name].cells[0].actor
        assert isinstance(actor, kind)
        return actor

    def engine(self, name: str) -> SimulatedEngine:
        """The engine of a worker."""
        engine = self.actor(Worker, name)._engine
        assert isinstance(engine, SimulatedEngine)
        return engine

    def at_rest(self, name: str) -> bool:
        """Whether a worker has no job, and its engine nothing to do and nothing to keep."""
        load = self.engine(name).load()
        return not self.actor(Worker, name)._jobs and load.running == load.blocks_used == 0

    async def kill(self, name: str) -> None:
        """End a node as SIGKILL does, and have the others learn of it."""
        await self.silence(name)
        await self.nodes.pop(name).stop()

    async def silence(self, name: str) -> None:
        """Cut a node off, and have nobody learn of it."""
        await self._wires[name].cut()

    async def stop(self) -> None:
        for node in reversed(self.nodes.values()):
            await node.stop()


@asynccontextmanager
async def empty() -> AsyncIterator[Service]:
    """A service without nodes."""
    service = Service()
    try:
        yield service
    finally:
        await service.stop()


@asynccontextmanager
async def disaggregated(
    *, ingress: dict[str, Any] | None = None, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    """One context and one generation worker with simulated engines, and the light roles."""
    async with empty() as service:
        await service.start_worker(ContextWorker, "context", **engine)
        await service.start_worker(GenerationWorker, "generation", **engine)
        yield service, await service.start_roles(**(ingress or {}))


@asynccontextmanager
async def aggregated(
    *, ingress: dict[str, Any] | None = None, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    """One aggregated worker with a simulated engine, and the light roles."""
    async with empty() as service:
        await service.start_worker(AggregatedWorker, "aggregated", **engine)
        yield service, await service.start_roles(**(ingress or {}))
