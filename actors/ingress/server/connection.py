"""One client's connection: requests in, one after the other, and answers out in the same order.

A request goes to its handler when it is complete, body included. While it is answered, requests
that the client has sent ahead wait (pipelining), and past `PIPELINED` of them nothing more is read.
One that is refused before its body has come is the connection's last: what its client still sends
is read and dropped until it closes (RFC 9112, section 9.6), or it would be reset while it writes
and might never see why.
The connection's own timer does not exist: the listener asks all of its connections from time to
time whether they are overdue, which costs nothing for each request.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn, cast

import httptools
import msgspec

from actors.ingress.server.messages import Request, Trouble, encode_head
from actors.ingress.server.wire import unpacked, without_offer

if TYPE_CHECKING:
    from actors.ingress.server.listener import Listener

PIPELINED = 2
"""Complete requests that may wait for the one being answered, give or take what came along in one
read from the socket."""
FIELD_BYTES = 32
"""What a header field counts beside its name and value, as in RFC 7541, section 4.1."""
LINGER_S = 2.0
"""How long a client that is refused in the middle of its request may send nothing, and not close.
In all it has the time that a body has (`SURPLUS_S` beyond the limit), and as many bytes."""
SURPLUS_S = 2.0
"""For a head, for a body, and to close once refused, on a connection beyond the limit."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much, and how slowly, one client may send."""

    body_bytes: int
    """Also of a compressed body, once decompressed."""
    head_s: float
    """From the connection's opening, or the end of an answer, to the end of the next head."""
    body_s: float
    """From the end of the head to the end of the body."""
    head_bytes: int = 64 * 1024
    """Of a request's line and header fields together."""
    connections: int = 20_000
    """Open at a time; clients of others are told that they are too many."""
    client_s: float = 60.0
    """For a client that acknowledges nothing, or takes nothing of what waits for it."""


