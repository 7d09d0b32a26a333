"""Frames within one process, with faults on request: for tests, simulation and `chat`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from actors.runtime.errors import AskTimeout, NoSuchActor, Refused
from actors.runtime.message import Fault, encode
from actors.runtime.transport.base import (
    Bounce,
    Receiver,
    Subscription,
    Transport,
    TransportHealth,
    TransportStatistics,
    too_long,
)
from actors.runtime.transport.buckets import Bucket, BucketLimits, ValueTooLong

Fate = Callable[[str, bytes], list[float]]
"""Given a subject and a frame: after how many seconds each copy arrives. [] loses it, [0.0] is the
ordinary case, [0.0, 0.3] delivers it twice."""


FRAME_LIMIT_BYTES = 1024 * 1024
"""As NATS has it unless told otherwise."""


def deliver_at_once(_subject: str, _frame: bytes) -> list[float]:
    return [0.0]


class LocalBus:
    """What the local transports of one process share; its `fate` decides about every frame."""

    def __init__(self, fate: Fate = deliver_at_once) -> None:
        self.fate = fate
        self._receivers: dict[str, list[Receiver]] = {}
        self.buckets: dict[str, OrderedDict[str, tuple[float, bytes]]] = {}
        """When each value is over, on the loop's clock; the oldest first."""
        self._inboxes = 0

    def add(self, subject: str, receiver: Receiver) -> None:
        self._receivers.setdefault(subject, []).append(receiver)

    def remove(self, subject: str, receiver: Receiver) -> None:
        receivers = self._receivers.get(subject, [])
        if receiver in receivers:
            receivers.remove(receiver)
        if not receivers:
            self._receivers.pop(subject, None)

    def has_receiver(self, subject: str) -> bool:
        return subject in self._receivers

    def new_inbox(self) -> str:
        self._inboxes += 1
        return f"_inbox.{self._inboxes}"

    def send(self, subject: str, frame: bytes, reply: str) -> None:
        loop = asyncio.get_running_loop()
        for delay_s in self.fate(subject, frame):
            if delay_s <= 0:
                loop.call_soon(self._arrive, subject, frame, reply)
            else:
                loop.call_later(delay_s, self._arrive, subject, frame, reply)

    def _arrive(self, subject: str, frame: bytes, reply: str) -> None:
        for receiver in tuple(self._receivers.get(subject, ())):
            receiver(frame, reply)


class LocalTransport(Transport):
    """One node's connection to a `LocalBus`. Frames are bytes here too, so that a message that
    cannot travel fails in a test and not in production."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus
        self._published = 0
        self._received = 0
        self._dropped = 0
        self._connected = False

    async def start(self) -> None:
        self._connected = True

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        def deliver(frame: bytes, reply: str) -> None:
            self._received += 1
            receiver(frame, reply)

        self._bus.add(subject, deliver)
        return _Subscription(self._bus, subject, deliver)

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        if len(frame) > FRAME_LIMIT_BYTES:
            self._dropped += 1
            if bounce is not None:
                bounce(encode(Fault("refused", too_long(frame, FRAME_LIMIT_BYTES))))
            return
        self._published += 1
        if bounce is None:
            self._bus.send(subject, frame, "")
            return
        if not self._bus.has_receiver(subject):
            asyncio.get_running_loop().call_soon(bounce, None)
            return
        inbox = self._bus.new_inbox()

        def come_back(frame: bytes, _reply: str) -> None:
            forget.cancel()
            self._bus.remove(inbox, come_back)
            bounce(frame)

        self._bus.add(inbox, come_back)
        forget = asyncio.get_running_loop().call_later(5.0, self._bus.remove, inbox, come_back)
        self._bus.send(subject, frame, inbox)

    async def request(self, subject: str, frame: bytes, timeout_s: float) -> bytes:
        if len(frame) > FRAME_LIMIT_BYTES:
            raise Refused(subject, too_long(frame, FRAME_LIMIT_BYTES))
        if not self._bus.has_receiver(subject):
            raise NoSuchActor(subject, "nobody listens there")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inbox = self._bus.new_inbox()

        def arrived(frame: bytes, _reply: str) -> None:
            if not answer.done():
                answer.set_result(frame)

        self._bus.add(inbox, arrived)
        try:
            self._published += 1
            self._bus.send(subject, frame, inbox)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise AskTimeout(subject, timeout_s) from None
        finally:
            self._bus.remove(inbox, arrived)

    def bucket(self, name: str, limits: BucketLimits) -> Bucket:
        return LocalBucket(self._bus.buckets.setdefault(name, OrderedDict()), limits)

    async def flush(self, timeout_s: float) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        self._connected = False

    @property
    def frame_limit_bytes(self) -> int:
        return FRAME_LIMIT_BYTES

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(self._published, self._received, self._dropped)

    @property
    def health(self) -> TransportHealth:
        return "connected" if self._connected else "lost"


class _Subscription(Subscription):
    def __init__(self, bus: LocalBus, subject: str, receiver: Receiver) -> None:
        self._bus = bus
        self._subject = subject
        self._receiver = receiver

    async def cancel(self) -> None:
        self._bus.remove(self._subject, self._receiver)


class LocalBucket(Bucket):
    """In this process alone."""

    def __init__(self, values: OrderedDict[str, tuple[float, bytes]], limits: BucketLimits) -> None:
        self._values = values
        self._limits = limits

    async def put(self, key: str, value: bytes) -> None:
        if len(value) > self._limits.value_bytes:
            raise ValueTooLong(f"{len(value)} bytes are more than {self._limits.value_bytes}")
        self._values.pop(key, None)
        self._values[key] = asyncio.get_running_loop().time() + self._limits.ttl_s, value
        kept = sum(len(value) for _, value in self._values.values())
        while kept > self._limits.total_bytes:
            _, (_, oldest) = self._values.popitem(last=False)
            kept -= len(oldest)

    async def get(self, key: str) -> bytes | None:
        until, value = self._values.get(key, (0.0, b""))
        return value if asyncio.get_running_loop().time() < until else None

    async def delete(self, key: str) -> None:
        self._values.pop(key, None)
