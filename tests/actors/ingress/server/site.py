"""A server whose handler says what it was asked, and clients that send it bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.ingress.server import Limits, Listener, Request, Response, Trouble

PATIENCE_S = 20.0
GENEROUS = Limits(body_bytes=1000, head_s=60.0, body_s=60.0)


class Site:
    """A listener whose handler says what it was asked."""

    def __init__(self) -> None:
        self.gate: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.port = 0
        self.refuse: Callable[[Request], bool] = lambda request: request.connection.surplus
        self.listener = Listener(self.handle, self.trouble, GENEROUS, self.screen)

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Return once it holds; for what has no event of its own to wait for."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - states of another's code that set no event
                await asyncio.sleep(0.001)

    async def handle(self, request: Request) -> Response | None:
        self.started.set()
        if request.path == "/wait":
            assert self.gate is not None
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.path == "/stream":
            stream = request.begin(200, {"Content-Type": "text/plain"})
            assert stream is not None
            for piece in (b"ab", b"cde"):
                framed = b"%x\r\n%b\r\n" % (len(piece), piece) if stream.chunked else piece
                stream.transport.write(framed)
            await stream.end()
            return None
        if request.path == "/broken":
            assert request.begin(200, {"Content-Type": "text/plain"}) is not None
            return Response(b"{}", 500)
        said = f"{request.method} {request.path}?{request.raw_query} ".encode() + request.body
        return Response(said, content_type="text/plain", headers={"X-Seen": str(request.headers)})

    def screen(self, request: Request) -> Response | None:
        return Response(b"refused", 401, "text/plain") if self.refuse(request) else None

    @staticmethod
    def trouble(trouble: Trouble) -> Response:
        return Response(trouble.encode(), 400, "text/plain")


@asynccontextmanager
async def site(limits: Limits = GENEROUS) -> AsyncIterator[Site]:
    made = Site()
    made.listener.limits = limits
    made.port = await made.listener.start("127.0.0.1", 0, reuse_port=False)
    try:
        yield made
    finally:
        if made.gate is not None:
            made.gate.set()
        await made.listener.close(PATIENCE_S)


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces one after the other; all that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(PATIENCE_S):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        answer = await reader.read()
    await gone(writer)
    return answer


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def bodies(answer: bytes) -> list[bytes]:
    """The bodies of answers of known length."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"Content-Length"])
        found.append(rest[:length])
        answer = rest[length:]
    return found
