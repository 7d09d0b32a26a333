"""Frames over NATS subjects."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import structlog

from actors.runtime.errors import (
    AskTimeout,
    NoSuchActor,
    PlaneRefused,
    PlaneUnavailable,
    Refused,
)
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
from actors.runtime.transport.buckets import Bucket, BucketLimits
from actors.runtime.transport.jetstream import JetStreamBucket
from actors.runtime.transport.nats_client import Client, Identity, NatsRefused, Server
from actors.runtime.transport.nats_wire import NO_RESPONDERS
from actors.runtime.transport.pending import PendingTells

OUTBOX_LIMIT = 65_536
"""Frames that wait for the server to take them, or to come back; more are dropped, counted."""
OUTBOX_LIMIT_BYTES = 64 * 1024 * 1024
DEFAULT_FRAME_LIMIT_BYTES = 1024 * 1024
"""Of a server that has not said its own yet."""
WRONG_LOGIN = "authorization violation"
"""NATS's words for a token, user or password that it does not know."""
ASK_PREFIX = "a"
"""Tells an ask's reply from a tell's in our inbox."""

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
        self._client: Client | None = None
        self._inbox = ""
        self._pending = PendingTells()
        self._asks: dict[str, asyncio.Future[bytes | None]] = {}
        self._asked = 0
        self._published = 0
        self._received = 0
        self._dropped = 0
        self._closing = False

    async def start(self) -> None:
        settings = self._settings
        where = ", ".join(redact(url) for url in settings.urls)
        try:
            self._client = client = self._make_client()
            await client.start(settings.connect_timeout_s)
        except (OSError, TimeoutError, ValueError, NatsRefused) as error:
            why = str(error) or type(error).__name__
            # A file of credentials is read at each try, and may be another by the next.
            known = settings.credentials is None and isinstance(error, NatsRefused)
            refused = known and WRONG_LOGIN in why.lower()
            raise (PlaneRefused if refused else PlaneUnavailable)("NATS", where, why) from error
        if self._closing:
            await client.close()
            raise PlaneUnavailable("NATS", where, "closed while it was connecting")
        client.on_lost, client.on_back = self._on_lost, self._on_back
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", self._on_reply)

    def _make_client(self) -> Client:
        settings = self._settings
        identity = Identity(
            self._name,
            settings.user,
            settings.password,
            settings.token,
            settings.credentials,
        )
        tls = settings.tls
        # ssl.SSLError is an OSError.
        return Client(
            [Server.parse(url) for url in settings.urls],
            identity,
            None if tls is None else tls.context(),
            None if tls is None else tls.hostname,
        )

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        def deliver(_subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
            self._received += 1
            receiver(payload, reply.decode())

        client = self._connected("subscribe", subject)
        return _Subscription(client, await client.subscribe(subject, deliver))

    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        client = self._client
        why = self._objection(frame)
        if why or client is None:
            self._dropped += 1
            if bounce is not None:
                bounce(encode(Fault("refused", why)))
            return
        reply = ""
        if bounce is not None:
            number = self._pending.add(bounce, asyncio.get_running_loop().time())
            reply = f"{self._inbox}.{number}"
        self._published += 1
        client.publish(subject, reply, frame)

    def _objection(self, frame: bytes) -> str:
        client = self._client
        if client is None:
            return "not connected to NATS yet"
        if len(frame) > self.frame_limit_bytes:
            return too_long(frame, self.frame_limit_bytes)
        if client.waiting >= OUTBOX_LIMIT or client.waiting_bytes + len(frame) > OUTBOX_LIMIT_BYTES:
            return "the outbox is full: NATS is away or slow"
        return ""

    async def request(self, subject: str, frame: bytes, timeout_s: float) -> bytes:
        client = self._connected("request", subject)
        why = self._objection(frame)
        if why:
            raise Refused(subject, why)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asked += 1
        name = f"{ASK_PREFIX}{self._asked}"
        self._asks[name] = answer
        try:
            self._published += 1
            client.publish(subject, f"{self._inbox}.{name}", frame)
            async with asyncio.timeout(timeout_s):
                found = await answer
        except TimeoutError:
            raise AskTimeout(subject, timeout_s) from None
        finally:
            del self._asks[name]
        if found is None:
            raise NoSuchActor(subject, "nobody listens there")
        return found

    def bucket(self, name: str, limits: BucketLimits) -> Bucket:
        return JetStreamBucket(self.request, name, limits)

    async def flush(self, timeout_s: float) -> None:
        client = self._client
        if client is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await client.round_trip()
        except TimeoutError:
            log.warning("nats_flush_incomplete", waiting=client.waiting)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._client is not None:
            if self._client.is_connected:
                await self.flush(1.0)
            await self._client.close()

    def _connected(self, what: str, subject: str) -> Client:
        if self._client is None or self._closing:
            state = "closed" if self._closing else "not open yet"
            raise PlaneUnavailable("NATS", subject, f"the connection is {state}: cannot {what}")
        return self._client

    @property
    def frame_limit_bytes(self) -> int:
        known = 0 if self._client is None else self._client.max_payload
        return known or DEFAULT_FRAME_LIMIT_BYTES

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(self._published, self._received, self._dropped)

    @property
    def health(self) -> TransportHealth:
        return "connected" if self._client is not None and self._client.is_connected else "lost"

    def _on_reply(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        name = subject.decode().rpartition(".")[2]
        frame = None if headers.startswith(NO_RESPONDERS) else payload
        if name.startswith(ASK_PREFIX):
            answer = self._asks.get(name)
            if answer is not None and not answer.done():
                answer.set_result(frame)
        elif name.isdecimal() and (bounce := self._pending.take(int(name))) is not None:
            bounce(frame)

    def _on_lost(self) -> None:
        if not self._closing:
            log.warning("nats_lost")

    def _on_back(self) -> None:
        log.info("nats_back")
        if self.on_regained is not None:
            self.on_regained()


class _Subscription(Subscription):
    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._number = number

    async def cancel(self) -> None:
        self._client.unsubscribe(self._number)


def redact(url: str) -> str:
    """The URL without its user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
