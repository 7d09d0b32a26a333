"""A connection to a NATS server that comes back by itself.

In place of the official client, whose two queues and three tasks a message cost more than all else
that a message costs (decision 0026). What is received is handed on within the read from the socket;
what is sent in one turn of the event loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from actors.runtime import tasks
from actors.runtime.transport.nats_credentials import sign
from actors.runtime.transport.nats_wire import (
    BadWire,
    Connect,
    Reader,
    ServerInfo,
    publication,
)

PING_EVERY_S = 2.0
PINGS_UNANSWERED = 2
"""With one more the server counts as gone."""
RETRY_S = 0.1
"""Between two rounds of trying the servers."""
HANDSHAKE_S = 2.0
"""For one server, TLS included."""
GOODBYE_S = 1.0
"""For what was written last to leave."""
DEFAULT_PORT = 4222

log = structlog.get_logger("transport")

OnMessage = Callable[[bytes, bytes, bytes, bytes], None]
"""Subject, subject to answer on, headers, payload."""


class NatsRefused(Exception):
    """The server will not have us, and says why."""


class Server(msgspec.Struct, frozen=True):
    """Where one server is, and what its URL says of us."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False
    """The URL asks for it."""

    @classmethod
    def parse(cls, url: str) -> Server:
        """Read `nats://user:password@host:4222`, all but the host optional. A user without a
        password is a token. Raises ValueError."""
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.scheme not in {"nats", "tls"} or not parts.hostname:
            raise ValueError(f"{parts.scheme}://{parts.hostname or ''} is no address of NATS")
        user = None if parts.username is None else unquote(parts.username)
        password = None if parts.password is None else unquote(parts.password)
        secured = parts.scheme == "tls"
        return cls(parts.hostname, parts.port or DEFAULT_PORT, user, password, secured)


class Identity(msgspec.Struct, frozen=True):
    """As whom to connect."""

    name: str
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    """A `.creds` file."""

    def connect(self, server: Server, info: ServerInfo, *, tls: bool) -> Connect:
        """Raises NatsRefused when the credentials cannot be used."""
        user, password, token = self.user, self.password, self.token
        if server.user is not None:
            user, password = server.user, server.password
            if password is None:
                user, token = None, server.user
        jwt, signature = self._signed(info.nonce)
        return Connect(
            self.name,
            verbose=False,
            pedantic=False,
            headers=True,
            no_responders=True,
            protocol=1,
            lang="python",
            user=user,
            password=password,
            auth_token=token,
            jwt=jwt,
            sig=signature,
            tls_required=tls,
        )

    def _signed(self, nonce: str) -> tuple[str | None, str | None]:
        if self.credentials is None:
            return None, None
        try:
            return sign(Path(self.credentials), nonce)
        except (OSError, ValueError) as error:
            raise NatsRefused(f"{self.credentials}: {error}") from error


