from __future__ import annotations

import random
from array import array
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engines.transformers.scheduler import Limits, Plan, Scheduler
from actors.engines.transformers.sequence import Sequence, Stage, sequence_of
from actors.kv.blocks import BlockPool
from tests.actors.engines.transformers.harness import packed

BLOCK = 4


def scheduler(
    *, blocks: int = 64, running: int = 8, step_tokens: int = 16, reuse: bool = True
) -> Scheduler:
    return Scheduler(BlockPool(blocks), Limits(BLOCK, running, step_tokens, reuse))


def sequence(number: int, length: int, *, shared: int = 0) -> Sequence:
    """A prompt of which the first tokens are everybody's."""
    tokens = [1] * shared + [100 + number] * (length - shared)
    return sequence_of(number, packed(tokens), block_tokens=BLOCK)


def carry_out(schedule: Scheduler, plan: Plan) -> list[Sequence]:
    """Compute a plan; the sequences that came to a new token."""
    pieces = [*plan.decodes, *plan.prompts]
    for piece in pieces:
        schedule.advance(piece)
    return [piece.sequence for piece in pieces if piece.last]


def shape(plan: Plan) -> list[tuple[int, int, int]]:
    return [(p.sequence.id, p.start, p.length) for p in (*plan.decodes, *plan.prompts)]


def test_a_long_prompt_is_cut_and_does_not_keep_others_from_decoding() -> None:
    schedule = scheduler(step_tokens=8)
    short, long = sequence(1, 3), sequence(2, 20)
    schedule.add(short)
    schedule.add(long)

    plan = schedule.plan()
    assert shape(plan) == [(1, 0, 3), (2, 0, 5)]
    (done,) = carry_out(schedule, plan)
    done.tokens.append(9)

    plan = schedule.plan()
    assert shape(plan) == [(1, 3, 1), (2, 5, 7)]


def test_the_budget_for_prompts_never_falls_below_a_block() -> None:
    schedule = scheduler(step_tokens=1)
    for number in range(3):
        schedule.add(sequence(number, 1))
    for _ in range(3):
        for done in carry_out(schedule, schedule.plan()):
            done.tokens.append(9)
    schedule.add(sequence(7, 9))

    assert shape(schedule.plan())[-1] == (7, 0, BLOCK)


def test_the_youngest_is_preempted_and_the_oldest_never() -> None:
    schedule = scheduler(blocks=5, reuse=False)
    old, young = sequence(1, 8), sequence(2, 7)
    schedule.add(old)
    schedule.add(young)
    for _ in range(1):
        for done in carry_out(schedule, schedule.plan()):
            done.tokens.append(9)
    for done in carry_out(schedule, schedule.plan()):
        done.tokens.append(9)
    assert [s.stage for s in (old, young)] == [Stage.RUNNING, Stage.RUNNING]

    plan = Plan()
    while not plan.preempted:
        plan = schedule.plan()
        for done in carry_out(schedule, plan):
            done.tokens.append(9)

    assert plan.preempted == [young]
    assert (young.blocks, young.computed) == ([], 0)
    assert old.stage is Stage.RUNNING


def test_nobody_overtakes_the_oldest_waiting() -> None:
    schedule = scheduler(blocks=6)
    for number, length in ((1, 16), (2, 16), (3, 2)):
        schedule.add(sequence(number, length))

    assert [piece.sequence.id for piece in schedule.plan().prompts] == [1]
    assert schedule.waiting == 2


def test_a_sequence_given_up_while_fetching_keeps_its_blocks_until_then() -> None:
    schedule = scheduler(blocks=8)
    fetching = sequence_of(1, packed(range(8)), block_tokens=BLOCK, first_token=5)
    schedule.add(fetching)
    assert schedule.plan().fetches == [fetching]

    schedule.remove(fetching)

    assert schedule.pool.held == 3
    assert not schedule.fetched(fetching, arrived=True)
    assert schedule.pool.held == 0


@dataclass
class Arrival:
    """What comes, and what it wants."""

    length: int
    shared: int
    generate: int
    kind: str


