"""A simulated nats-server, the connections to it, and what can be wrong with both.

What core NATS promises is kept: frames of one connection reach one subscriber in order, at most
once; a request to a subject nobody subscribes to comes back at once. What it does not promise is
not kept: a connection that breaks loses what was on its way, its subscriptions are gone until it
is back, and then it comes back at its own time.

A connection (`SimTransport`) queues what is published and writes it in the loop's next turn, so a
process killed in between has not sent it. While it is cut, either everything is held and arrives
late (`hold`: TCP got over it), or everything is lost until the client notices (`lose`) and from
then on waits in its outbox.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context
from typing import Literal

from actors.runtime.errors import AskTimeout, NoSuchActor, PlaneUnavailable, Refused
from actors.runtime.message import HEADER_BYTES, Fault, encode
from actors.runtime.transport.base import (
    Bounce,
    Receiver,
    Subscription,
    Transport,
    TransportHealth,
    TransportStatistics,
    too_long,
)
from actors.runtime.transport.buckets import Bucket, BucketLimits
from actors.runtime.transport.local import LocalBucket
from actors.runtime.transport.pending import PendingTells
from tests.simulation.loop import CURRENT, Proc, SimLoop

FRAME_LIMIT_BYTES = 1024 * 1024
NOTICED_S = 4.0
"""Two pings of a client that stay unanswered: it knows that its connection is gone."""
RECONNECT_S = (0.01, 0.2)
LATENCY_S = (0.0001, 0.002)
INBOXES = "_INBOX."
NOBODY = b""
"""What comes back from a subject without subscribers."""

Cut = Literal["no", "hold", "lose"]
Fate = Callable[["Frame"], tuple[float, ...]]
"""After how many additional seconds each copy of a frame arrives. () loses it."""


class Frame:
    """One frame under way."""

    __slots__ = ("data", "link", "reply", "sender", "subject")

    def __init__(self, sender: SimTransport, subject: str, data: bytes, reply: str) -> None:
        self.sender = sender
        self.subject = subject
        self.data = data
        self.reply = reply

    @property
    def kind(self) -> str:
        """The message's type, as the wire has it."""
        data = self.data
        if len(data) < HEADER_BYTES + 3 or data[HEADER_BYTES] & 0xF0 != 0x90:
            return "?"
        length = data[HEADER_BYTES + 1] & 0x1F
        return data[HEADER_BYTES + 2 : HEADER_BYTES + 2 + length].decode()


def ordinary(_frame: Frame) -> tuple[float, ...]:
    return (0.0,)


