"""A whole service in this process, in virtual time, with clients on real sockets.

The roles are the ones that serve, each a node of its own; NATS is replaced by a bus in memory and
etcd by a store in memory, so that what happens depends on the code alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.engines.simulated.options import SimulatedOptions
from actors.ingress.actor import Ingress
from actors.ingress.options import IngressOptions
from actors.preprocessor.actor import Preprocessor
from actors.router.actor import Router
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.tracing import TracingSettings
from actors.runtime.transport.base import Bounce
from actors.runtime.transport.local import LocalBus, LocalTransport
from actors.worker.actor import ContextWorker, GenerationWorker
from actors.worker.options import WorkerOptions
from bench.loadgen.http import render_request
from bench.loadgen.workload import Span, Workload
from bench.virtual_time import VirtualClock, VirtualTimeLoop

MODEL = "simulated"
CAPITALS = Path(__file__).parents[2] / "topologies" / "models" / "capitals"
WORDS = 64
LOOK_S = 0.05
"""Of virtual time, between two looks of a client."""
SETTLE_S = 5.0
"""Of virtual time: joins, inventories, heartbeats."""


class Loop(VirtualTimeLoop):
    """Does at once what others give to a thread."""

    def run_in_executor(  # type: ignore[override]  # what is given is never a coroutine here
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        del executor
        done = self.create_future()
        done.set_result(func(*args))
        return done


class Wire(msgspec.Struct):
    """What all nodes have sent."""

    messages: int = 0
    bytes: int = 0


class CountingTransport(LocalTransport):
    """Notes what is sent."""

    def __init__(self, bus: LocalBus, wire: Wire) -> None:
        super().__init__(bus)
        self._wire = wire

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        self._wire.messages += 1
        self._wire.bytes += len(frame)
        super().publish(subject, frame, bounce)


class Service(msgspec.Struct):
    """Running."""

    ingress: Ingress
    wire: Wire

    async def connect(self) -> socket.socket:
        """A client's end of a connection that the ingress has accepted."""
        mine, other = socket.socketpair()
        for end in (mine, other):
            end.setblocking(False)  # noqa: FBT003 - positional in the standard library
        listener = self.ingress._server._listener  # noqa: SLF001 - there is no other way in
        assert listener is not None
        listener.enter(other)
        return mine

    async def exchange(
        self, client: socket.socket, request: bytes, whole: Callable[[bytes], bool]
    ) -> bytes:
        """Send a request; return the answer once it is whole. Looks rarely, as its own work
        counts too."""
        client.send(request)
        answer = b""
        while not whole(answer):
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(BlockingIOError):
                while part := client.recv(1 << 20):
                    answer += part
        return answer


@asynccontextmanager
async def service(tracing: TracingSettings | None = None) -> AsyncIterator[Service]:
    """Context and generation worker, router, preprocessor and ingress, ready; traced if there are
    settings for that, to a real collector."""
    bus, store, wire = LocalBus(), LocalStore(), Wire()
    engine = SimulatedOptions(tokenizer=str(CAPITALS), max_running=1024, blocks=65536)
    worker = WorkerOptions(engine=engine, model=MODEL)
    roles: Sequence[tuple[type[Any], str, Any]] = (
        (ContextWorker, "context", worker),
        (GenerationWorker, "generation", worker),
        (Router, "router", None),
        (Preprocessor, "preprocessor", None),
        (Ingress, "ingress", IngressOptions(host="127.0.0.1", port=0)),
    )
    nodes: list[Node] = []
    for actor, role, options in roles:
        node = Node(
            f"{role}/0",
            "guard",
            CountingTransport(bus, wire),
            LocalRegistry(store),
            clock=VirtualClock(),
        )
        if tracing is not None:
            from actors.runtime.tracing.tracer import Tracer

            node.tracer = Tracer(tracing, node=node.name, namespace="guard", metrics=node.metrics)
        await node.start([Hosted(actor=actor, role=role, options=options)])
        nodes.append(node)
    ingress = nodes[-1].cells[0].actor
    assert isinstance(ingress, Ingress)
    try:
        await asyncio.sleep(SETTLE_S)
        yield Service(ingress, wire)
    finally:
        for node in reversed(nodes):
            await node.stop()


def request(number: int, tokens: int, *, stream: bool) -> bytes:
    """The n-th request of a run, as it goes over the connection."""
    workload = Workload(
        model=MODEL,
        stream=stream,
        input_tokens=Span(WORDS, WORDS),
        output_tokens=Span(tokens, tokens),
        ignore_eos=True,
    )
    return render_request("guard", workload.path, workload.body(number))