ARRIVALS = st.builds(
    Arrival,
    st.integers(1, 24),
    st.integers(0, 12),
    st.integers(1, 14),
    st.sampled_from(["whole", "prefill", "decode", "decode lost"]),
)


class Life:
    """An engine around the scheduler, without a model; chance decides when things happen."""

    def __init__(self, schedule: Scheduler, arrivals: list[Arrival], seed: int) -> None:
        self.schedule = schedule
        self.chance = random.Random(seed)
        self.pending = list(enumerate(arrivals))
        self.live: dict[int, Sequence] = {}
        self.wants: dict[int, Arrival] = {}
        self.fetching: list[Sequence] = []

    def arrive(self) -> None:
        number, arrival = self.pending.pop(0)
        item = sequence(number, arrival.length, shared=min(arrival.shared, arrival.length))
        if arrival.kind.startswith("decode"):
            item.fetch = True
            item.tokens.append(7)
        self.live[number], self.wants[number] = item, arrival
        self.schedule.add(item)

    def end_fetches(self) -> None:
        for item in self.fetching[:]:
            if self.chance.random() < 0.5:
                self.fetching.remove(item)
                arrived = self.wants[item.id].kind == "decode"
                if not self.schedule.fetched(item, arrived=arrived):
                    self.live.pop(item.id, None)

    def remove(self, number: int) -> None:
        self.schedule.remove(self.live.pop(number))

    def step(self) -> None:
        plan = self.schedule.plan()
        check(self.schedule, plan)
        self.fetching += plan.fetches
        for item in carry_out(self.schedule, plan):
            if self.wants[item.id].kind == "prefill":
                self.schedule.hold(item)
                continue
            item.tokens.append(50 + len(item.tokens) % 3)
            goal = self.wants[item.id].length + self.wants[item.id].generate
            if len(item.tokens) >= goal:
                self.remove(item.id)
        held = [s.id for s in self.live.values() if s.stage is Stage.HELD]
        # What is held for others is let go in the end: by them, or by time.
        if held and self.chance.random() < 0.5:
            self.remove(held[0])


def check(schedule: Scheduler, plan: Plan) -> None:
    """What must be true of every plan."""
    pieces = [*plan.decodes, *plan.prompts]
    assert len({piece.sequence.id for piece in pieces}) == len(pieces)
    limits = schedule.limits
    assert schedule.running <= limits.max_running
    budget = max(limits.max_step_tokens, BLOCK + len(plan.decodes))
    assert sum(piece.length for piece in pieces) <= budget
    readers = Counter(block for piece in pieces for block in piece.sequence.blocks)
    for piece in pieces:
        for at in range(piece.start, piece.start + piece.length):
            block = piece.sequence.blocks[at // BLOCK]
            assert readers[block] == 1, "a block that is written has another reader"


@settings(max_examples=80, deadline=None)
@given(
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=12),
    blocks=st.integers(10, 24),
    places=st.integers(1, 5),
    step_tokens=st.integers(1, 40),
    reuse=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_everything_finishes_and_no_block_is_lost_or_shared_wrongly(
    arrivals: list[Arrival], blocks: int, places: int, step_tokens: int, reuse: bool, seed: int
) -> None:
    schedule = scheduler(blocks=blocks, running=places, step_tokens=step_tokens, reuse=reuse)
    life = Life(schedule, arrivals, seed)

    for _ in range(4000):
        if life.pending and life.chance.random() < 0.5:
            life.arrive()
        if life.live and life.chance.random() < 0.05:
            life.remove(life.chance.choice(sorted(life.live)))
        life.end_fetches()
        life.step()
        if not (life.pending or life.live or life.fetching):
            break

    assert not life.live, "the schedule does not come to an end"
    assert (schedule.running, schedule.waiting, schedule.waiting_tokens) == (0, 0, 0)
    assert schedule.pool.held == 0


def test_waiting_tokens_count_prompts_only() -> None:
    schedule = scheduler(running=1, step_tokens=4)
    for number in range(2):
        schedule.add(sequence(number, 10))
    assert schedule.waiting_tokens == 20

    carry_out(schedule, schedule.plan())

    assert schedule.waiting_tokens == 16
    assert Sequence(5, array("I", [1])).pending == 1
