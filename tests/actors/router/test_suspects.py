"""Suspects: who gets nothing for a moment."""

from __future__ import annotations

from actors.router.suspects import SUSPICION_S, Suspects
from actors.runtime.address import Address

WORKER = Address("generation", 0, 5)


def test_a_worker_is_suspected_for_a_moment_only() -> None:
    suspects = Suspects()

    suspects.add(WORKER, 10.0)

    assert WORKER in suspects.at(10.0)
    assert WORKER not in suspects.at(10.0 + SUSPICION_S)


def test_another_refusal_prolongs_the_suspicion() -> None:
    suspects = Suspects()
    suspects.add(WORKER, 10.0)

    suspects.add(WORKER, 10.5)

    assert WORKER in suspects.at(10.0 + SUSPICION_S)


def test_a_successor_is_not_suspected() -> None:
    suspects = Suspects()

    suspects.add(WORKER, 10.0)

    assert Address("generation", 0, 6) not in suspects.at(10.0)
