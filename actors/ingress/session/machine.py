"""The state machine itself."""

from __future__ import annotations

import enum

from actors.ingress.session.actions import (
    Action,
    Ask,
    Deliver,
    Fail,
    Finish,
    Forget,
    Learn,
    Submit,
)
from actors.ingress.session.events import (
    Abandon,
    Arrived,
    Assigned,
    Event,
    Fell,
    Opening,
    Regained,
    Rejected,
    Tick,
    Unheard,
)
from actors.ingress.session.policy import Policy
from actors.messages.frame import Chunk
from actors.runtime.address import Address

MAX_EARLY_CHUNKS = 256
"""Chunks kept while one before them is missing; more count as a gap."""
UNHEARD_LIMIT = 2
"""Questions in a row that found nobody: one alone may have met a worker that was just connecting
again."""
OPENING_S = 0.01
"""From hearing that somebody is ready to trying again."""
PACES = 2.0
"""How many times the usual time to a token may pass before it is silence."""
PATIENCE_LIMIT = 8
"""How often `silence_s` may have to pass at most, however slow the tokens are."""


class Phase(enum.StrEnum):
    SUBMITTED = "submitted"
    ASSIGNED = "assigned"
    WAITING = "waiting"
    OVER = "over"


class Session:
    """One sequence. `step` takes what happened and says what to do; nothing else changes it."""

    __slots__ = (
        "_away_since",
        "_due",
        "_early",
        "_epoch_start",
        "_flows",
        "_give_up_at",
        "_learnt",
        "_losses",
        "_moved_at",
        "_paced",
        "_patience_s",
        "_recover_until",
        "_refusals",
        "_unanswered_since",
        "_unassigned",
        "_unheard",
        "asked",
        "cached_tokens",
        "context",
        "deadline",
        "delivered",
        "epoch",
        "generation",
        "max_tokens",
        "phase",
        "policy",
        "prompt_tokens",
        "setback",
        "stale_chunks",
    )

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
        self.asked = 0
        """How often a worker was asked for what it has sent."""
        self.setback = ""
        """Why the last attempt was given up, in a few words."""
        self._learnt = False
        self._losses = 0
        self._unassigned = 0
        """Attempts in a row that nobody took on in time."""
        self._refusals = 0
        """Attempts in a row that came back at once."""
        self._epoch_start = 0
        self._early: dict[int, Chunk] = {}
        self._due = deadline
        self._give_up_at = deadline
        """When silence, or a gap, ends the attempt."""
        self._unanswered_since: float | None = None
        self._unheard = 0
        self._recover_until: float | None = None
        self._away_since: float | None = None
        self._flows = False
        """Since the last token nothing has happened but more of them, by `take_next`."""
        self._moved_at = 0.0
        """When the last one came."""
        self._patience_s = policy.silence_s
        """How long to wait for a token before asking: longer where they come slowly, or else each
        of them would cost a question and an answer."""
        self._paced = (0.0, 0)
        """When a token had come, and how many there were, when the pace was last looked at."""

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def replays(self) -> int:
        return self.epoch

    @property
    def wake_at(self) -> float:
        """When to step a `Tick` next, at the latest."""
        due = self._moved_at + self._patience_s if self._flows else self._due
        return min(due, self.deadline)

    def begin(self, now: float) -> list[Action]:
        """The first attempt."""
        self._await_assignment(now)
        return [Submit(0, ())]

    def step(self, event: Event, now: float) -> list[Action]:
        """What to do about an event. After `Finish` or `Fail` there is never another action."""
        if self.over or self._is_idle_tick(event, now):
            return []
        self._settle()
        match event:
            case Arrived(chunk):
                return self._arrived(chunk, now)
            case Assigned():
                return self._assigned(event, now)
            case Rejected():
                return self._rejected(event, now)
            case Fell(address, reason, on_the_way):
                return self._fell(address, reason, now, on_the_way=on_the_way)
            case Unheard(worker, epoch):
                return self._not_heard(worker, epoch, now)
            case Tick(away):
                return self._tick(now, away=away)
            case Abandon():
                return self._end()
            case Opening() | Regained():
                return self._hurry(event, now)

    # -- the ordinary way ----------------------------------------------------------------------

    def take_next(self, epoch: int, offset: int, token: int, now: float) -> bool:
        """The same as to step an `Arrived` with this one token, and to be told to deliver it, when
        it is the very next and nothing is amiss; then True. Otherwise nothing has changed, and
        `step` knows what to do. A fraction of its price, as nearly every token comes this way."""
        delivered = self.delivered
        if not self._flows or offset + self._epoch_start != len(delivered) or epoch != self.epoch:
            return False
        delivered.append(token)
        self._moved_at = now
        return True

    def _is_idle_tick(self, event: Event, now: float) -> bool:
        """Whether it flows, and the next token is not late: then it may go on flowing."""
        if type(event) is not Tick or not self._flows or now >= self.wake_at:
            return False
        self._look_at_pace()
        return True

    def _settle(self) -> None:
        """Catch up with what `take_next` left undone."""
        if self._flows:
            self._flows = False
            self._await_token(self._moved_at)

    def _assigned(self, event: Assigned, now: float) -> list[Action]:
        if event.epoch != self.epoch:
            return []
        if self.phase is Phase.ASSIGNED:
            return self._assigned_twice(event)
        self.phase = Phase.ASSIGNED
        self.context, self.generation = event.context, event.generation
        self.prompt_tokens = event.prompt_tokens - self._epoch_start
        self._unassigned = self._refusals = 0
        self._set_patience(PACES * event.usual_s)
        self._await_token(now)
        return []

    def _assigned_twice(self, event: Assigned) -> list[Action]:
        """A message of the way was doubled, and two pairs of workers have the attempt: tokens of
        two that need not agree must not be mixed."""
        mine = {self.context, self.generation}
        others = [w for w in (event.context, event.generation) if w is not None and w not in mine]
        return [Forget(worker, self.epoch) for worker in others]

    def _arrived(self, chunk: Chunk, now: float) -> list[Action]:
        if chunk.epoch != self.epoch:
            self.stale_chunks += 1
            return []
        self._unanswered_since = None
        self._unheard = 0
        expected = len(self.delivered) - self._epoch_start
        if chunk.offset > expected:
            return self._keep_early(chunk, now)
        actions = self._take(chunk, expected, now)
        while not self.over and self._early:
            expected = len(self.delivered) - self._epoch_start
            if (following := self._next_early(expected)) is None:
                break
            actions += self._take(following, expected, now)
        if actions and isinstance(actions[-1], Deliver) and not self._early:
            self._flows = self.phase is Phase.ASSIGNED
        if not chunk.tokens and not chunk.finish:
            self._wait_longer(now)
        return actions

    def _next_early(self, expected: int) -> Chunk | None:
        """The kept chunk that goes on from here. What was asked for comes in other pieces than
        the first time, so it need not begin exactly here."""
        following = self._early.pop(expected, None)
        if following is not None:
            return following
        overtaken = [offset for offset in self._early if offset < expected]
        return self._early.pop(min(overtaken)) if overtaken else None

    def _take(self, chunk: Chunk, expected: int, now: float) -> list[Action]:
        if chunk.offset == 0 and not self.delivered:
            # The first attempt that got as far as a token; what a replay finds in a cache is
            # no doing of the client's.
            self.cached_tokens = chunk.cached_tokens
            self.prompt_tokens = chunk.prompt_tokens or self.prompt_tokens
        repeated = expected - chunk.offset
        tokens = chunk.tokens[repeated:]
        actions: list[Action] = []
        if chunk.findings is not None and not self._learnt:
            self._learnt = True
            actions.append(Learn(chunk.findings))
        if tokens:
            self.delivered += tokens
            logprobs = None if chunk.logprobs is None else chunk.logprobs[repeated:]
            actions.append(Deliver(tokens, logprobs))
            self._losses = 0
            self._recover_until = None
            self._moved_at = now
            if not expected:
                # How long a first token took says nothing of the others.
                self._set_patience(0.0)
            self._await_token(now)
        if not chunk.finish:
            return actions
        if repeated > len(chunk.tokens):
            # An end before what is here already: of another stream of the same attempt.
            return actions
        match chunk.finish:
            case "stop" | "length" as reason:
                return [*actions, *self._end(Finish(reason))]
            case _:
                return actions + self._lost(chunk.error or "the worker gave the request up", now)

    def _await_token(self, now: float) -> None:
        self._give_up_at = now + self.policy.progress_timeout_s
        self._due = now + self._patience_s
        if self._early:
            self._due = now + self.policy.gap_s
            self._give_up_at = now + self.policy.gap_timeout_s

    def _await_assignment(self, now: float) -> None:
        timeout_s = self.policy.assign_timeout_s * 2**self._unassigned
        self._due = self._give_up_at = now + timeout_s

    def _keep_early(self, chunk: Chunk, now: float) -> list[Action]:
        if not self._early:
            self._due = min(self._due, now + self.policy.gap_s)
            self._give_up_at = min(self._give_up_at, now + self.policy.gap_timeout_s)
        self._early[chunk.offset] = chunk
        if len(self._early) > MAX_EARLY_CHUNKS:
            return self._lost("tokens are missing", now)
        return []

    # -- silence -------------------------------------------------------------------------------

    def _look_at_pace(self) -> None:
        """Be as patient as the tokens since the last look were slow."""
        (since, before), count = self._paced, len(self.delivered)
        if count > before > 0:
            pace_s = (self._moved_at - since) / (count - before)
            self._set_patience(PACES * pace_s)
        self._paced = self._moved_at, count

    def _wait_longer(self, now: float) -> None:
        """The worker knows of the request, and has nothing new: a question was not needed yet."""
        self._set_patience(2 * self._patience_s)
        if self.phase is Phase.ASSIGNED and not self._early:
            self._due = min(now + self._patience_s, self._give_up_at)

    def _set_patience(self, patience_s: float) -> None:
        least_s = self.policy.silence_s
        self._patience_s = min(max(least_s, patience_s), PATIENCE_LIMIT * least_s)

    def _ask(self, now: float) -> list[Action]:
        """Ask who must have sent the next token what became of it."""
        expected = len(self.delivered) - self._epoch_start
        worker = self.context if expected == 0 and self.context else self.generation
        if self._unanswered_since is None:
            self._unanswered_since = now
        self._due = min(now + self.policy.silence_s, self._give_up_at)
        if worker is None:
            return []
        self.asked += 1
        return [Ask(worker, self.epoch, expected)]

    def _not_heard(self, worker: Address, epoch: int, now: float) -> list[Action]:
        if epoch != self.epoch or worker not in {self.context, self.generation}:
            return []
        self._unheard += 1
        if self._unheard < UNHEARD_LIMIT:
            return []
        return self._lost(f"{worker.name} is not there", now)

    def _hurry(self, event: Opening | Regained, now: float) -> list[Action]:
        """Things look better: do not wait as long as was meant."""
        if isinstance(event, Opening):
            if self.phase is Phase.WAITING:
                # Not at once: the others on the way hear of it by watches of their own.
                self._due = min(self._due, now + OPENING_S)
            return []
        soon = now + self.policy.gap_s
        if self.phase is Phase.SUBMITTED:
            self._due = self._give_up_at = min(self._due, soon)
        else:
            self._due = min(self._due, soon)
            self._unanswered_since = None
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
        self.setback = event.text
        if event.why == "too_long" and self.delivered:
            # Delivered tokens filled the context, and the chunk that said so was lost.
            return self._end(Finish("length"))
        if event.why == "lost":
            self._refusals += 1
            if self._refusals == 1:
                return self._submit_again(now)
        patient = event.why == "lost" or bool(self.delivered) or event.recovering
        if patient and event.why in {"unavailable", "overloaded", "lost"}:
            if self._recover_until is None:
                self._recover_until = now + self.policy.recovery_s
            if now < self._recover_until:
                return self._wait(now)
        why = "unavailable" if event.why == "lost" else event.why
        return self._end(Fail(why, event.text, event.param, event.retry_after_s))

    def _wait(self, now: float) -> list[Action]:
        # What was there a moment ago comes back in milliseconds, or not so soon.
        delay_s = self.policy.retry_s
        if self._refusals:
            delay_s = min(delay_s, 0.02 * 2**self._refusals)
        forget = self._forget_workers()
        self.phase = Phase.WAITING
        self._due = now + delay_s
        return forget

    def _tick(self, now: float, *, away: bool) -> list[Action]:
        if now >= self.deadline:
            return self._end(Fail("timeout", "the request took longer than it may"))
        if now < self._due:
            return []
        if away:
            return self._sit_out(now)
        self._away_since = None
        match self.phase:
            case Phase.WAITING:
                return self._submit_again(now)
            case Phase.SUBMITTED:
                self._unassigned += 1
                return self._lost("nobody took the request on", now)
            case _:
                return self._tick_assigned(now)

    def _tick_assigned(self, now: float) -> list[Action]:
        if now >= self._give_up_at:
            return self._lost("tokens are missing" if self._early else "no progress", now)
        silent = self._unanswered_since
        if silent is not None and now >= silent + self.policy.deaf_s:
            return self._lost("the worker does not answer", now)
        return self._ask(now)

    def _sit_out(self, now: float) -> list[Action]:
        """Nobody can be reached: a new request is turned away after `restart_s`, others wait for
        the connection to come back."""
        if self._away_since is None:
            self._away_since = now
        if (
            self.phase is not Phase.ASSIGNED
            and not self.delivered
            and now >= self._away_since + self.policy.restart_s
        ):
            text = "the service cannot reach its message broker"
            return self._end(Fail("unavailable", text, retry_after_s=1.0))
        self._due = now + self.policy.silence_s
        self._give_up_at = max(self._give_up_at, self._due + self.policy.gap_timeout_s)
        self._unanswered_since = None
        return []

    def _lost(self, reason: str, now: float) -> list[Action]:
        if len(self.delivered) >= self.max_tokens:
            # Only the chunk that would have said so was lost.
            return self._end(Finish("length"))
        self.setback = reason
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
        self._unanswered_since = None
        self._unheard = 0
        self._epoch_start = len(self.delivered)
        self._patience_s, self._paced = self.policy.silence_s, (0.0, 0)
        self._await_assignment(now)
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
