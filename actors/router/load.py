"""How busy a worker is: its last report, and what was sent to it since. Pure.

A report is up to 70 ms old, and a decision takes microseconds: whoever believed reports alone would
send everything of these 70 ms to one worker. So what is placed counts at once, until a report says
that the work has arrived; from then on the report counts it. What never arrives runs out. What
another router has placed may be heard of after the report in which it has arrived already.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.messages.cache import Load
from actors.messages.events import Placement
from actors.messages.key import RequestKey

EXPECTED_S = 15.0
"""How long work that was sent is counted without any sign of it. A prefill may take that long
before its generation worker hears of it."""
MAX_EXPECTED = 100_000
"""Of one worker. More cannot be in its mailbox anyway."""
SETTLED_S = 2.0
"""How long it is remembered, at least, that work has arrived or is not coming: the router that
placed it tells of it a few milliseconds and a message's way later."""
MAX_SETTLED = 20_000
"""Of one worker, in that time; of more, those of the last moments."""


class Expected(msgspec.Struct, frozen=True, gc=False):
    """Work on its way to a worker."""

    prefill_tokens: int
    blocks: int
    until: float


class WorkerLoad:
    """One worker's load, expected work included."""

    __slots__ = (
        "_expected",
        "_settled",
        "_settled_before",
        "_settled_since",
        "blocks",
        "prefill_tokens",
        "reported",
        "requests",
    )

    def __init__(self) -> None:
        self.reported = Load()
        self.prefill_tokens = 0
        """Prompt tokens it has still to compute."""
        self.blocks = 0
        """KV blocks held, or about to be."""
        self.requests = 0
        self._expected: dict[RequestKey, Expected] = {}
        self._settled: set[RequestKey] = set()
        self._settled_before: set[RequestKey] = set()
        self._settled_since = 0.0

    @property
    def expected(self) -> int:
        """Requests sent and not yet seen in a report."""
        return len(self._expected)

    def report(self, load: Load, taken: Iterable[RequestKey] = ()) -> None:
        """Take in what the worker says: its load now, and which work has arrived."""
        for key in taken:
            self._settle(key)
        before = self.reported
        self.prefill_tokens += load.waiting_tokens - before.waiting_tokens
        self.blocks += load.blocks_used - before.blocks_used
        self.requests += load.running + load.waiting - before.running - before.waiting
        self.reported = load

    def place(self, placement: Placement, now: float) -> None:
        """Expect work. The same request twice counts once, and not at all when it is known already
        that it has arrived or never will."""
        key = placement.key
        if key in self._settled or key in self._settled_before:
            return
        self._forget(key)
        if len(self._expected) >= MAX_EXPECTED:
            self._forget(next(iter(self._expected)))
        self._expected[key] = Expected(placement.prefill_tokens, placement.blocks, now + EXPECTED_S)
        self.prefill_tokens += placement.prefill_tokens
        self.blocks += placement.blocks
        self.requests += 1

    def forget(self, key: RequestKey) -> bool:
        """The work will not arrive; whether it was expected."""
        return self._settle(key)

    def overtake(self, attempts: Iterable[RequestKey]) -> bool:
        """There is a newer attempt than these; whether one was still expected."""
        found = [self._forget(key) for key in attempts]
        return any(found)

    def lose_track(self) -> bool:
        """Expect nothing any more; whether anything was expected."""
        keys = tuple(self._expected)
        for key in keys:
            self._forget(key)
        return bool(keys)

    def expire(self, now: float) -> bool:
        """Give up what was sent too long ago; whether there was any."""
        if now - self._settled_since >= SETTLED_S:
            self._settled_since = now
            self._settled_before, self._settled = self._settled, set()
        late = []
        for key, expected in self._expected.items():
            if expected.until > now:
                break
            late.append(key)
        for key in late:
            self._forget(key)
        return bool(late)

    def _settle(self, key: RequestKey) -> bool:
        if self._forget(key):
            return True
        # Nobody has told of it yet.
        if len(self._settled) >= MAX_SETTLED:
            self._settled_before, self._settled = self._settled, set()
        self._settled.add(key)
        return False

    def _forget(self, key: RequestKey) -> bool:
        expected = self._expected.pop(key, None)
        if expected is None:
            return False
        self.prefill_tokens -= expected.prefill_tokens
        self.blocks -= expected.blocks
        self.requests -= 1
        return True
