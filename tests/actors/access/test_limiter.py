"""What a key may take, whatever it tries and whenever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.access.keyfile import Limits
from actors.access.limiter import DAY_S, Account, Refusal

STEPS = st.lists(st.tuples(st.floats(0, 40), st.integers(0, 500), st.booleans()), max_size=60)


@given(STEPS, st.integers(1, 30))
def test_no_minute_sees_more_requests_than_burst_and_rate_allow(
    steps: list[tuple[float, int, bool]], limit: int
) -> None:
    account = Account(Limits(requests_per_minute=limit), 0.0)
    now, begun = 0.0, []
    for wait_s, tokens, _ in steps:
        now += wait_s
        if account.begin(now, now) is None:
            begun.append(now)
            account.end(tokens, now, now)

    for first in begun:
        for last in begun:
            if last >= first:
                within = sum(first <= at <= last for at in begun)
                assert within <= limit + (last - first) * limit / 60 + 1e-6


@given(STEPS, st.integers(1, 5))
def test_never_are_more_open_than_may_be(steps: list[tuple[float, int, bool]], limit: int) -> None:
    account, open_ = Account(Limits(concurrency=limit), 0.0), 0
    for wait_s, tokens, ends in steps:
        if ends and open_:
            account.end(tokens, wait_s, wait_s)
            open_ -= 1
        elif account.begin(wait_s, wait_s) is None:
            open_ += 1
        assert account.open == open_ <= limit


@given(STEPS, st.integers(1, 2000))
def test_a_refusal_says_when_it_is_over(steps: list[tuple[float, int, bool]], limit: int) -> None:
    account, now = Account(Limits(tokens_per_minute=limit), 0.0), 0.0
    for wait_s, tokens, _ in steps:
        now += wait_s
        refusal = account.begin(now, now)
        if refusal is not None:
            assert refusal.kind == "tokens"
            now += refusal.retry_after_s + 1e-6
            assert account.begin(now, now) is None
        account.end(tokens, now, now)


def test_a_days_budget_is_new_the_next_day() -> None:
    account = Account(Limits(tokens_per_day=100), 0.0)
    assert account.begin(0.0, 10.0) is None
    account.end(100, 0.0, 10.0)

    assert account.begin(1.0, 20.0) == Refusal("budget", 100, DAY_S - 20.0)
    assert account.begin(2.0, DAY_S + 1) is None


def test_what_was_refused_costs_nothing_and_the_room_is_told() -> None:
    account = Account(Limits(requests_per_minute=2, tokens_per_minute=600), 0.0)
    for _ in range(2):
        assert account.begin(0.0, 0.0) is None
        account.end(300, 0.0, 0.0)
    for _ in range(5):
        assert account.begin(0.0, 0.0) == Refusal("requests", 2, 30.0)

    requests, tokens = account.requests_room(15.0), account.tokens_room(15.0)
    assert requests is not None
    assert (requests.remaining, requests.reset_s) == (0, 45.0)
    assert tokens is not None
    assert (tokens.remaining, tokens.limit) == (150, 600)


def test_other_limits_do_not_forgive_what_was_taken() -> None:
    account = Account(Limits(requests_per_minute=10), 0.0)
    for _ in range(6):
        assert account.begin(0.0, 0.0) is None

    account.change(Limits(requests_per_minute=20), 0.0)

    room = account.requests_room(0.0)
    assert room is not None
    assert room.remaining == 14
