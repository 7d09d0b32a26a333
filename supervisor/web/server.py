"""Serves one page on loopback, and to that page what is going on, as server-sent events.

It can be read by every user of the host, as anything on loopback; so no secret is in a status,
and nothing can be changed from here: there are four addresses, and all of them only tell.

    /             the page
    /status.json  one status
    /metrics      what every process counts, for Prometheus
    /live         `status` now and each second, sooner when something happens; `happening` for each
                  event; `bye` when the supervisor ends
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from importlib import resources
from types import TracebackType
from typing import Protocol, Self

import msgspec
from aiohttp import web

from actors.runtime.metrics import CONTENT_TYPE
from supervisor.calls import Status
from supervisor.control import Subscription
from supervisor.events import Event

HOST = "127.0.0.1"
READERS_LIMIT = 32
"""Open pages; one more is told to come back later."""
INTERVAL_S = 1.0
"""Between two statuses when nothing happens."""
SETTLE_S = 0.1
"""After an event, so that a burst of them brings one status."""
RECENT_EVENTS = 30
"""Told to a page when it opens."""
RETRY_MS = 1000
"""After which a page that has lost us tries again."""
SHUTDOWN_S = 1.0

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageUnavailableError(OSError):
    """The port cannot be had."""

    def __init__(self, port: int, error: OSError) -> None:
        super().__init__(f"the page cannot be served on {HOST}:{port}: {error.strerror or error}")


class Shown(Protocol):
    """What the page needs of the supervisor behind it."""

    async def status(self) -> Status: ...

    async def metrics(self) -> str: ...

    def subscribe(self, recent: int) -> AbstractContextManager[Subscription]: ...


class Page:
    """Use as an async context manager; `url` is known inside."""

    def __init__(self, shown: Shown, port: int) -> None:
        """`port` 0: any that is free."""
        self._shown = shown
        self._port = port
        self._runner: web.AppRunner | None = None
        self._readers: set[Subscription] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        """Raises PageUnavailableError."""
        app = web.Application(middlewares=[self._only_from_here])
        app.router.add_get("/", self._page)
        app.router.add_get("/status.json", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/live", self._live)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PageUnavailableError(self._port, error) from None
        self._port = self._runner.addresses[0][1]
        self.url = f"http://{HOST}:{self._port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for reader in list(self._readers):
            reader.end()
        assert self._runner is not None, "it was entered"
        await self._runner.cleanup()

    @web.middleware
    async def _only_from_here(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # A web site whose name resolves to 127.0.0.1 could otherwise read the page through the
        # visitor's browser (DNS rebinding). A tunnel keeps the name and may change the port.
        name = request.host.rpartition(":")[0] or request.host
        if name not in {HOST, "localhost"}:
            raise web.HTTPMisdirectedRequest(text=f"ask for http://{HOST}:{self._port}\n")
        return await handler(request)

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(body=_page_html(), content_type="text/html", headers=_HEADERS)

    async def _status(self, _request: web.Request) -> web.Response:
        body = msgspec.json.encode(await self._shown.status())
        return web.Response(body=body, content_type="application/json", headers=_HEADERS)

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = await self._shown.metrics()
        return web.Response(body=text.encode(), headers={**_HEADERS, "Content-Type": CONTENT_TYPE})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        if len(self._readers) >= READERS_LIMIT:
            raise web.HTTPServiceUnavailable(text=f"{READERS_LIMIT} pages are open already\n")
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        with self._shown.subscribe(RECENT_EVENTS) as subscription:
            self._readers.add(subscription)
            try:
                await response.prepare(request)
                await response.write(f"retry: {RETRY_MS}\n\n".encode())
                await self._tell(response, subscription)
            except ConnectionError:
                pass  # the page was closed, as it may be at any time
            finally:
                self._readers.discard(subscription)
        return response

    async def _tell(self, response: web.StreamResponse, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(due):
                    event = await subscription.next()
            except TimeoutError:
                due = loop.time() + INTERVAL_S
                await response.write(_sse("status", await self._shown.status()))
                continue
            if event is None:
                await response.write(b"event: bye\ndata: {}\n\n")
                return
            due = min(due, loop.time() + SETTLE_S)
            await response.write(_sse("happening", event))


def _sse(name: str, content: Status | Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(content))


def _page_html() -> bytes:
    return resources.files("supervisor.web").joinpath("page.html").read_bytes()
