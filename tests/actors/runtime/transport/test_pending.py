"""The table of tells whose refusal is of interest stays small."""

from __future__ import annotations

from actors.runtime.transport.pending import PENDING_AGE_S, PENDING_LIMIT, PendingTells


def ignore(_frame: bytes | None) -> None:
    """A bounce nobody looks at."""


def test_a_tell_is_found_once_by_its_number() -> None:
    pending = PendingTells()
    first, second = pending.add(ignore, 0.0), pending.add(print, 0.0)

    assert pending.take(first) is ignore
    assert pending.take(first) is None
    assert pending.take(second) is print


def test_the_oldest_is_forgotten_beyond_the_limit() -> None:
    pending = PendingTells()
    numbers = [pending.add(ignore, 0.0) for _ in range(PENDING_LIMIT + 1)]

    assert len(pending) == PENDING_LIMIT
    assert pending.take(numbers[0]) is None
    assert pending.take(numbers[1]) is ignore


def test_what_is_too_old_is_forgotten_when_the_next_comes() -> None:
    pending = PendingTells()
    old, young = pending.add(ignore, 0.0), pending.add(ignore, 0.1)

    pending.add(ignore, PENDING_AGE_S)

    assert pending.take(old) is None
    assert pending.take(young) is ignore
