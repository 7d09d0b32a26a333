"""The life of one sequence, as the ingress that owns its client sees it. Pure.

    submitted ──Assigned──▶ assigned ──last chunk──▶ over
        ▲ ▲                    │
        │ └────── replay ──────┤   a worker fell, a gap, no progress, an engine's error
        │                      │
      waiting ◀──nobody ready──┘   (only for a sequence that had begun)

The state is what was delivered, and which attempt (`epoch`) is under way. A replay submits the
prompt again with the delivered tokens behind it and a higher epoch; chunks of older epochs are
dropped, repeats within an epoch are cut off, chunks that come early wait for those before them
(the first token and the rest come from two workers, and nothing orders the two). So the client
sees every token once and in order, or an explicit error.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from actors.messages.assign import Why
from actors.messages.frame import Chunk
from actors.messages.sampling import Logprobs
from actors.runtime.address import Address

MAX_EARLY_CHUNKS = 256
"""Chunks kept while one before them is missing; more count as a gap."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait, and how often to try."""

    attempts: int = 6
    """Replays after a loss; the next loss is an error."""
    assign_timeout_s: float = 10.0
    """From submitting to being assigned."""
    progress_timeout_s: float = 60.0
    """From being assigned to the first token, and between tokens."""
    gap_timeout_s: float = 1.0
    """How long a missing chunk may take when later ones are here."""
    recovery_s: float = 30.0
    """How long a sequence that had begun waits for a worker to come back."""
    retry_s: float = 0.2
    """Between two tries while waiting."""


# -- events --------------------------------------------------------------------------------------


class Assigned(msgspec.Struct, frozen=True, tag=True):
    epoch: int
    context: Address | None
    generation: Address
    prompt_tokens: int


class Rejected(msgspec.Struct, frozen=True, tag=True):
    epoch: int
    why: Why
    text: str
    param: str = ""
    retry_after_s: float = 0.0


class Arrived(msgspec.Struct, frozen=True, tag=True):
    chunk: Chunk


class Fell(msgspec.Struct, frozen=True, tag=True):
    """A life ended, or a message to it came back."""

    address: Address
    reason: str
    on_the_way: bool = False
    """It takes part in routing; matters only before the sequence is assigned."""


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Time has passed. Due at `Session.wake_at`."""


class Abandon(msgspec.Struct, frozen=True, tag=True):
    """The client has gone, or has all it wants (a stop string)."""


Event = Assigned | Rejected | Arrived | Fell | Tick | Abandon


# -- actions -------------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Submit the attempt `epoch`, with the `delivered` tokens behind the prompt."""

    epoch: int
    delivered: tuple[int, ...]


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Tell this worker to cancel the attempt."""

    worker: Address
    epoch: int


class Deliver(msgspec.Struct, frozen=True, tag=True):
    """These tokens are next."""

    tokens: list[int]
    logprobs: list[Logprobs] | None


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The sequence ended well."""

    reason: Literal["stop", "length"]


class Fail(msgspec.Struct, frozen=True, tag=True):
    """The sequence ended in an error."""

    why: Why | Literal["timeout"]
    text: str
    param: str = ""
    retry_after_s: float = 0.0


Action = Submit | Forget | Deliver | Finish | Fail


class Phase(enum.StrEnum):
    SUBMITTED = "submitted"
    ASSIGNED = "assigned"
    WAITING = "waiting"
    OVER = "over"


