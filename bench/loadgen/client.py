"""One asyncio client: keep-alive connections, and what comes over them taken apart in place."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, cast

import msgspec

from bench.loadgen.http import BadResponse, EventReader, ResponseReader, render_request
from bench.loadgen.measure import Record, Tally


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def says(self) -> bool:
        said = self.delta or self.message
        if said is None:
            return bool(self.text)
        return bool(said.content or said.reasoning_content)


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    """A whole answer, or one event of a stream."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class Exchange:
    """One request and what has come back so far; fills in its record."""

    def __init__(self, record: Record, gaps_s: list[float], *, stream: bool, began: float) -> None:
        self.record = record
        self._gaps_s = gaps_s
        self._events = EventReader() if stream else None
        self._body = bytearray()
        self._began = began
        self._last = 0.0
        self._texts = 0
        self._finished = False
        self._terminated = False

    def feed(self, status: int, body: bytes, now: float) -> None:
        """Take a part of the body, which arrived at `now` (monotonic)."""
        if self._events is None or status != 200:
            self._body += body
            return
        for data in self._events.feed(body):
            if data == b"[DONE]":
                self._terminated = True
                continue
            answer = _decode(data)
            self._take(answer)
            if any(choice.says for choice in answer.choices):
                self._texts += 1
                if self._last:
                    self._gaps_s.append(now - self._last)
                else:
                    self.record.first_s = now - self._began
                self._last = now

    def end(self, status: int, now: float) -> None:
        """The response is complete."""
        record = self.record
        record.end_s = now - self._began
        if status != 200:
            record.error = f"http {status}"
            return
        if self._events is None:
            self._take(_decode(bytes(self._body)))
            self._terminated = True
        record.tokens = record.tokens or self._texts
        if not record.error and not (self._finished and self._terminated):
            record.error = "cut short"

    def fail(self, error: str, now: float) -> None:
        """There will be no complete response."""
        self.record.end_s = now - self._began
        self.record.error = error

    def _take(self, answer: _Answer) -> None:
        if answer.error is not None:
            self.record.error = "error event"
        if answer.usage is not None:
            self.record.tokens = answer.usage.completion_tokens
            self.record.prompt_tokens = answer.usage.prompt_tokens
        if any(choice.finish_reason for choice in answer.choices):
            self._finished = True


class _Connection(asyncio.Protocol):
    """One exchange at a time; nothing wakes a task before the response is over."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._reader = ResponseReader()
        self._exchange: Exchange | None = None
        self._over: asyncio.Future[None] | None = None

    def send(self, request: bytes, exchange: Exchange) -> asyncio.Future[None]:
        assert self._transport is not None
        self._reader = ResponseReader()
        self._exchange = exchange
        self._over = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._over

    def abort(self) -> None:
        """Close at once; an exchange under way learns nothing more."""
        self.usable = False
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # an answer to no question
            return
        now = time.monotonic()
        reader = self._reader
        try:
            body = reader.feed(data)
            self._exchange.feed(reader.status, body, now)
            if reader.done:
                self._finish(now)
        except (BadResponse, msgspec.MsgspecError, ValueError):
            self._fail("bad response")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        self.usable = False
        if self._exchange is None:
            return
        if self._reader.eof():
            self._finish(time.monotonic())
        else:
            self._fail("disconnected")

    def _finish(self, now: float) -> None:
        assert self._exchange is not None
        self._exchange.end(self._reader.status, now)
        if not self._reader.keep_alive:
            self.abort()
        self._settle()

    def _fail(self, error: str) -> None:
        assert self._exchange is not None
        self._exchange.fail(error, time.monotonic())
        self._settle()
        self.abort()

    def _settle(self) -> None:
        self._exchange = None
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


class Client:
    """Sends requests to one endpoint and keeps the tally. `close` it in the end."""

    def __init__(self, host: str, port: int, *, api_key: str, timeout_s: float) -> None:
        self.tally = Tally([], [], [])
        self._host = host
        self._port = port
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []

    async def fetch(
        self, record: Record, *, path: str, body: bytes, stream: bool, began: float
    ) -> None:
        """Send one request and wait for its end. Whatever goes wrong is in the record."""
        self.tally.records.append(record)
        exchange = Exchange(record, self.tally.gaps_s, stream=stream, began=began)
        request = render_request(f"{self._host}:{self._port}", path, body, self._api_key)
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect()
                record.sent_s = time.monotonic() - began
                await connection.send(request, exchange)
        except TimeoutError:
            exchange.fail("timeout", time.monotonic())
        except OSError:
            exchange.fail("connect", time.monotonic())
        except asyncio.CancelledError:
            exchange.fail("interrupted", time.monotonic())
            raise
        else:
            if connection.usable:
                self._idle.append(connection)
                connection = None
        finally:
            if connection is not None:
                connection.abort()

    def close(self) -> None:
        """Drop the idle connections."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def _connect(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection
