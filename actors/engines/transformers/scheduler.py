"""Which sequences run in the next step, and on which blocks. Pure: no clock, no tensor, no thread.

A step is planned in this order.

    1. Every running sequence that lacks only its last token decodes. If it needs one more block
       and none can be had, the youngest running sequence is preempted: its blocks go, and it
       waits to be computed again from its tokens.
    2. Running prompts go on, oldest first, with the tokens left in the step's budget.
    3. Waiting sequences are admitted, oldest first, while there is budget, a place, and blocks
       for all their tokens at once. None overtakes the oldest.

Decodes come first, so a long prompt never starves them; and the budget for prompts never falls
below one block, so decodes never starve a prompt. The oldest sequence is never preempted for
another, and the engine admits no request longer than the pool, so every sequence finishes.

Blocks for a prompt are taken at admission, not chunk by chunk: two half-computed prompts can then
never wait for each other's blocks.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.engines.transformers.sequence import Sequence, Stage
from actors.kv.blocks import BlockPool

EXAMINED_TOKENS = 256
"""Of a prompt that is examined, in one step: each may cost a row as long as the vocabulary."""


class Limits(NamedTuple):
    """What bounds a step."""

    block_tokens: int
    max_running: int
    max_step_tokens: int
    prefix_cache: bool = True


class Piece(NamedTuple):
    """Tokens `start` to `start + length` of one sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    length: int

    @property
    def last(self) -> bool:
        """Whether this piece yields the sequence's next token."""
        return self.start + self.length == len(self.sequence.tokens)


@dataclass(slots=True)
class Plan:
    """One step."""

    decodes: list[Piece] = field(default_factory=list)
    prompts: list[Piece] = field(default_factory=list)
    fetches: list[Sequence] = field(default_factory=list)
    """Blocks are theirs; now fill them, and say `fetched`."""
    preempted: list[Sequence] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.decodes or self.prompts)