class SimNats:
    """The server. `fate` decides about every frame; `seen` is told of each that was sent."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.up = True
        self.fate: Fate = ordinary
        self.sending: Callable[[Frame], bool] = lambda _frame: True
        """Told of every frame as it leaves its process; False: it does not."""
        self.arriving: Callable[[Frame, Proc], None] = lambda _frame, _proc: None
        self.transports: list[SimTransport] = []
        self.subscriptions: dict[str, list[SimSubscription]] = {}
        self.buckets: dict[str, OrderedDict[str, tuple[float, bytes]]] = {}
        self.lost = 0
        self.doubled = 0

    def latency(self) -> float:
        return self.rng.uniform(*LATENCY_S)

    def stop(self) -> None:
        """The server dies: every connection breaks, and what was on its way is lost."""
        self.up = False
        for transport in self.transports:
            transport.disconnected()

    def start(self) -> None:
        self.up = True
        for transport in self.transports:
            transport.retry()

    def route(self, frame: Frame, generation: int) -> None:
        """A frame has arrived at the server."""
        if generation != frame.sender.generation and frame.sender.generation_lost(generation):
            self.lost += 1
            return
        subscribers = self._subscribers(frame.subject)
        if not subscribers and frame.reply:
            frame = Frame(frame.sender, frame.reply, NOBODY, "")
            subscribers = self._subscribers(frame.subject)
        for subscription in tuple(subscribers):
            subscription.transport.receive(frame, subscription.receiver)

    def _subscribers(self, subject: str) -> list[SimSubscription]:
        if subject.startswith(INBOXES):
            subject = subject.rpartition(".")[0]
        return self.subscriptions.get(subject, [])


class SimTransport(Transport):
    """One process's connection to the server."""

    def __init__(self, server: SimNats) -> None:
        self.server = server
        self.proc = CURRENT.get()
        self.cut: Cut = "no"
        self.connected = False
        self.known_lost = False
        self.generation = 0
        """How often the connection was broken: what was sent before is lost."""
        self.subscriptions: list[SimSubscription] = []
        self._loop = server.loop
        self._inbox = f"{INBOXES}{self.proc.name}.{self.proc.pid}"
        self._pending = PendingTells()
        self._asks: dict[str, asyncio.Future[bytes]] = {}
        self._asked = 0
        self._outbox: deque[Frame] = deque()
        self._flushing = False
        self._held_up: list[Frame] = []
        self._held_down: list[tuple[Frame, Receiver]] = []
        self._clear_up = 0.0
        self._clear_down = 0.0
        self._closed = False
        self._published = self._received = self._dropped = 0
        self._started = False

    # -- the runtime's side --------------------------------------------------------------------

    async def start(self) -> None:
        await asyncio.sleep(self.server.latency() * 2)
        if not self.server.up or self.cut != "no":
            await asyncio.sleep(NOTICED_S)
        if not self.server.up or self.cut != "no":
            raise PlaneUnavailable("NATS", "simulated", "connection refused")
        self.connected = self._started = True
        self.server.transports.append(self)
        inbox = SimSubscription(self, self._inbox, self._on_reply)
        self.subscriptions.append(inbox)
        inbox.enter()

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        subscription = SimSubscription(self, subject, receiver)
        self.subscriptions.append(subscription)
        await asyncio.sleep(self.server.latency() * 2)
        if self.connected and self.cut == "no":
            subscription.enter()
        return subscription

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        if len(frame) > FRAME_LIMIT_BYTES:
            self._dropped += 1
            if bounce is not None:
                bounce(encode(Fault("refused", too_long(frame, FRAME_LIMIT_BYTES))))
            return
        reply = ""
        if bounce is not None:
            reply = f"{self._inbox}.{self._pending.add(bounce, self._loop.time())}"
        self._queue(subject, frame, reply)

    async def request(self, subject: str, frame: bytes, timeout_s: float) -> bytes:
        if len(frame) > FRAME_LIMIT_BYTES:
            raise Refused(subject, too_long(frame, FRAME_LIMIT_BYTES))
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._asked += 1
        name = f"a{self._asked}"
        self._asks[name] = answer
        try:
            self._queue(subject, frame, f"{self._inbox}.{name}")
            async with asyncio.timeout(timeout_s):
                found = await answer
        except TimeoutError:
            raise AskTimeout(subject, timeout_s) from None
        finally:
            del self._asks[name]
        if found == NOBODY:
            raise NoSuchActor(subject, "nobody listens there")
        return found

    def bucket(self, name: str, limits: BucketLimits) -> Bucket:
        return LocalBucket(self.server.buckets.setdefault(name, OrderedDict()), limits)

    async def flush(self, timeout_s: float) -> None:
        if self._outbox:
            await asyncio.sleep(0)  # by then it has been written, if it can be

    async def close(self) -> None:
        if self._closed:
            return
        await self.flush(1.0)
        self._closed = True
        self.leave()

    @property
    def frame_limit_bytes(self) -> int:
        return FRAME_LIMIT_BYTES

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(self._published, self._received, self._dropped)

    @property
    def health(self) -> TransportHealth:
        return "connected" if self.connected and not self.known_lost else "lost"

    def _queue(self, subject: str, data: bytes, reply: str) -> None:
        if self.proc.doomed or self._closed:
            return
        frame = Frame(self, subject, data, reply)
        self._published += 1
        if not self.server.sending(frame):
            return
        self._outbox.append(frame)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush, context=self.proc.context)

    def _flush(self) -> None:
        """Write the outbox to the socket, unless it is known to be broken."""
        self._flushing = False
        if self.proc.doomed:
            return
        while self._outbox and self.connected and not self.known_lost:
            self._send(self._outbox.popleft())

    def _on_reply(self, data: bytes, subject: str) -> None:
        name = subject.rpartition(".")[2]
        if name.startswith("a"):
            answer = self._asks.get(name)
            if answer is not None and not answer.done():
                answer.set_result(data)
        elif name.isdecimal() and (bounce := self._pending.take(int(name))) is not None:
            bounce(None if data == NOBODY else data)

    # -- the wire ------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        if self.cut == "lose":
            self.server.lost += 1
            return
        if self.cut == "hold":
            self._held_up.append(frame)
            return
        self._put_on_wire(frame)

    def _put_on_wire(self, frame: Frame) -> None:
        server, loop = self.server, self._loop
        fates = server.fate(frame)
        if not fates:
            server.lost += 1
            return
        server.doubled += len(fates) > 1
        # In order: a frame that is late holds those behind it up, as TCP does. A second copy is
        # what no connection does, and may come whenever.
        at = max(self._clear_up, loop.now + server.latency() + fates[0])
        self._clear_up = at
        world = loop.world.context
        loop.call_at(at, server.route, frame, self.generation, context=world)
        for late in fates[1:]:
            loop.call_at(at + late, server.route, frame, self.generation, context=world)

    def receive(self, frame: Frame, receiver: Receiver) -> None:
        """The server sends a frame down this connection."""
        if self.cut == "lose" or not self.connected:
            self.server.lost += 1
            return
        if self.cut == "hold":
            self._held_down.append((frame, receiver))
            return
        at = max(self._clear_down, self._loop.now + self.server.latency())
        self._clear_down = at
        self._loop.call_at(
            at, self._arrive, frame, receiver, self.generation, context=self.proc.context
        )

    def _arrive(self, frame: Frame, receiver: Receiver, generation: int) -> None:
        if generation != self.generation:
            self.server.lost += 1
            return
        self.server.arriving(frame, self.proc)
        if self.proc.dead or self.proc.doomed:
            return
        self._received += 1
        reply = frame.subject if receiver == self._on_reply else frame.reply
        receiver(frame.data, reply)

    def generation_lost(self, generation: int) -> bool:
        """Whether what was sent then is lost. Not when the sender left in order or died: the
        system still sends what a dead process has written."""
        return generation < self.generation and self._started and not self._closed

    # -- faults --------------------------------------------------------------------------------

    def set_cut(self, cut: Cut) -> None:
        """Cut the connection, or mend it."""
        before, self.cut = self.cut, cut
        if before == "no" and cut != "no":
            if cut == "lose":
                self.generation += 1
            self._loop.call_later(NOTICED_S, self._notice, self.generation, context=self._world)
        elif cut == "no" and before != "no":
            if self.known_lost or before == "lose":
                self.disconnected()
                self.retry()
            else:
                self._release()

    def _notice(self, generation: int) -> None:
        """Client and server both find the connection dead."""
        if self.cut != "no" and generation == self.generation:
            self.disconnected()

    def disconnected(self) -> None:
        """The connection is gone, and with it what was on its way and its subscriptions."""
        self.generation += 1
        self.known_lost = True
        self.server.lost += len(self._held_up) + len(self._held_down)
        self._held_up.clear()
        self._held_down.clear()
        for subscription in self.subscriptions:
            subscription.drop()

    def retry(self) -> None:
        """The server can be reached again: be back in a moment."""
        if not self.known_lost or self._closed or self.proc.dead:
            return
        delay_s = self.server.rng.uniform(*RECONNECT_S)
        self._loop.call_later(delay_s, self._reconnect, context=self.proc.context)

    def _reconnect(self) -> None:
        if not self.known_lost or not self.server.up or self.cut != "no" or self._closed:
            return
        self.known_lost = False
        for subscription in self.subscriptions:
            subscription.enter()
        self._flush()
        if self.on_regained is not None:
            self.on_regained()

    def _release(self) -> None:
        for subscription in self.subscriptions:
            subscription.enter()
        up, self._held_up = self._held_up, []
        down, self._held_down = self._held_down, []
        for frame in up:
            self._put_on_wire(frame)
        for frame, receiver in down:
            self.receive(frame, receiver)

    def leave(self) -> None:
        """The connection is closed, by its process or by the end of that."""
        self.connected = False
        for subscription in self.subscriptions:
            subscription.drop()
        if self in self.server.transports:
            self.server.transports.remove(self)

    @property
    def _world(self) -> Context:
        return self._loop.world.context


class SimSubscription(Subscription):
    """Interest in one subject, as the server knows it while the connection stands."""

    def __init__(self, transport: SimTransport, subject: str, receiver: Receiver) -> None:
        self.transport = transport
        self.subject = subject
        self.receiver = receiver

    def enter(self) -> None:
        subscribers = self.transport.server.subscriptions.setdefault(self.subject, [])
        if self not in subscribers:
            subscribers.append(self)

    def drop(self) -> None:
        subscribers = self.transport.server.subscriptions.get(self.subject, [])
        if self in subscribers:
            subscribers.remove(self)
        if not subscribers:
            self.transport.server.subscriptions.pop(self.subject, None)

    async def cancel(self) -> None:
        self.drop()
        if self in self.transport.subscriptions:
            self.transport.subscriptions.remove(self)