class Session:
    """One sequence. `step` takes what happened and says what to do; nothing else changes it."""

    def __init__(self, policy: Policy, max_tokens: int, deadline: float) -> None:
        self.policy = policy
        self.max_tokens = max_tokens
        self.deadline = deadline
        self.phase = Phase.SUBMITTED
        self.epoch = 0
        self.delivered: list[int] = []
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.context: Address | None = None
        self.generation: Address | None = None
        self.stale_chunks = 0
        self._losses = 0
        self._epoch_start = 0
        self._early: dict[int, Chunk] = {}
        self._due = deadline
        self._recover_until: float | None = None

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def replays(self) -> int:
        return self.epoch

    @property
    def wake_at(self) -> float:
        """When to step a `Tick` next, at the latest."""
        return min(self._due, self.deadline)

    def begin(self, now: float) -> list[Action]:
        """The first attempt."""
        self._due = now + self.policy.assign_timeout_s
        return [Submit(0, ())]

    def step(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. After `Finish` or `Fail` there is never another action."""
        if self.over:
            return []
        match event:
            case Arrived(chunk):
                return self._arrived(chunk, now)
            case Assigned():
                return self._assigned(event, now)
            case Rejected():
                return self._rejected(event, now)
            case Fell(address, reason, on_the_way):
                return self._fell(address, reason, now, on_the_way=on_the_way)
            case Tick():
                return self._tick(now)
            case Abandon():
                return self._end()

    # -- the ordinary way ----------------------------------------------------------------------

    def _assigned(self, event: Assigned, now: float) -> list[Action]:
        if event.epoch != self.epoch:
            return []
        self.phase = Phase.ASSIGNED
        self.context, self.generation = event.context, event.generation
        if self.epoch == 0:
            self.prompt_tokens = event.prompt_tokens
        self._due = now + self.policy.progress_timeout_s
        return []

    def _arrived(self, chunk: Chunk, now: float) -> list[Action]:
        if chunk.epoch != self.epoch:
            self.stale_chunks += 1
            return []
        expected = len(self.delivered) - self._epoch_start
        if chunk.offset > expected:
            return self._keep_early(chunk, now)
        actions = self._take(chunk, expected, now)
        while not self.over and self._early:
            expected = len(self.delivered) - self._epoch_start
            following = self._early.pop(expected, None)
            if following is None:
                break
            actions += self._take(following, expected, now)
        return actions

    def _take(self, chunk: Chunk, expected: int, now: float) -> list[Action]:
        if chunk.offset == 0 and self.epoch == 0:
            self.cached_tokens = chunk.cached_tokens
        repeated = expected - chunk.offset
        tokens = chunk.tokens[repeated:]
        actions: list[Action] = []
        if tokens:
            self.delivered += tokens
            logprobs = None if chunk.logprobs is None else chunk.logprobs[repeated:]
            actions.append(Deliver(tokens, logprobs))
            self._due = now + self.policy.progress_timeout_s
            self._losses = 0
            self._recover_until = None
        match chunk.finish:
            case "":
                return actions
            case "stop" | "length" as reason:
                return [*actions, *self._end(Finish(reason))]
            case _:
                return actions + self._lost(chunk.error or "the worker gave the request up", now)

    def _keep_early(self, chunk: Chunk, now: float) -> list[Action]:
        self._early[chunk.offset] = chunk
        if len(self._early) > MAX_EARLY_CHUNKS:
            return self._lost("tokens are missing", now)
        self._due = min(self._due, now + self.policy.gap_timeout_s)
        return []

    # -- losses --------------------------------------------------------------------------------

    def _fell(self, address: Address, reason: str, now: float, *, on_the_way: bool) -> list[Action]:
        mine = address in {self.context, self.generation}
        if self.phase is Phase.ASSIGNED and mine:
            if address == self.context and self._prefill_is_over:
                return []
            return self._lost(f"{address.name}: {reason}", now)
        if self.phase is Phase.SUBMITTED and on_the_way:
            return self._lost(f"{address.name}: {reason}", now)
        return []

    @property
    def _prefill_is_over(self) -> bool:
        # The generation worker has fetched the blocks once its own tokens arrive.
        return len(self.delivered) - self._epoch_start >= 2 or bool(self._early)

    def _rejected(self, event: Rejected, now: float) -> list[Action]:
        if event.epoch != self.epoch:
            return []
        if event.why == "lost":
            return self._lost(event.text, now)
        if event.why == "too_long" and self.delivered:
            # Delivered tokens filled the context, and the chunk that said so was lost.
            return self._end(Finish("length"))
        temporary = event.why in {"unavailable", "overloaded"}
        if temporary and self.epoch > 0:
            if self._recover_until is None:
                self._recover_until = now + self.policy.recovery_s
            if now < self._recover_until:
                self.phase = Phase.WAITING
                self._due = now + self.policy.retry_s
                return []
        return self._end(Fail(event.why, event.text, event.param, event.retry_after_s))

    def _tick(self, now: float) -> list[Action]:
        if now >= self.deadline:
            return self._end(Fail("timeout", "the request took longer than it may"))
        if now < self._due:
            return []
        match self.phase:
            case Phase.WAITING:
                return self._submit_again(now)
            case Phase.SUBMITTED:
                return self._lost("nobody took the request on", now)
            case _:
                missing = "tokens are missing" if self._early else "no progress"
                return self._lost(missing, now)

    def _lost(self, reason: str, now: float) -> list[Action]:
        if len(self.delivered) >= self.max_tokens:
            # Only the chunk that would have said so was lost.
            return self._end(Finish("length"))
        self._losses += 1
        if self._losses > self.policy.attempts:
            text = f"gave up after {self.policy.attempts} replays: {reason}"
            return self._end(Fail("unavailable", text, retry_after_s=1.0))
        forget = self._forget_workers()
        return forget + self._submit_again(now)

    def _submit_again(self, now: float) -> list[Action]:
        self.epoch += 1
        self.phase = Phase.SUBMITTED
        self.context = self.generation = None
        self._early.clear()
        self._epoch_start = len(self.delivered)
        self._due = now + self.policy.assign_timeout_s
        return [Submit(self.epoch, tuple(self.delivered))]

    # -- the end -------------------------------------------------------------------------------

    def _forget_workers(self) -> list[Action]:
        workers = [w for w in (self.context, self.generation) if w is not None]
        return [Forget(worker, self.epoch) for worker in workers]

    def _end(self, *last: Action) -> list[Action]:
        finished = any(isinstance(action, Finish) for action in last)
        forget = [] if finished else self._forget_workers()
        self.phase = Phase.OVER
        self._early.clear()
        return [*forget, *last]
