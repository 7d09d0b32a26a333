"""Handoffs in both directions: prompts kept for others, and blocks fetched from others.

All methods are called from the engine's thread; only the copying happens in threads of its own,
so that a slow fetch delays no step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from actors.engines.base import Handoff, Request
from actors.engines.transformers.stream import Stream
from actors.kv.hashing import BYTES_PER_TOKEN
from actors.kv.transfer import Exchange, Ticket, TransferError

FETCHERS = 4
"""Handoffs fetched at the same time; more wait their turn, no more than requests may run."""

_log = structlog.get_logger(__name__)


class Handoffs:
    """Tickets given out and tickets used."""

    def __init__(
        self,
        exchange: Exchange,
        fetched: Callable[[Stream, str], None],
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fetched` is told of the end of every fetch, in the fetching thread, with a sentence
        when it failed."""
        self._exchange = exchange
        self._fetched = fetched
        self._ttl_s = ttl_s
        self._clock = clock
        self._fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="kv-fetch")
        self._kept: dict[int, tuple[Ticket, float]] = {}
        """Offers and when they are dropped; in the order of keeping, so in that of time."""

    def ticket_for(self, request: Request) -> Ticket | None:
        """The ticket of a decode, None for other requests. Raises TransferError when it cannot
        be right."""
        if request.handoff is None:
            return None
        ticket = Ticket.decode(request.handoff.ticket)
        self._exchange.check(ticket)
        if ticket.tokens * BYTES_PER_TOKEN != len(request.prompt):
            raise TransferError("the handoff is for a prompt of another length")
        return ticket

    def keep(self, stream: Stream, first_token: int, tokens: int) -> Handoff:
        """Offer a computed prompt. Its blocks must stay until `let_go`. Raises TransferError."""
        ticket = self._exchange.offer(stream.sequence.blocks, tokens)
        self._kept[stream.request.id] = ticket, self._clock() + self._ttl_s
        return Handoff(first_token, ticket.encode())

    def __contains__(self, request_id: int) -> bool:
        """Whether this request's blocks are on offer."""
        return request_id in self._kept

    def let_go(self, request_id: int) -> None:
        """End an offer. Only then may its blocks be freed: see `actors.kv.transfer.offers`."""
        ticket, _ = self._kept.pop(request_id)
        self._exchange.withdraw(ticket)

    def until_expiry(self) -> float | None:
        """Seconds until the next offer is due to be dropped; None without an offer."""
        if not self._kept:
            return None
        _, deadline = next(iter(self._kept.values()))
        return max(0.0, deadline - self._clock())

    def expired(self) -> list[int]:
        """Offers to let go now, since nobody fetched them in time."""
        now = self._clock()
        found = [number for number, (_, deadline) in self._kept.items() if deadline <= now]
        for number in found:
            _log.warning("handoff_not_fetched", sequence=number, ttl_s=self._ttl_s)
        return found

    def begin_fetch(self, stream: Stream) -> None:
        """Fill a sequence's blocks, but for those that were found in the cache."""
        sequence, ticket = stream.sequence, stream.ticket
        assert ticket is not None
        skip = sequence.published
        targets = tuple(sequence.blocks[skip : len(ticket.blocks)])
        self._fetchers.submit(self._fetch, stream, ticket, skip, targets)

    def close(self) -> None:
        """Withdraw all offers, and make running fetches fail; returns when none runs."""
        self._exchange.close()
        self._fetchers.shutdown()

    def _fetch(self, stream: Stream, ticket: Ticket, skip: int, targets: tuple[int, ...]) -> None:
        error = ""
        try:
            self._exchange.fetch(ticket, skip, targets)
            stream.copied_bytes = len(targets) * self._exchange.block_bytes
        except TransferError as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001 - one broken fetch ends one request, not all
            _log.exception("fetch_broke")
            error = f"{type(failure).__name__}: {failure}"
        self._fetched(stream, error)