class Client:
    """See the module. `start`, then use it until `close`."""

    def __init__(
        self,
        servers: list[Server],
        identity: Identity,
        tls: ssl.SSLContext | None = None,
        tls_hostname: str | None = None,
    ) -> None:
        self._servers = servers
        self._identity = identity
        self._tls = tls
        self._insists = tls is not None or any(server.tls for server in servers)
        """Where TLS is asked for, nobody is told who we are without it: the greeting that says
        whether the server speaks it comes in clear, and whoever is between could leave it out."""
        self._tls_hostname = tls_hostname
        self._link: _Link | None = None
        """None while there is no connection that has been greeted."""
        self._up = asyncio.Event()
        self._subscriptions: dict[int, tuple[str, OnMessage]] = {}
        self._next = 0
        self._waiting: list[bytes] = []
        self._writing: asyncio.Handle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False
        self.waiting_bytes = 0
        """What `publish` was given and the connection has not yet taken."""
        self.max_payload = 0
        self.on_lost: Callable[[], None] = lambda: None
        self.on_back: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    @property
    def waiting(self) -> int:
        """Messages not yet given to the connection."""
        return len(self._waiting)

    async def start(self, timeout_s: float) -> None:
        """Connect to one of the servers. Raises NatsRefused, OSError (TimeoutError is one) or
        ValueError, for the last reason why not."""
        trouble: Exception = TimeoutError(f"no answer within {timeout_s:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._link is None:
                    try:
                        await self._connect_once()
                    except (OSError, ValueError, NatsRefused) as error:
                        trouble = error
                        await asyncio.sleep(RETRY_S)
        if self._link is None:
            raise trouble
        self._keeper = asyncio.create_task(self._keep(), name="nats")

    async def close(self) -> None:
        """What was sent last leaves if it can at once."""
        self._closing = True
        self._write()
        if self._keeper is not None:
            await tasks.end(self._keeper)
        if self._writing is not None:
            self._writing.cancel()
        link, self._link = self._link, None
        if link is not None:
            await link.end(GOODBYE_S)

    def new_inbox(self) -> str:
        """A subject prefix that nobody else has."""
        return f"_INBOX.{secrets.token_hex(11)}"

    async def subscribe(self, subject: str, receive: OnMessage) -> int:
        """Have every message on the subject, until `unsubscribe`; in force at return."""
        self._next += 1
        number = self._next
        self._subscriptions[number] = (subject, receive)
        if self._link is not None:
            self._tell_of(number, self._link)
        await self.round_trip()
        return number

    def unsubscribe(self, number: int) -> None:
        """Nothing more is delivered from now on."""
        if self._subscriptions.pop(number, None) is not None and self._link is not None:
            self._link.write(b"UNSUB %d\r\n" % number)

    def publish(self, subject: str, reply: str, payload: bytes) -> None:
        """Send a message soon, or once there is a connection again. Unbounded: see `waiting`."""
        self._waiting.append(publication(subject, reply, payload))
        self.waiting_bytes += len(self._waiting[-1])
        if self._writing is None:
            # Not now: what else this turn of the loop has to send goes along.
            self._writing = asyncio.get_running_loop().call_soon(self._write)

    async def round_trip(self) -> None:
        """Return when the server has taken all that was published, by this or a later
        connection."""
        while True:
            await self._up.wait()
            self._write(also_when_full=True)
            link = self._link
            if link is not None and await link.ping():
                return
            # Whoever looks after the connection is about to notice.
            await asyncio.sleep(0)

    # -- sending -------------------------------------------------------------------------------

    def _write(self, *, also_when_full: bool = False) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        link = self._link
        if link is None or link.is_over or not self._waiting:
            return  # called again when there is a connection
        if link.is_full and not also_when_full:
            return  # and when there is room
        waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
        link.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    # -- receiving -----------------------------------------------------------------------------

    def _received(
        self, number: int, subject: bytes, reply: bytes, headers: bytes, payload: bytes
    ) -> None:
        found = self._subscriptions.get(number)
        if found is None:
            return
        try:
            found[1](subject, reply, headers, payload)
        except Exception:
            # One message that breaks its receiver must not cost the connection, and all the others.
            log.exception("nats_receiver_broke", subject=found[0])

    # -- the connection ------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Look after the connection: ping, and get another when it is lost."""
        while True:
            link = self._link
            assert link is not None, "started, and not closed"
            await link.watch()
            self._link = None
            self._up.clear()
            self.on_lost()
            while not self.is_connected:
                try:
                    await self._connect_once()
                except (OSError, ValueError, NatsRefused) as error:
                    log.debug("nats_not_back", error=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(RETRY_S)
            self.on_back()

    async def _connect_once(self) -> None:
        """Try every server. Raises what the last one said."""
        trouble: Exception = OSError("no server")
        for server in tuple(self._servers):
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    await self._greet(server)
            except (OSError, ValueError, NatsRefused) as error:
                trouble = error  # ValueError: of a host's name that cannot be one
            else:
                return
        raise trouble

    async def _greet(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        transport, link = await loop.create_connection(
            lambda: _Link(self._received, self._informed, self._write), server.host, server.port
        )
        try:
            info = await link.informed
            tls = self._insists or info.tls_required
            if tls and not (info.tls_required or info.tls_available):
                raise NatsRefused("TLS is asked for, and the server does not speak it")  # noqa: TRY301 - the link is to be ended
            if tls:
                context = self._tls or ssl.create_default_context()
                hostname = self._tls_hostname or server.host
                upgraded = await loop.start_tls(transport, link, context, server_hostname=hostname)
                link.transport = cast("asyncio.Transport", upgraded)
            connect = self._identity.connect(server, info, tls=tls)
            link.write(b"CONNECT %b\r\n" % msgspec.json.encode(connect))
            told = set(self._subscriptions)
            for number in told:
                self._tell_of(number, link)
            await link.greeted()
        except BaseException:
            link.transport.abort()
            raise
        for number in self._subscriptions.keys() - told:
            self._tell_of(number, link)
        for number in told - self._subscriptions.keys():
            link.write(b"UNSUB %d\r\n" % number)
        self._link = link
        self._up.set()
        self._write()

    def _tell_of(self, number: int, link: _Link) -> None:
        subject, _ = self._subscriptions[number]
        link.write(b"SUB %b %d\r\n" % (subject.encode(), number))

    def _informed(self, info: ServerInfo) -> None:
        self.max_payload = info.max_payload or self.max_payload
        known = {(server.host, server.port) for server in self._servers}
        for url in info.connect_urls:
            with contextlib.suppress(ValueError):
                server = Server.parse(url)
                if (server.host, server.port) not in known:
                    self._servers.append(server)


class _Link(asyncio.Protocol):
    """One TCP connection."""

    transport: asyncio.Transport

    def __init__(
        self,
        on_message: Callable[[int, bytes, bytes, bytes, bytes], None],
        on_info: Callable[[ServerInfo], None],
        on_room: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._reader = Reader(on_message, self._line)
        self._on_info = on_info
        self._on_room = on_room
        self._pings: deque[asyncio.Future[bool]] = deque()
        self.informed: asyncio.Future[ServerInfo] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.is_full = False
        """The server takes nothing for the moment."""
        self.complaint = ""
        """What the server said last before it closed the connection."""

    @property
    def is_over(self) -> bool:
        """Nothing that is written now can arrive."""
        return self.transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self.is_over:
            self.transport.write(data)

    async def ping(self) -> bool:
        """Whether an answer came; False when the connection ended before."""
        if self.closed.done():
            return False
        # Shielded, as the next answer belongs to it also when nobody waits any more.
        return await asyncio.shield(self._send_ping())

    def _send_ping(self) -> asyncio.Future[bool]:
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings.append(answered)
        self.write(b"PING\r\n")
        return answered

    async def greeted(self) -> None:
        """Return when the server has taken us on. Raises NatsRefused."""
        if not await self.ping():
            raise NatsRefused(self.complaint or "the server closed the connection")

    async def watch(self) -> None:
        """Return when the connection is over, ended by us if the server has fallen silent."""
        unanswered: list[asyncio.Future[bool]] = []
        while not self.closed.done():
            await asyncio.wait([self.closed], timeout=PING_EVERY_S)
            unanswered = [ping for ping in unanswered if not ping.done()]
            if len(unanswered) > PINGS_UNANSWERED:
                self.complaint = "the server has fallen silent"
                await self.end(0.0)
            elif not self.closed.done():
                unanswered.append(self._send_ping())

    async def end(self, patience_s: float) -> None:
        """Close the connection; what was written may take so long to leave."""
        if patience_s:
            self.transport.close()
            await asyncio.wait([self.closed], timeout=patience_s)
        self.transport.abort()
        await self.closed

    # -- the socket ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except (BadWire, msgspec.MsgspecError) as error:
            self.complaint = str(error)
            self.transport.abort()

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self._on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        trouble = self.complaint or (str(exc) if exc else "the server closed the connection")
        if not self.informed.done():
            self.informed.set_exception(OSError(trouble))
            self.informed.exception()  # seen, also when nobody waits
        while self._pings:
            self._answer(self._pings.popleft(), answered=False)
        if not self.closed.done():
            self.closed.set_result(None)

    # -- what the server says ------------------------------------------------------------------

    def _line(self, word: bytes, rest: bytes) -> None:
        match word:
            case b"PING":
                self.write(b"PONG\r\n")
            case b"PONG":
                if self._pings:
                    self._answer(self._pings.popleft(), answered=True)
            case b"INFO":
                info = msgspec.json.decode(rest, type=ServerInfo)
                self._on_info(info)
                if not self.informed.done():
                    self.informed.set_result(info)
            case b"-ERR":
                self.complaint = rest.decode("utf-8", "replace").strip(" '")
                # Whatever else it is ends the connection, and is told as the reason.
                stays = self.complaint.startswith("Permissions")
                (log.warning if stays else log.debug)("nats_error", error=self.complaint)
            case b"+OK":
                pass
            case _:
                raise BadWire(f"not a line of NATS: {word[:50]!r}")

    @staticmethod
    def _answer(waiting: asyncio.Future[bool], *, answered: bool) -> None:
        if not waiting.done():
            waiting.set_result(answered)
