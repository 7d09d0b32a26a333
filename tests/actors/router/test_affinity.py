"""Who served a session last."""

from __future__ import annotations

from actors.router.affinity import Sessions
from actors.router.options import AffinityOptions
from actors.runtime.address import Address

ONE, TWO = Address("context", 0, 5), Address("generation", 0, 6)


def test_each_leg_of_a_session_is_remembered_for_a_while() -> None:
    sessions = Sessions(AffinityOptions(ttl_s=10))
    sessions.note(7, [("context", ONE), ("generation", TWO)], 0.0)

    assert sessions.find(7, "context", 9.9) == ONE
    assert sessions.find(7, "generation", 9.9) == TWO
    assert sessions.find(7, "alone", 9.9) is None
    assert sessions.find(8, "context", 9.9) is None
    assert sessions.find(7, "context", 10.0) is None


def test_the_longest_unused_session_is_forgotten_first() -> None:
    sessions = Sessions(AffinityOptions(sessions=2))
    for session in (1, 2, 1, 3):
        sessions.note(session, [("alone", ONE)], 0.0)

    assert [sessions.find(n, "alone", 0.0) for n in (1, 2, 3)] == [ONE, None, ONE]
    assert len(sessions) == 2


def test_without_credit_nothing_is_remembered() -> None:
    sessions = Sessions(AffinityOptions(blocks=0))
    sessions.note(1, [("alone", ONE)], 0.0)

    assert len(sessions) == 0
