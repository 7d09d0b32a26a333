"""The scheduler under any order of events: nothing leaks, everyone ends, every token is right."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from actors.engines.base import Finish, Output, Request
from actors.engines.simulated import SimulatedOptions, expected_tokens
from actors.engines.simulated.scheduler import Scheduler
from actors.messages.sampling import Sampling
from tests.actors.engines.contract import apply, packed, prompt_of

OPTIONS = SimulatedOptions(
    blocks=12,
    block_tokens=4,
    max_running=4,
    max_waiting=6,
    max_context_tokens=40,
    max_step_tokens=9,
)


class AnyOrder(RuleBasedStateMachine):
    """Requests come, go and are handed over while steps are or are not under way."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(OPTIONS, "engine")
        self.context = Scheduler(OPTIONS, "another")
        self.index: dict[int, int | None] = {}
        self.stepping = False
        self.fetches: list[int] = []
        self.numbers = 0
        self.expected: dict[int, list[int]] = {}
        self.kept: list[int] = []

    @rule(
        length=st.integers(1, 30),
        salt=st.integers(0, 1),
        max_tokens=st.integers(1, 30),
        phase=st.sampled_from(["whole", "prefill", "decode"]),
        resumed=st.integers(0, 3),
    )
    @precondition(lambda self: self.scheduler.load().waiting < OPTIONS.max_waiting)
    def submit(self, length: int, salt: int, max_tokens: int, phase: str, resumed: int) -> None:
        self.numbers += 1
        original = prompt_of(length, salt=salt)
        room = OPTIONS.context_tokens - length
        said = expected_tokens(original, 5, min(max_tokens + resumed, room), OPTIONS.words)
        resumed = min(resumed, len(said) - 1)
        request = Request(
            self.numbers,
            original + packed(*said[:resumed]),
            Sampling(max_tokens=len(said) - resumed, seed=5),
            resumed=resumed,
        )
        expected = said[resumed:]
        if phase == "prefill":
            request = msgspec.structs.replace(request, phase="prefill")
            expected = expected[:1]
        elif phase == "decode" and len(expected) > 1:
            prefill = msgspec.structs.replace(request, phase="prefill")
            self.context.submit(prefill)
            outputs: list[Output] = []
            while not outputs:
                self.context.plan()
                outputs = self.context.complete().full
            assert outputs[0].handoff is not None
            self.context.release(prefill.id)
            request = msgspec.structs.replace(request, phase="decode", handoff=outputs[0].handoff)
            expected = expected[1:]
        self.scheduler.submit(request)
        self.expected[request.id] = expected

    @rule()
    @precondition(lambda self: not self.stepping)
    def begin(self) -> None:
        step = self.scheduler.plan()
        assert step.prefill_tokens <= OPTIONS.max_step_tokens
        self.fetches += [number for number, _ in step.fetches]
        self.stepping = step.computes

    @rule()
    @precondition(lambda self: self.stepping)
    def end(self) -> None:
        self.stepping = False
        for output in self.scheduler.complete():
            self.hear(output)

    @rule(failed=st.booleans())
    @precondition(lambda self: bool(self.fetches))
    def fetch(self, failed: bool) -> None:
        number = self.fetches.pop(0)
        output = self.scheduler.fetched(number, failed=failed)
        assert output.fetched != failed
        assert (output.finish is Finish.ERROR) == failed
        if failed:
            del self.expected[number]

    @rule(data=st.data())
    @precondition(lambda self: bool(self.expected))
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.expected)))
        output = self.scheduler.cancel(number)
        assert output is not None
        assert output.finish is Finish.CANCELLED
        del self.expected[number]
        self.fetches = [other for other in self.fetches if other != number]
        self.kept = [other for other in self.kept if other != number]

    @rule()
    @precondition(lambda self: bool(self.kept))
    def release(self) -> None:
        number = self.kept.pop(0)
        self.scheduler.release(number)
        del self.expected[number]

    @rule()
    def read_events(self) -> None:
        apply(self.index, self.scheduler.take_cache_events())
        assert self.index == apply({}, self.scheduler.cache_snapshot())

    @invariant()
    def limits_hold(self) -> None:
        load = self.scheduler.load()
        assert load.running <= OPTIONS.max_running
        assert load.blocks_used <= OPTIONS.blocks

    def hear(self, output: Output) -> None:
        expected = self.expected[output.id]
        assert output.tokens == expected[: len(output.tokens)]
        del expected[: len(output.tokens)]
        if output.handoff is not None:
            self.kept.append(output.id)
        if output.finish is not None:
            assert output.finish is Finish.LENGTH
            assert expected == []
            del self.expected[output.id]

    def teardown(self) -> None:
        """Whatever is left now runs to its end, and then nothing is held."""
        for _ in range(2000):
            if self.stepping:
                self.end()
            while self.fetches:
                self.fetch(failed=False)
            while self.kept:
                self.release()
            if self.scheduler.idle:
                break
            self.begin()
        assert self.expected == {}
        load = self.scheduler.load()
        assert (load.running, load.waiting, load.blocks_used) == (0, 0, 0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_growing_sequences_preempt_the_youngest_and_lose_nothing() -> None:
    """Three sequences that cannot all grow to their end in the pool say what they would alone."""
    options = msgspec.structs.replace(OPTIONS, blocks=12, prefix_cache=False)
    scheduler = Scheduler(options, "engine")
    prompts = {number: prompt_of(8, salt=number) for number in range(3)}
    for number, prompt in prompts.items():
        scheduler.submit(Request(number, prompt, Sampling(max_tokens=25)))
    said: dict[int, list[int]] = {number: [] for number in prompts}
    ended: list[int] = []
    preempted = False
    while not scheduler.idle:
        scheduler.plan()
        preempted |= scheduler.load().waiting > 0 and any(said.values())
        for output in scheduler.complete():
            said[output.id] += output.tokens
            ended += [output.id] * (output.finish is not None)
    assert preempted
    assert ended[0] == 0
    for number, prompt in prompts.items():
        assert said[number] == expected_tokens(prompt, 0, 25, options.words)


def test_unread_journal_stays_within_twice_the_pool() -> None:
    scheduler = Scheduler(OPTIONS, "engine")
    for number in range(200):
        scheduler.submit(Request(number, prompt_of(30, salt=number), Sampling(max_tokens=2)))
        while not scheduler.idle:
            scheduler.plan()
            scheduler.complete()
    events = scheduler.take_cache_events()
    assert sum(len(event.blocks) for event in events) <= 2 * OPTIONS.blocks