class Reading(enum.Enum):
    """What the connection waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()
    """Refused, and told so; the client has yet to close its side."""


class Stream:
    """An answer that is written as it comes into being. Writing never waits."""

    __slots__ = ("_connection", "chunked", "transport")

    def __init__(
        self, connection: Connection, transport: asyncio.Transport, *, chunked: bool
    ) -> None:
        self._connection = connection
        self.transport = transport
        self.chunked = chunked
        """Whether each piece must be framed as a chunk."""

    async def end(self) -> None:
        """Close the answer; return when the client has read it, or has gone."""
        if self.chunked and not self.transport.is_closing():
            self.transport.write(_LAST_CHUNK)
        await self._connection.drained()


class Connection(asyncio.Protocol):
    """See the module."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._reading = Reading.HEAD
        self._since = self._loop.time()
        self._head_bytes = 0
        """Received of a head that is not complete, and perhaps of what stands before it."""
        self._field_bytes = 0
        self._target = b""
        self._headers: dict[str, str] = {}
        self._incoming: Request | None = None
        self._owes_continue = False
        """The client waits to be told that it may send the body; see `_encourage`."""
        self._plain_head: bytes | None = None
        """Of a request that offers another protocol, as it reads without the offer."""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._streaming = False
        """The head of a stream has been sent in answer to the request at hand."""
        self._parting: bytes | None = None
        """What is sent last, when everything before it has been answered."""
        self._closing = False
        """What comes in is passed over: the connection ends with the answers under way."""
        self._passed_over = 0
        """Bytes that were."""
        self._gone_at = 0.0
        """When a client that was refused must have closed."""
        self.surplus = False
        """It came when there were as many as may be."""
        self._paused = False
        self._may_write: asyncio.Future[None] | None = None
        """Exists while the client's side of the buffer is full."""

    # -- the socket ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as uvloop's transports are of no class that could be asked for.
        self._transport = cast("asyncio.Transport", transport)
        if self._closing:  # its handshake took longer than everything else
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._closing = True
        self._waiting.clear()
        self._listener.closed(self)
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._pass_over(len(data))
            return
        if self._reading is Reading.HEAD:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            # What is complete before the mistake is answered first; see `_work`.
            self._give_up(self._parting or self._complaint("malformed"))
            return
        if self._reading is Reading.HEAD and self._head_bytes > self._limits.head_bytes:
            self._give_up(self._complaint("head_too_large"))
        elif len(self._waiting) >= PIPELINED and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        """Parse. Raises httptools.HttpParserError."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                head, self._plain_head = self._plain_head, None
                if head is None:  # CONNECT: there is nothing behind it that we could read
                    self._closing = True
                    return
                # The parser takes the body for the other protocol. We stay with HTTP/1.1, as a
                # server may (RFC 9110, section 7.8): Java's client offers h2c with every request.
                self._parser = httptools.HttpRequestParser(self)
                data = head + data[upgrade.args[0] :]
            else:
                return

    def _pass_over(self, size: int) -> None:
        self._passed_over += size
        if self._passed_over > self._limits.body_bytes:
            # While there is an answer under way, reading is how a client's going is noticed.
            if self._task is None and self._transport is not None:
                self._transport.pause_reading()
        else:
            self._since = self._loop.time()

    def pause_writing(self) -> None:
        if self._may_write is None:
            self._may_write = self._loop.create_future()

    def resume_writing(self) -> None:
        waiting, self._may_write = self._may_write, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def drained(self) -> None:
        """Return when what was written has left for the most part, or the client has."""
        if self._may_write is not None:
            await asyncio.shield(self._may_write)

    # -- the parser ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = {}
        self._field_bytes = 0
        self._incoming = None

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + FIELD_BYTES)
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            self._plain_head = without_offer(
                parser.get_method(), self._target, parser.get_http_version(), self._headers
            )
            return
        request = Request(self, parser.get_method().decode("latin-1"), self._target)
        request.headers = self._headers
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            self._refuse(self._complaint("malformed"))
        request.http11 = version == "1.1"
        request.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        self._incoming = request
        self._reading, self._since = Reading.BODY, self._loop.time()
        length = self._headers.get("content-length", "0")
        self._screen(request)
        if len(length) > 18 or int(length) > self._limits.body_bytes:
            self._refuse(self._complaint("body_too_large"))
        if request.http11 and self._headers.get("expect", "").lower() == "100-continue":
            self._owes_continue = True
            self._encourage()

    def _screen(self, request: Request) -> None:
        """Refuse what its head is enough to refuse."""
        if self.surplus:
            request.keep_alive = False
            self.surplus = self._listener.crowded
        if self.surplus or request.has_body:
            response = self._listener.screen(request)
            if response is not None:
                with_body = request.method != "HEAD"
                self._refuse(response.encode(keep_alive=False, http11=True, with_body=with_body))

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse(self._complaint("body_too_large"))
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._incoming
        if request is None:  # its head is about to be read again; see `_feed`
            return
        self._incoming = None
        self._owes_continue = False
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body, self._body_bytes, self._head_bytes = [], 0, 0
        self._reading, self._since = Reading.HEAD, self._loop.time()
        coding = request.headers.get("content-encoding")
        if coding is not None:
            plain = unpacked(request.body, coding, self._limits.body_bytes)
            if isinstance(plain, str):
                self._refuse(self._complaint(plain))
            request.body = plain
        self._waiting.append(request)
        if self._task is None:
            self._task = self._loop.create_task(self._work(), name="http")

    def _encourage(self) -> None:
        """Tell a client that it may send the body, unless an answer is under way: in the middle of
        that, it could not be told apart from it."""
        if self._owes_continue and self._task is None and self._transport is not None:
            self._owes_continue = False
            self._transport.write(_CONTINUE)

    def _count(self, field_bytes: int) -> None:
        self._field_bytes += field_bytes
        if self._field_bytes > self._limits.head_bytes:
            self._refuse(self._complaint("head_too_large"))

    def _refuse(self, parting: bytes) -> NoReturn:
        """Stop the parser in the middle of what it is fed."""
        self._parting = parting
        raise _Refused

    def _complaint(self, trouble: Trouble) -> bytes:
        response = self._listener.trouble(trouble)
        return response.encode(keep_alive=False, http11=True, with_body=True)

    # -- answers -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Answer what is complete, in order; then, if one was refused, say so and close."""
        try:
            while self._waiting:
                request = self._waiting.popleft()
                await self._answer(request)
                self._since = self._loop.time()
                if self._transport is None or self._transport.is_closing():
                    return
                if self._paused and not self._closing:
                    self._paused = False
                    self._transport.resume_reading()
        finally:
            self._task = None
            if self._closing:
                self._part()
            else:
                self._encourage()

    async def _answer(self, request: Request) -> None:
        if self._listener.draining:
            request.keep_alive = False
        self._streaming = False
        response = await self._listener.handle(request)
        if self._listener.draining:  # since it was asked
            request.keep_alive = False
        if not request.keep_alive:
            self._closing = True
            self._parting = None
            self._waiting.clear()
        if response is not None and self._streaming:
            # A handler that failed behind the head it has sent. All that can still be said is that
            # the answer is not whole.
            self.abort()
        elif response is not None and self._transport is not None:
            self._transport.write(
                response.encode(
                    keep_alive=request.keep_alive,
                    http11=request.http11,
                    with_body=request.method != "HEAD",
                )
            )
        if self._may_write is not None:
            await self.drained()

    def begin_stream(
        self, request: Request, status: int, headers: Mapping[str, str]
    ) -> Stream | None:
        """See `Request.begin`."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return None
        self._streaming = True
        fields = dict(headers)
        if request.http11:
            fields["Transfer-Encoding"] = "chunked"
        else:
            request.keep_alive = False
        transport.write(
            encode_head(status, fields, keep_alive=request.keep_alive, http11=request.http11)
        )
        return Stream(self, transport, chunked=request.http11)

    def _give_up(self, parting: bytes) -> None:
        """Understand no more; say why when everything before it has been answered."""
        self._parting = parting
        self._closing = True
        self._body = []
        if self._task is None:
            self._part()

    def _part(self) -> None:
        transport, parting = self._transport, self._parting
        if transport is None or transport.is_closing():
            return
        if parting is None:
            transport.close()
            return
        self._parting = None
        transport.write(parting)
        if transport.can_write_eof():  # TLS has no half of a connection to close
            transport.write_eof()
        self._reading, self._since = Reading.NOTHING, self._loop.time()
        self._gone_at = self._since + (SURPLUS_S if self.surplus else self._limits.body_s)

    # -- from the listener ---------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Close the connection if the client has been too slow."""
        if self._task is not None or self._transport is None:
            return
        waited = now - self._since
        most_s = SURPLUS_S if self.surplus and self._listener.crowded else math.inf
        match self._reading:
            case Reading.HEAD if waited > min(self._limits.head_s, most_s):
                self.abort()
            case Reading.BODY if waited > min(self._limits.body_s, most_s):
                self._give_up(self._complaint("body_too_slow"))
            case Reading.NOTHING if waited > LINGER_S or now > self._gone_at:
                self.abort()
            case _:
                pass

    def finish(self) -> None:
        """End once nothing is under way."""
        idle = self._reading is Reading.HEAD and not self._head_bytes
        if self._task is None and idle and self._transport is not None:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    @property
    def peer(self) -> str:
        address = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(address[0]) if address else ""


class _Refused(Exception):
    """Raised through the parser, which reports it as an error of its own."""
