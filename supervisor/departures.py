"""Tells the other nodes at once that a life has ended, long before its lease runs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from actors.runtime.address import Address
from actors.runtime.errors import PlaneUnavailable
from actors.runtime.message import encode
from actors.runtime.node import Departed, departures
from actors.runtime.transport.nats import NatsSettings, NatsTransport

RETRY_S = 0.5
"""A refusal comes at once; a server that is not there is tried for seconds by itself."""

log = structlog.get_logger("departures")


class Departures:
    """The supervisor's own connection to NATS. While it is away nothing is published: the
    registry's leases tell everybody in the end."""

    def __init__(self, namespace: str, settings: NatsSettings) -> None:
        self._subject = departures(namespace)
        self._settings = settings
        self._transport: NatsTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to connect; from then on the connection mends itself. Idempotent."""
        if self._transport is None:
            self._transport = NatsTransport(self._settings, "supervisor")
            self._spawn(self._connect(self._transport), "connect")

    def publish(self, addresses: Iterable[Address], reason: str) -> None:
        """Say that these lives are over."""
        if self._transport is None or self._transport.health == "lost":
            return
        for address in addresses:
            self._transport.publish(self._subject, encode(Departed(address, reason)))

    def close(self, then: Callable[[], None]) -> None:
        """Begin to disconnect; what was published goes out first, then `then` is called. `open`
        may follow."""
        transport, self._transport = self._transport, None
        if transport is None:
            then()
        else:
            closing = self._spawn(transport.close(), "close")
            closing.add_done_callback(lambda _: then())

    async def wait_closed(self) -> None:
        """Return when nothing is under way any more."""
        self.close(then=lambda: None)
        for task in list(self._tasks):
            if task.get_name() == "departures-connect":
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, transport: NatsTransport) -> None:
        """Until it is there: of a topology on several nodes, another may start the server later."""
        told = False
        while self._transport is transport:
            try:
                await transport.start()
            except PlaneUnavailable as error:
                if not told:
                    log.warning("nats_not_reached", error=str(error), tried="again")
                told = True
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"departures-{what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
