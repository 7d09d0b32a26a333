"""A bounded queue in front of one actor."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class MailboxStatistics(NamedTuple):
    depth: int
    """Messages waiting now."""
    limit: int
    accepted: int
    refused: int
    peak: int
    """The greatest depth so far."""


class Mailbox(Generic[T]):
    """First in, first out; at most `limit` messages wait. A full mailbox refuses the newcomer.

    One consumer. `offer` never blocks and may be called from any callback of the loop.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a mailbox needs room for at least one message, not {limit}")
        self._limit = limit
        self._queue: deque[T] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._accepted = 0
        self._refused = 0
        self._peak = 0

    def offer(self, item: T) -> bool:
        """Queue the item, or return False when the mailbox is full."""
        if len(self._queue) >= self._limit:
            self._refused += 1
            return False
        self._append(item)
        return True

    def put_urgent(self, item: T) -> None:
        """Queue a message of the runtime itself (a `Down`, say), also when the mailbox is full.

        Not a hole in the bound: there is one such message for each actor watched.
        """
        self._append(item)

    async def get(self) -> T:
        """The oldest message, waiting for one if need be."""
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._queue.popleft()

    def clear(self) -> list[T]:
        """Empty the mailbox and return what was in it."""
        items = list(self._queue)
        self._queue.clear()
        return items

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            depth=len(self._queue),
            limit=self._limit,
            accepted=self._accepted,
            refused=self._refused,
            peak=self._peak,
        )

    def __len__(self) -> int:
        return len(self._queue)

    def _append(self, item: T) -> None:
        self._queue.append(item)
        self._accepted += 1
        self._peak = max(self._peak, len(self._queue))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
