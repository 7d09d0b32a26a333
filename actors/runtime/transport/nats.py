"""Frames over NATS subjects."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from actors.runtime import tasks
from actors.runtime.errors import AskTimeout, NoSuchActor, PlaneUnavailable, Refused
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
from actors.runtime.transport.pending import PendingTells

OUTBOX_LIMIT = 65_536
"""Frames that wait for the writer, or for the server to come back; more are dropped, counted."""
OUTBOX_LIMIT_BYTES = 64 * 1024 * 1024
DEFAULT_FRAME_LIMIT_BYTES = 1024 * 1024
"""Of a server that has not said its own yet."""
ASK_PREFIX = "a"
"""Tells an ask's reply from a tell's in our inbox."""
NO_RESPONDERS = "503"

log = structlog.get_logger("transport")


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files. `ca` verifies the server; `cert` and `key` identify us."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    hostname: str | None = None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach NATS, and as whom."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    """A `.creds` file (JWT and nkey seed)."""
    tls: TlsFiles | None = None
    connect_timeout_s: float = 10.0


class NatsTransport(Transport):
    """One connection, shared by all actors of a node."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client = Client()
        self._inbox = ""
        self._pending = PendingTells()
        self._asks: dict[str, asyncio.Future[bytes | None]] = {}
        self._asked = 0
        self._outbox: deque[tuple[str, bytes, str]] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._writer: asyncio.Task[None] | None = None
        self._published = 0
        self._received = 0
        self._dropped = 0
        self._started = False
        self._closing = False

    async def start(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "user": settings.user,
            "password": settings.password,
            "token": settings.token,
            "user_credentials": settings.credentials,
        }
        if settings.tls is not None:
            options["tls"] = settings.tls.context()
            options["tls_hostname"] = settings.tls.hostname
        try:
            self._started = True
            # Reconnecting stays on for ever afterwards; at first a wrong address or password is
            # worth an error, so the first attempt has a deadline of its own.
            connecting = self._client.connect(
                list(settings.urls),
                name=self._name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                reconnect_time_wait=0.1,
                max_reconnect_attempts=-1,
                ping_interval=2,
                max_outstanding_pings=2,
                skip_subject_validation=True,
                pending_size=OUTBOX_LIMIT_BYTES,
                **{key: value for key, value in options.items() if value is not None},
            )
            await tasks.within(settings.connect_timeout_s, connecting)
        except (OSError, TimeoutError, nats.errors.Error, ssl.SSLError) as error:
            where = ", ".join(redact(url) for url in settings.urls)
            raise PlaneUnavailable("NATS", where, str(error) or type(error).__name__) from error
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        await self._client.flush()
        self._writer = asyncio.create_task(self._write_outbox(), name="nats-writer")

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        async def deliver(msg: Msg) -> None:
            self._received += 1
            receiver(msg.data, msg.reply)

        subscription = await self._client.subscribe(subject, cb=deliver)
        await self._client.flush()
        return _Subscription(self._client, subscription)

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        why = self._objection(frame)
        if why:
            self._dropped += 1
            if bounce is not None:
                bounce(encode(Fault("refused", why)))
            return
        reply = ""
        if bounce is not None:
            number = self._pending.add(bounce, asyncio.get_running_loop().time())
            reply = f"{self._inbox}.{number}"
        self._queue(subject, frame, reply)

    def _queue(self, subject: str, frame: bytes, reply: str) -> None:
        self._outbox.append((subject, frame, reply))
        self._outbox_bytes += len(frame)
        self._published += 1
        self._empty.clear()
        self._wake.set()

    def _objection(self, frame: bytes) -> str:
        if len(frame) > self.frame_limit_bytes:
            return too_long(frame, self.frame_limit_bytes)
        waiting = len(self._outbox) >= OUTBOX_LIMIT
        if waiting or self._outbox_bytes + len(frame) > OUTBOX_LIMIT_BYTES:
            return "the outbox is full: NATS is away or slow"
        return ""

    async def request(self, subject: str, frame: bytes, timeout_s: float) -> bytes:
        if self._closing:
            raise PlaneUnavailable("NATS", subject, "the connection is closed")
        why = self._objection(frame)
        if why:
            raise Refused(subject, why)
        # Not by the client's own `request`, which would overtake the tells in the outbox.
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked += 1
        name = f"{ASK_PREFIX}{self._asked}"
        self._asks[name] = answer
        try:
            self._queue(subject, frame, f"{self._inbox}.{name}")
            async with asyncio.timeout(timeout_s):
                found = await answer
        except TimeoutError:
            raise AskTimeout(subject, timeout_s) from None
        finally:
            del self._asks[name]
        if found is None:
            raise NoSuchActor(subject, "nobody listens there")
        return found

    async def flush(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
                await self._client.flush()
        except (TimeoutError, nats.errors.Error):
            log.warning("nats_flush_incomplete", waiting=len(self._outbox))

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._client.is_connected:
            await self.flush(1.0)
        if self._writer is not None:
            await tasks.end(self._writer)
        if self._started:
            await self._client.close()

    @property
    def frame_limit_bytes(self) -> int:
        return int(self._client.max_payload) or DEFAULT_FRAME_LIMIT_BYTES

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(self._published, self._received, self._dropped)

    @property
    def health(self) -> TransportHealth:
        return "connected" if self._client.is_connected else "lost"

    async def _write_outbox(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._write_some()

    async def _write_some(self) -> None:
        while self._outbox:
            subject, frame, reply = self._outbox[0]
            try:
                await self._client.publish(subject, frame, reply=reply)
            except nats.errors.OutboundBufferLimitError:
                # Not connected, and the client's own buffer is full: ours takes over until then.
                return
            except nats.errors.Error as error:
                # The server's limit shrank, or we are closing. The frame is lost, the next is not.
                self._dropped += 1
                log.warning("nats_frame_dropped", subject=subject, error=str(error))
            self._outbox.popleft()
            self._outbox_bytes -= len(frame)
        self._empty.set()

    async def _on_reply(self, msg: Msg) -> None:
        name = msg.subject.rpartition(".")[2]
        nobody = msg.headers is not None and msg.headers.get("Status") == NO_RESPONDERS
        frame = None if nobody else bytes(msg.data)
        if name.startswith(ASK_PREFIX):
            answer = self._asks.get(name)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif name.isdecimal() and (bounce := self._pending.take(int(name))) is not None:
            bounce(frame)

    async def _on_error(self, error: Exception) -> None:
        if not self._closing:
            log.debug("nats_error", error=f"{type(error).__name__}: {error}")

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.warning("nats_lost")

    async def _on_reconnected(self) -> None:
        log.info("nats_back")
        self._wake.set()
        if self.on_regained is not None:
            self.on_regained()


class _Subscription(Subscription):
    def __init__(self, client: Client, subscription: NatsSubscription) -> None:
        self._client = client
        self._subscription = subscription

    async def cancel(self) -> None:
        if self._client.is_closed:
            return
        try:
            await self._subscription.unsubscribe()
        except nats.errors.Error as error:
            log.debug("nats_unsubscribe_failed", error=str(error))


def redact(url: str) -> str:
    """The URL without its user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
