"""Whether one more request of a key may begin. Pure: the time is given.

Requests and tokens are token buckets (Turner 1986, as in most API gateways): a minute's worth of
burst, filled evenly. Nobody knows at the beginning how many tokens a request will take, so it may
begin while there is any room, and what it took is charged at its end; the bucket may go below
nothing, and the next request then waits longer. Over any time T a key begins at most
limit x (T + one minute) requests. Refused requests cost nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from actors.access.keyfile import Limits

MINUTE_S = 60.0
DAY_S = 86400.0
Kind = Literal["requests", "tokens", "concurrency", "budget"]


class Room(msgspec.Struct, frozen=True):
    """What is left of one limit."""

    limit: int
    remaining: int
    reset_s: float
    """Until it is whole again."""


class Refusal(msgspec.Struct, frozen=True):
    """Why not now."""

    kind: Kind
    limit: int
    retry_after_s: float


class Bucket:
    """`limit` a minute, and as much at once."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at = now

    def level(self, now: float) -> float:
        # A clock that stands still or steps back fills nothing.
        passed = max(0.0, now - self._at)
        self._level = min(float(self.limit), self._level + passed * self.limit / MINUTE_S)
        self._at = max(self._at, now)
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._level = self.level(now) - amount

    def wait_s(self, amount: float, now: float) -> float:
        """Until the level is at least this."""
        return max(0.0, (amount - self.level(now)) * MINUTE_S / self.limit)

    def room(self, now: float) -> Room:
        level = self.level(now)
        return Room(self.limit, max(0, math.floor(level)), self.wait_s(self.limit, now))


class Account:
    """What one key has taken."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self._requests = _bucket(limits.requests_per_minute, now)
        self._tokens = _bucket(limits.tokens_per_minute, now)
        self.open = 0
        self._day = -1
        self._spent = 0

    def change(self, limits: Limits, now: float) -> None:
        """Other limits from now on; what was taken stays taken."""
        if limits.requests_per_minute != self.limits.requests_per_minute:
            self._requests = _carried(self._requests, limits.requests_per_minute, now)
        if limits.tokens_per_minute != self.limits.tokens_per_minute:
            self._tokens = _carried(self._tokens, limits.tokens_per_minute, now)
        self.limits = limits

    def begin(self, now: float, wall: float) -> Refusal | None:
        """Begin a request, or say why not. `wall`: seconds since 1970, for the day."""
        limits = self.limits
        if limits.concurrency is not None and self.open >= limits.concurrency:
            return Refusal("concurrency", limits.concurrency, 1.0)
        if limits.tokens_per_day is not None and self._spent_on(wall) >= limits.tokens_per_day:
            return Refusal("budget", limits.tokens_per_day, DAY_S - wall % DAY_S)
        if self._requests is not None and self._requests.level(now) < 1:
            return Refusal("requests", self._requests.limit, self._requests.wait_s(1, now))
        if self._tokens is not None and self._tokens.level(now) < 1:
            return Refusal("tokens", self._tokens.limit, self._tokens.wait_s(1, now))
        if self._requests is not None:
            self._requests.take(1, now)
        self.open += 1
        return None

    def end(self, tokens: int, now: float, wall: float) -> None:
        """A request that has begun is over, and took so many tokens."""
        self.open -= 1
        if self._tokens is not None:
            self._tokens.take(tokens, now)
        self._spent = self._spent_on(wall) + tokens

    def requests_room(self, now: float) -> Room | None:
        return None if self._requests is None else self._requests.room(now)

    def tokens_room(self, now: float) -> Room | None:
        return None if self._tokens is None else self._tokens.room(now)

    def _spent_on(self, wall: float) -> int:
        day = int(wall // DAY_S)
        if day > self._day:
            self._day, self._spent = day, 0
        return self._spent


def _bucket(limit: int | None, now: float) -> Bucket | None:
    return None if limit is None else Bucket(limit, now)


def _carried(old: Bucket | None, limit: int | None, now: float) -> Bucket | None:
    new = _bucket(limit, now)
    if old is not None and new is not None:
        new.take(max(0.0, old.limit - old.level(now)), now)
    return new