class Scheduler:
    """Owns every sequence between its arrival and its end, and the pool of blocks.

    The caller computes each piece of a plan and then calls `advance` with it, before it plans
    again. Between two plans sequences may be added, removed, held and fetched in any order.
    """

    def __init__(self, pool: BlockPool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self._arrivals = 0
        self._waiting: deque[Sequence] = deque()
        self._waiting_tokens = 0
        self._running: list[Sequence] = []
        self._elsewhere: dict[int, Sequence] = {}
        """Fetching, abandoned or held: with blocks, and not part of steps."""
        self._fetching = 0

    @property
    def running(self) -> int:
        """Sequences that hold a place: in steps, or fetching."""
        return len(self._running) + self._fetching

    @property
    def waiting(self) -> int:
        """Sequences that hold nothing yet, or nothing any more."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens to compute, of waiting and running sequences."""
        return self._waiting_tokens + sum(s.pending for s in self._running if s.pending > 1)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence behind all others."""
        sequence.order = self._arrivals
        self._arrivals += 1
        self._wait(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence and free what it holds; of one that is fetching, once it has."""
        match sequence.stage:
            case Stage.WAITING:
                self._waiting.remove(sequence)
                self._waiting_tokens -= self._cost(sequence)
            case Stage.RUNNING:
                self._running.remove(sequence)
            case Stage.HELD:
                del self._elsewhere[sequence.order]
            case Stage.FETCHING:
                sequence.stage = Stage.ABANDONED
                return
            case _:
                raise AssertionError(f"sequence {sequence.id} was removed already")
        self._free(sequence)
        sequence.stage = Stage.GONE

    def hold(self, sequence: Sequence) -> None:
        """Take a computed prompt out of the steps and keep its blocks until `remove`."""
        assert sequence.stage is Stage.RUNNING
        assert sequence.pending == 0
        self._running.remove(sequence)
        sequence.stage = Stage.HELD
        self._elsewhere[sequence.order] = sequence

    def fetched(self, sequence: Sequence, *, arrived: bool) -> bool:
        """The filling of a sequence's blocks is over. False when the sequence is gone: it did
        not arrive, or was removed meanwhile."""
        assert sequence.stage in {Stage.FETCHING, Stage.ABANDONED}
        del self._elsewhere[sequence.order]
        self._fetching -= 1
        if not arrived or sequence.stage is Stage.ABANDONED:
            self._free(sequence)
            sequence.stage = Stage.GONE
            return False
        sequence.stage = Stage.RUNNING
        sequence.fetch = False
        bisect.insort(self._running, sequence, key=_order)
        sequence.computed = len(sequence.tokens) - 1
        self._publish(sequence)
        return True

    def advance(self, piece: Piece) -> None:
        """A piece of the last plan has been computed."""
        sequence = piece.sequence
        assert sequence.stage is Stage.RUNNING
        assert sequence.computed == piece.start
        sequence.computed += piece.length
        self._publish(sequence)

    def plan(self) -> Plan:
        """Decide the next step. The plan is empty when nothing can run now."""
        plan = Plan()
        for sequence in self._running[:]:
            if (
                sequence.stage is Stage.RUNNING
                and sequence.pending == 1
                and self._grow(sequence, plan)
            ):
                plan.decodes.append(Piece(sequence, sequence.computed, 1))
        budget = max(self.limits.max_step_tokens - len(plan.decodes), self.limits.block_tokens)
        for sequence in self._running:
            if sequence.pending > 1 and budget > 0:
                budget -= self._chunk(sequence, plan, budget)
        while self._waiting and self.running < self.limits.max_running:
            sequence = self._waiting[0]
            if (budget <= 0 and not sequence.fetch) or not self._admit(sequence):
                break
            if sequence.fetch:
                plan.fetches.append(sequence)
            else:
                budget -= self._chunk(sequence, plan, budget)
        return plan

    def _chunk(self, sequence: Sequence, plan: Plan, budget: int) -> int:
        count = min(sequence.pending, budget)
        if sequence.examined:
            count = min(count, EXAMINED_TOKENS)
        plan.prompts.append(Piece(sequence, sequence.computed, count))
        return count

    def _grow(self, sequence: Sequence, plan: Plan) -> bool:
        """Give a sequence the block for its last token; False when it was preempted itself."""
        if len(sequence.tokens) <= len(sequence.blocks) * self.limits.block_tokens:
            return True
        while not self.pool.available:
            victim = self._running.pop()
            self._free(victim)
            self._wait(victim)
            plan.preempted.append(victim)
            if victim is sequence:
                return False
        sequence.blocks += self.pool.allocate(1)
        return True

    def _admit(self, sequence: Sequence) -> bool:
        block_tokens = self.limits.block_tokens
        matched: list[int] = []
        if self.limits.prefix_cache and not sequence.examined:
            # The last token is always computed: only that yields the next one.
            matched = self.pool.match(sequence.hashes[: (len(sequence.tokens) - 1) // block_tokens])
        wanted = -(-len(sequence.tokens) // block_tokens) - len(matched)
        # A spare block for each running sequence, or the admission would soon be undone.
        if self.pool.available < wanted + len(self._running):
            self.pool.release(matched)
            return False
        self._waiting.popleft()
        self._waiting_tokens -= self._cost(sequence)
        sequence.blocks = matched + self.pool.allocate(wanted)
        sequence.published = len(matched)
        sequence.computed = len(matched) * block_tokens
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
        if sequence.fetch:
            sequence.stage = Stage.FETCHING
            self._elsewhere[sequence.order] = sequence
            self._fetching += 1
        else:
            sequence.stage = Stage.RUNNING
            bisect.insort(self._running, sequence, key=_order)
        return True

    def _wait(self, sequence: Sequence) -> None:
        sequence.stage = Stage.WAITING
        self._waiting_tokens += self._cost(sequence)
        at = len(self._waiting)
        while at and self._waiting[at - 1].order > sequence.order:
            at -= 1
        self._waiting.insert(at, sequence)

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.published = sequence.computed = 0

    def _publish(self, sequence: Sequence) -> None:
        if not self.limits.prefix_cache:
            return
        block_tokens = self.limits.block_tokens
        first, after = sequence.published, sequence.computed // block_tokens
        if first >= after:
            return
        for number in range(first, after):
            sequence.sequence_hash(number, block_tokens)
        sequence.blocks[first:after] = self.pool.publish(
            sequence.blocks[first:after],
            sequence.hashes[first:after],
            sequence.hashes[first - 1] if first else None,
        )
        sequence.published = after

    @staticmethod
    def _cost(sequence: Sequence) -> int:
        return 0 if sequence.fetch else len(sequence.tokens)


def _order(sequence: Sequence) -> int:
    return sequence.order
