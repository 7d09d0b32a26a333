"""The session: every token once and in order, or an explicit error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.ingress.session import (
    MAX_EARLY_CHUNKS,
    Abandon,
    Action,
    Arrived,
    Ask,
    Assigned,
    Deliver,
    Event,
    Fail,
    Fell,
    Finish,
    Forget,
    Opening,
    Policy,
    Regained,
    Rejected,
    Session,
    Submit,
    Tick,
    Unheard,
)
from actors.messages.frame import Chunk
from actors.runtime.address import Address

CONTEXT = Address("context", 0, 11)
GENERATION = Address("generation", 0, 12)
POLICY = Policy(attempts=3)
DEADLINE = 600.0


def chunk(epoch: int, offset: int, *tokens: int, finish: str = "", error: str = "") -> Arrived:
    return Arrived(Chunk(1, epoch, offset, list(tokens), finish, error))


def assigned(epoch: int = 0, context: Address | None = CONTEXT) -> Assigned:
    return Assigned(epoch, context, GENERATION, 7)


def begun(max_tokens: int = 100, **policy: Any) -> Session:
    """A session that has been assigned its workers."""
    session = Session(Policy(**{"attempts": 3, **policy}), max_tokens, DEADLINE)
    assert session.begin(0.0) == [Submit(0, ())]
    assert session.step(assigned(), 0.1) == []
    return session


def run(session: Session, *events: Event, now: float = 1.0) -> list[Action]:
    return [action for event in events for action in session.step(event, now)]


def by_the_short_way(session: Session, event: Event, now: float) -> list[Action]:
    """Step an event, one that is a single token by `take_next` where that is possible."""
    if isinstance(event, Arrived) and len(event.chunk.tokens) == 1 and not event.chunk.finish:
        taken = event.chunk
        if session.take_next(taken.epoch, taken.offset, taken.tokens[0], now):
            return [Deliver(taken.tokens, None)]
    return session.step(event, now)


def test_once_a_sequence_flows_its_next_token_is_taken_the_short_way() -> None:
    session = begun()
    assert not session.take_next(0, 0, 5, 1.0), "the first one has more to say"
    run(session, chunk(0, 0, 5))

    assert session.take_next(0, 1, 6, 1.1)
    assert not session.take_next(0, 1, 6, 1.1), "a repeat"
    assert not session.take_next(0, 3, 8, 1.1), "a gap"
    assert not session.take_next(1, 2, 7, 1.1), "another attempt"
    assert session.take_next(0, 2, 7, 1.2)
    assert session.delivered == [5, 6, 7]
    assert session.wake_at == 1.2 + session.policy.silence_s


def test_after_its_end_no_token_is_taken_the_short_way() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), chunk(0, 2, 7, finish="stop"), chunk(0, 1, 6))

    assert session.over
    assert not session.take_next(0, 3, 8, 1.1)


def test_tokens_are_delivered_in_order_and_the_last_chunk_finishes() -> None:
    session = begun()

    actions = run(session, chunk(0, 0, 5), chunk(0, 1, 6, 7), chunk(0, 3, 8, finish="stop"))

    assert actions == [
        Deliver([5], None),
        Deliver([6, 7], None),
        Deliver([8], None),
        Finish("stop"),
    ]
    assert session.over


def test_a_finished_session_acts_no_more() -> None:
    session = begun()
    run(session, chunk(0, 0, 5, finish="length"))

    late = run(
        session, chunk(0, 1, 6), Fell(GENERATION, "killed"), Tick(), Abandon(), now=DEADLINE + 1
    )

    assert late == []


def test_a_chunk_that_overtook_the_first_token_waits_for_it() -> None:
    session = begun()

    assert run(session, chunk(0, 1, 6, 7)) == []
    assert run(session, chunk(0, 0, 5)) == [Deliver([5], None), Deliver([6, 7], None)]


def test_a_chunk_that_comes_twice_is_delivered_once() -> None:
    session = begun()

    actions = run(session, chunk(0, 0, 5, 6), chunk(0, 0, 5, 6), chunk(0, 1, 6, 7))

    assert actions == [Deliver([5, 6], None), Deliver([7], None)]


def test_chunks_of_an_earlier_epoch_are_dropped_and_counted() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), Fell(GENERATION, "killed"))

    assert run(session, chunk(0, 1, 6)) == []
    assert session.stale_chunks == 1


def test_a_fallen_worker_causes_a_replay_with_what_was_delivered() -> None:
    session = begun()

    actions = run(session, chunk(0, 0, 5), Fell(GENERATION, "killed"))

    assert actions[1:] == [Forget(CONTEXT, 0), Forget(GENERATION, 0), Submit(1, (5,))]


def test_a_replay_continues_where_the_delivered_tokens_end() -> None:
    session = begun()
    run(session, chunk(0, 0, 5, 6), Fell(GENERATION, "killed"), assigned(1))

    actions = run(session, chunk(1, 0, 7), chunk(1, 1, 8, finish="stop"))

    assert actions == [Deliver([7], None), Deliver([8], None), Finish("stop")]
    assert session.delivered == [5, 6, 7, 8]


def test_the_context_worker_may_fall_once_the_generation_worker_has_the_blocks() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), chunk(0, 1, 6))

    assert run(session, Fell(CONTEXT, "killed")) == []


def test_the_context_worker_falling_during_the_prefill_causes_a_replay() -> None:
    session = begun()

    assert Submit(1, ()) in run(session, Fell(CONTEXT, "killed"))


def test_a_router_that_falls_before_the_assignment_causes_a_replay() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    router = Fell(Address("router", 0, 3), "killed", on_the_way=True)

    assert run(session, router) == [Submit(1, ())]


def test_a_router_that_falls_after_the_assignment_changes_nothing() -> None:
    router = Fell(Address("router", 0, 3), "killed", on_the_way=True)

    assert run(begun(), router) == []


def test_an_older_life_of_the_worker_falling_changes_nothing() -> None:
    assert run(begun(), Fell(Address("generation", 0, 1), "was replaced")) == []


def test_a_missing_chunk_causes_a_replay_after_the_gap_timeout() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), chunk(0, 3, 8), now=1.0)

    assert run(session, Tick(), now=1.0 + POLICY.gap_s) == [Ask(GENERATION, 0, 1)]
    assert not session.delivered[1:]
    assert Submit(1, (5,)) in run(session, Tick(), now=2.01)


def test_more_early_chunks_than_the_limit_count_as_a_gap() -> None:
    session = begun()
    actions = run(session, *(chunk(0, 10 + i, i) for i in range(MAX_EARLY_CHUNKS + 1)))

    assert Submit(1, ()) in actions


def test_no_progress_in_time_causes_a_replay() -> None:
    session = begun(progress_timeout_s=60.0)

    while (now := session.wake_at) < 60.1:
        assert run(session, Tick(), chunk(0, 0), now=now) == [Ask(CONTEXT, 0, 0)]
    assert Submit(1, ()) in run(session, Tick(), now=60.2)


def test_a_silent_worker_is_asked_and_what_it_answers_is_delivered() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)

    assert run(session, Tick(), now=1.0 + POLICY.silence_s) == [Ask(GENERATION, 0, 1)]
    assert run(session, chunk(0, 1, 6, 7), now=1.6) == [Deliver([6, 7], None)]


def asked_while(session: Session, paces: Iterable[float], start: float) -> int:
    """Have tokens come at these intervals, a timer that is set anew only when it has fired, and a
    worker that answers every question; return how many there were."""
    now, asked, timer = start, session.asked, session.wake_at
    for offset, pace in enumerate(paces, len(session.delivered)):
        now += pace
        while timer < now:
            for action in session.step(Tick(), timer):
                assert action == Ask(GENERATION, 0, offset)
                run(session, chunk(0, offset), now=timer)
            timer = session.wake_at
        by_the_short_way(session, chunk(0, offset, 1), now)
        timer = min(timer, session.wake_at)
    return session.asked - asked


def test_tokens_that_come_slowly_are_not_each_asked_for() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)

    assert asked_while(session, [1.1 * POLICY.silence_s] * 100, 1.0) <= 2


def test_after_slow_tokens_quick_ones_are_missed_as_soon_as_ever() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)
    asked_while(session, [1.0] * 20, 1.0)
    asked_while(session, [0.01] * 500, 21.0)

    assert session.wake_at == pytest.approx(26.0 + POLICY.silence_s)


def test_a_worker_that_has_nothing_yet_is_asked_less_and_less_often_up_to_a_limit() -> None:
    session = begun()
    intervals, now = [], 1.0
    for _ in range(6):
        intervals.append(session.wake_at - now)
        now = session.wake_at
        assert run(session, Tick(), chunk(0, 0), now=now) == [Ask(CONTEXT, 0, 0)]

    assert intervals[1:] == pytest.approx([1.0, 2.0, 4.0, 4.0, 4.0])


def test_where_first_tokens_take_long_nobody_is_asked_before_twice_their_time() -> None:
    session = Session(POLICY, 10, deadline=600.0)
    session.begin(0.0)
    run(session, Assigned(0, CONTEXT, GENERATION, 3, usual_s=1.0), now=1.0)

    assert session.wake_at == 1.0 + 2.0
    assert run(session, Tick(), now=3.0) == [Ask(CONTEXT, 0, 0)]


def test_a_first_token_that_took_long_says_nothing_of_the_second() -> None:
    session = Session(POLICY, 10, deadline=600.0)
    session.begin(0.0)
    run(session, Assigned(0, CONTEXT, GENERATION, 3, usual_s=1.0), now=1.0)
    run(session, chunk(0, 0, 5), now=2.5)

    assert session.wake_at == 2.5 + POLICY.silence_s


def test_an_attempt_that_is_made_again_is_as_impatient_as_the_first() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)
    asked_while(session, [2.0] * 10, 1.0)
    run(session, Fell(GENERATION, "killed"), now=21.0)
    run(session, assigned(1), now=21.0)

    assert session.wake_at == 21.0 + POLICY.silence_s


def test_what_was_asked_for_and_what_was_early_are_put_together() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), chunk(0, 3, 8, 9), chunk(0, 5, 10))

    actions = run(session, chunk(0, 1, 6, 7, 8, 9), chunk(0, 6, 11, finish="stop"))

    assert [a.tokens for a in actions if isinstance(a, Deliver)] == [[6, 7, 8, 9], [10], [11]]
    assert actions[-1] == Finish("stop")


def test_a_worker_that_does_not_know_the_request_causes_a_replay() -> None:
    session = begun()
    run(session, chunk(0, 0, 5))

    assert Submit(1, (5,)) in run(session, chunk(0, 1, finish="error", error="unknown"))


def test_a_worker_that_answers_nothing_is_given_up() -> None:
    session = begun(deaf_s=3.0)
    run(session, chunk(0, 0, 5), now=1.0)
    actions: list[Action] = []
    while not any(isinstance(action, Submit) for action in actions):
        actions = run(session, Tick(), now=session.wake_at)

    assert 4.0 < session.wake_at - POLICY.assign_timeout_s <= 5.0


def test_a_question_that_found_nobody_is_asked_once_more_before_the_worker_is_given_up() -> None:
    session = begun()
    run(session, chunk(0, 0, 5))

    assert run(session, Unheard(GENERATION, 0)) == []
    assert Submit(1, (5,)) in run(session, Unheard(GENERATION, 0))


def test_a_connection_that_is_back_has_everything_asked_for_at_once() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)
    run(session, Regained(), now=1.1)

    assert session.wake_at == pytest.approx(1.1 + POLICY.gap_s)
    assert run(session, Tick(), now=1.2) == [Ask(GENERATION, 0, 1)]


def test_nobody_is_given_up_while_the_connection_is_away() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), now=1.0)

    for second in range(2, 120):
        assert run(session, Tick(away=True), now=float(second)) == []
    assert session.epoch == 0


def test_a_new_request_is_turned_away_when_the_connection_stays_away() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    assert run(session, Tick(away=True), now=3.0) == []
    assert isinstance(run(session, Tick(away=True), now=6.5)[-1], Fail)


def test_workers_of_a_doubled_message_are_told_to_stop() -> None:
    other = Address("generation", 1, 5)

    assert run(begun(), Assigned(0, CONTEXT, other, 7)) == [Forget(other, 0)]


def test_a_request_that_comes_back_at_once_is_tried_again_after_a_while() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    assert run(session, Rejected(0, "lost", "nobody listens"), now=0.0) == [Submit(1, ())]
    assert run(session, Rejected(1, "lost", "nobody listens"), now=0.0) == []
    assert 0.0 < session.wake_at <= POLICY.retry_s
    assert run(session, Tick(), now=session.wake_at) == [Submit(2, ())]


def test_somebody_who_becomes_ready_ends_the_waiting() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), Fell(GENERATION, "killed"), Rejected(1, "unavailable", "none"))

    run(session, Opening(), now=1.01)

    assert run(session, Tick(), now=1.05) == [Submit(2, (5,))]


def test_a_new_request_waits_for_the_successor_of_what_has_just_fallen() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    assert run(session, Rejected(0, "unavailable", "none", recovering=True)) == []
    assert run(session, Tick(), now=2.0) == [Submit(1, ())]
    assert isinstance(run(session, Rejected(1, "unavailable", "none"))[-1], Fail)


def test_no_assignment_in_time_causes_a_replay() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    assert run(session, Tick(), now=POLICY.assign_timeout_s) == [Submit(1, ())]


def test_too_many_losses_in_a_row_are_an_error_that_says_why() -> None:
    session = begun()
    losses = [
        event
        for epoch in range(4)
        for event in (assigned(epoch), chunk(epoch, 0, finish="error", error="it broke"))
    ]

    actions = run(session, *losses)

    assert isinstance(actions[-1], Fail)
    assert "it broke" in actions[-1].text


def test_progress_forgives_earlier_losses() -> None:
    session = begun()
    for epoch in range(10):
        actions = run(session, assigned(epoch), chunk(epoch, 0, epoch), Fell(GENERATION, "killed"))
        assert isinstance(actions[-1], Submit)


def test_nobody_ready_fails_a_new_request_at_once() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    actions = run(session, Rejected(0, "unavailable", "no worker", retry_after_s=2.0))

    assert actions == [Fail("unavailable", "no worker", "", 2.0)]


def test_nobody_ready_lets_a_begun_request_wait_for_a_successor() -> None:
    session = begun()
    run(session, chunk(0, 0, 5), Fell(GENERATION, "killed"))

    assert run(session, Rejected(1, "unavailable", "no worker"), now=1.0) == []
    assert run(session, Tick(), now=1.0 + POLICY.retry_s) == [Submit(2, (5,))]


def test_a_begun_request_does_not_wait_for_ever() -> None:
    session = begun(recovery_s=30.0)
    run(session, chunk(0, 0, 5), Fell(GENERATION, "killed"))
    run(session, Rejected(1, "unavailable", "no worker"), now=1.0)
    run(session, Tick(), now=31.0)

    actions = run(session, Rejected(2, "unavailable", "no worker"), now=31.5)

    assert isinstance(actions[-1], Fail)


def test_a_lost_last_chunk_is_no_loss_when_all_tokens_are_there() -> None:
    session = begun(max_tokens=2)

    actions = run(session, chunk(0, 0, 5), chunk(0, 1, 6), Fell(GENERATION, "killed"))

    assert actions[-1] == Finish("length")


def test_a_client_that_leaves_has_its_workers_told() -> None:
    assert run(begun(), Abandon()) == [Forget(CONTEXT, 0), Forget(GENERATION, 0)]


def test_the_deadline_ends_everything() -> None:
    actions = run(begun(), Tick(), now=DEADLINE)

    assert isinstance(actions[-1], Fail)
    assert actions[-1].why == "timeout"


def test_the_prompt_is_counted_also_when_the_first_attempt_was_never_assigned() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)
    run(session, Fell(Address("router", 0, 3), "killed", on_the_way=True))

    run(session, Assigned(1, CONTEXT, GENERATION, 7))

    assert session.prompt_tokens == 7


def test_delivered_tokens_do_not_count_as_prompt_after_a_replay() -> None:
    session = begun()
    run(session, chunk(0, 0, 5, 6), Fell(GENERATION, "killed"))

    run(session, Assigned(1, CONTEXT, GENERATION, 9))

    assert session.prompt_tokens == 7


def test_the_prompt_is_counted_by_the_worker_when_the_assignment_was_lost() -> None:
    session = Session(POLICY, 100, DEADLINE)
    session.begin(0.0)

    run(session, Arrived(Chunk(1, 0, 0, [5], cached_tokens=4, prompt_tokens=7)))

    assert (session.prompt_tokens, session.cached_tokens) == (7, 4)


REFERENCE = list(range(1000, 1040))


class BadNetwork(RuleBasedStateMachine):
    """Whatever a bad network and falling workers do, what is delivered is a prefix of the
    reference, without gap or repeat."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session(Policy(attempts=1000), len(REFERENCE), 1e9)
        self.now = 0.0
        self.delivered: list[int] = []
        self.epoch = self.base = self.sent = 0
        self.held: list[Arrived] = []
        self.twin = Session(Policy(attempts=1000), len(REFERENCE), 1e9)
        """Is told the same, but never by `take_next`."""
        self.twin.begin(self.now)
        self.take(self.session.begin(self.now))

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Deliver):
                self.delivered += action.tokens
            if isinstance(action, Submit):
                assert list(action.delivered) == self.delivered
                self.epoch, self.base, self.sent = action.epoch, len(action.delivered), 0
                self.held.clear()
                self.step(assigned(self.epoch))

    def step(self, event: Event) -> None:
        self.now += 0.01
        expected = self.twin.step(event, self.now)
        actions = by_the_short_way(self.session, event, self.now)
        assert actions == expected
        assert self.session.wake_at == self.twin.wake_at
        self.take(actions)

    def next_chunk(self, size: int) -> Arrived:
        start = self.base + self.sent
        offset, self.sent = self.sent, self.sent + len(REFERENCE[start : start + size])
        return chunk(self.epoch, offset, *REFERENCE[start : start + size])

    @rule(size=st.integers(1, 4))
    def send(self, size: int) -> None:
        self.step(self.next_chunk(size))

    @rule(size=st.integers(1, 4))
    def send_twice(self, size: int) -> None:
        sent = self.next_chunk(size)
        self.step(sent)
        self.step(sent)

    @rule(size=st.integers(1, 4))
    def hold_back(self, size: int) -> None:
        self.held.append(self.next_chunk(size))

    @rule(data=st.data())
    def let_one_go(self, data: st.DataObject) -> None:
        if self.held:
            self.step(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(size=st.integers(1, 4))
    def lose(self, size: int) -> None:
        self.next_chunk(size)

    @rule(worker=st.sampled_from([CONTEXT, GENERATION]))
    def fall(self, worker: Address) -> None:
        self.step(Fell(worker, "killed"))

    @rule()
    def wake_a_zombie(self) -> None:
        if self.epoch > 0:
            self.step(chunk(self.epoch - 1, 0, 1, 2, 3))

    @rule()
    def answer_what_was_asked_for(self) -> None:
        """The worker sends everything again from where the session is."""
        offset = len(self.delivered) - self.base
        self.step(
            chunk(self.epoch, offset, *REFERENCE[len(self.delivered) : self.base + self.sent])
        )

    @rule()
    def wait(self) -> None:
        self.now = max(self.now, self.session.wake_at)
        self.step(Tick())

    @invariant()
    def a_prefix_was_delivered(self) -> None:
        assert self.delivered == REFERENCE[: len(self.delivered)]
        assert self.session.delivered == self.delivered

    @invariant()
    def it_is_over_or_will_be_woken(self) -> None:
        assert self.session.over or self.session.wake_at < 1e9


TestBadNetwork = BadNetwork.TestCase
TestBadNetwork.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
