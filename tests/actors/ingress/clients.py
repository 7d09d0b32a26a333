"""Clients of the HTTP API: the official one, and one that sends whatever bytes it is given."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from actors.ingress.actor import Ingress
from tests.service import MODEL, PATIENCE_S

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def url_of(ingress: Ingress) -> str:
    url = ingress._server.url
    assert url is not None
    return url


@asynccontextmanager
async def official(ingress: Ingress) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client; it does not try again by itself."""
    async with AsyncOpenAI(
        base_url=f"{url_of(ingress)}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    ) as client:
        yield client


class Answer(NamedTuple):
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream: the data of its events, `[DONE]` included."""
        found = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in found]

    @property
    def text(self) -> str:
        """The first choice's text, streamed or not."""
        objects = [e for e in self.events if e != "[DONE]"] or [self.json]
        return "".join(_text(choice) for o in objects for choice in o["choices"])


def _text(choice: Any) -> str:
    message = choice.get("delta") or choice.get("message") or {}
    return str(choice.get("text") or message.get("content") or "")


class Connection:
    """One TCP connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write; a server that has already closed the connection takes no more, which is fine."""
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            try:
                await self._writer.drain()
            except ConnectionError:
                return

    async def post(self, path: str, body: Any, *, version: str = "1.1") -> None:
        await self.send(request(path, body, version=version))

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(status_line.split()[1]), {k.lower(): v for k, v in headers.items()}

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
        return data[:-2]

    async def answer(self) -> Answer:
        """The next response, to its end."""
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while data := await self.chunk():
                body += data
        elif "content-length" in headers:
            async with asyncio.timeout(PATIENCE_S):
                body = await self._reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.rest()
        return Answer(status, headers, body)

    async def rest(self) -> bytes:
        """All that comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    def end_input(self) -> None:
        """Send no more, and go on reading."""
        self._writer.write_eof()

    def stop_reading(self) -> None:
        """Leave what the server sends in the sockets' buffers."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's

    def read_on(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is a socket's

    def abort(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


@asynccontextmanager
async def connected(
    ingress: Ingress, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Connection]:
    address = urlsplit(url_of(ingress))
    reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=tls)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


def request(path: str, body: Any = None, *, version: str = "1.1", method: str = "") -> bytes:
    """An HTTP request; the body may be bytes, or anything JSON can hold."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    head = f"{method} {path} HTTP/{version}\r\nHost: test\r\nContent-Length: {len(raw)}\r\n\r\n"
    return head.encode() + raw


def completion(prompt: Any = "hello", **fields: Any) -> dict[str, Any]:
    """A request body that needs no more to be served."""
    return {"model": MODEL, "prompt": prompt, "max_tokens": 8, "seed": 5, **fields}


async def fetch(ingress: Ingress, path: str, body: Any = None) -> Answer:
    """One request on a connection of its own."""
    async with connected(ingress) as connection:
        await connection.send(request(path, body))
        return await connection.answer()
