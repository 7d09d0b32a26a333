"""The simulated engine: a scheduler, one timer a step, and a script of things that go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from actors.engines.base import (
    Engine,
    EngineFailed,
    Finish,
    Info,
    Output,
    Outputs,
    Request,
    RequestRefused,
)
from actors.engines.simulated.faults import (
    Exit,
    Fail,
    Fault,
    IgnoreSigterm,
    Kill,
    RefuseStart,
    Script,
    SlowDown,
    Stall,
)
from actors.engines.simulated.options import SimulatedOptions
from actors.engines.simulated.scheduler import Scheduler
from actors.engines.simulated.tokens import EMBEDDING_SIZE
from actors.messages.cache import CacheEvent, Load

State = Literal["new", "ready", "stalled", "failed", "closed"]

_CATCH_UP_S = 0.25
"""How far steps may lie behind the clock and still be made up for, as a GPU would have gone on
while the loop was busy. What lies further back (a suspended process) is lost time."""

_MARGIN = 2.0
"""What a step is said to take at most, in terms of its formula."""


class SimulatedEngine(Engine):
    """An engine whose tokens are a function of prompt and seed, and whose time is a formula.

    It runs on the event loop of its caller, without a thread: one timer a step, set to absolute
    deadlines so that lateness of one step does not move the next. See `expected_token` for what
    it says and `Script` for how to make it fail.
    """

    def __init__(self, options: SimulatedOptions) -> None:
        self.options = options
        self._timing = options.timing
        self._scheduler = Scheduler(options, uuid.uuid4().hex)
        self._script = Script(options.faults)
        self._outbox: deque[Outputs] = deque()
        self._unread_steps = 0
        self._notices: Outputs | None = None  # the outbox's last, while no step follows
        self._news = asyncio.Event()
        self._step_timer: asyncio.Handle | None = None
        self._request_timers: dict[int, asyncio.TimerHandle] = {}  # fetches, and kept blocks' ends
        self._fetches: dict[int, float] = {}  # when each ends, on the loop's clock
        self._deadline = 0.0
        self._progress = 0
        self._patience_s = 0.0
        self._slow_factor = 1.0
        self._slow_until = 0
        self._state: State = "new"
        self._waits_for_reader = False
        self._previous_sigterm: Any = None

    @property
    def faults_fired(self) -> Counter[str]:
        """How often each kind of scripted fault has struck, by its `do`."""
        return self._script.fired

    # --- the contract ---

    async def start(self) -> Info:
        if self.options.load_time_s:
            await asyncio.sleep(self.options.load_time_s)
        for fault in self._script.at_start():
            if isinstance(fault, RefuseStart):
                raise EngineFailed("the fault script refuses to start")
            if isinstance(fault, IgnoreSigterm):
                self._previous_sigterm = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._state = "ready"
        options = self.options
        return Info(
            kind="simulated",
            model=options.model,
            max_context_tokens=options.context_tokens,
            block_tokens=options.block_tokens,
            blocks_total=options.blocks,
            max_running=options.max_running,
            vocabulary=options.vocabulary,
            eos_token_ids=options.eos_token_ids,
            publishes_cache_events=options.prefix_cache,
            prompt_logprobs=True,
            embedding_size=EMBEDDING_SIZE,
        )

    def submit(self, request: Request) -> None:
        if self._state in {"new", "failed", "closed"}:
            raise RequestRefused("the engine is not running")
        self._scheduler.submit(request)
        self._script.at_submit(request.id)
        self._wake()

    def cancel(self, request_id: int) -> None:
        if self._state == "stalled":
            return
        self._drop_timer(request_id)
        output = self._scheduler.cancel(request_id)
        if output is not None:
            self._notify(output)
            self._wake()

    def release(self, request_id: int) -> None:
        if request_id in self._request_timers and request_id not in self._fetches:
            self._let_go(request_id)

    async def steps(self) -> AsyncIterator[Outputs]:
        while True:
            while self._outbox:
                outputs = self._outbox.popleft()
                if outputs is self._notices:
                    self._notices = None
                else:
                    self._unread_steps -= 1
                    self._resume()
                yield outputs
            if self._state == "failed":
                raise EngineFailed("the fault script breaks the engine")
            if self._state == "closed":
                return
            self._news.clear()
            await self._news.wait()

    def load(self) -> Load:
        return self._scheduler.load()

    def take_cache_events(self) -> list[CacheEvent]:
        return self._scheduler.take_cache_events()

    def cache_snapshot(self) -> list[CacheEvent]:
        return self._scheduler.cache_snapshot()

    @property
    def progress(self) -> int:
        return self._progress

    @property
    def patience_s(self) -> float:
        return self._patience_s

    @property
    def busy(self) -> bool:
        # Requests that wait for blocks of unfetched handoffs are not work: nothing could be done.
        return (
            self._step_timer is not None
            or bool(self._fetches)
            or self._waits_for_reader
            or self._state == "stalled"
        )

    async def close(self) -> None:
        self._stop("closed")
        self._outbox.clear()
        self._scheduler = Scheduler(self.options, uuid.uuid4().hex)
        if self._previous_sigterm is not None:
            signal.signal(signal.SIGTERM, self._previous_sigterm)
            self._previous_sigterm = None

    # --- steps ---

    def _wake(self) -> None:
        """Step from now on, if that is not so already and there may be something to do."""
        if self._state != "ready" or self._step_timer is not None or self._waits_for_reader:
            return
        if not self._scheduler.idle:
            loop = asyncio.get_running_loop()
            self._deadline = loop.time()
            # Soon, not now: whatever else is submitted in this turn of the loop joins the step.
            self._step_timer = loop.call_soon(self._begin_step)

    def _resume(self) -> None:
        if self._waits_for_reader:
            self._waits_for_reader = False
            self._wake()

    def _begin_step(self) -> None:
        self._step_timer = None
        if self._unread_steps >= self.options.max_unread_steps:
            self._waits_for_reader = True
            return
        loop = asyncio.get_running_loop()
        step = self._scheduler.plan()
        # A fetch that is still under way keeps the patience it was given.
        waited_for_s = [self._patience_s / _MARGIN] if self._fetches else []
        for request_id, blocks in step.fetches:
            fetch_s = self._timing.handoff_s(blocks)
            waited_for_s.append(fetch_s)
            self._fetches[request_id] = loop.time() + fetch_s
        self._patience_s = _MARGIN * max(waited_for_s, default=0.0)
        if not step.computes:
            self._watch_fetches()
            return
        duration_s = self._timing.step_s(
            prefill_tokens=step.prefill_tokens,
            decoding=step.decoding,
            utilisation=step.utilisation,
        )
        self._patience_s = max(self._patience_s, _MARGIN * duration_s)
        if duration_s == 0.0:
            self._step_timer = loop.call_soon(self._end_step)
            return
        if self._progress < self._slow_until:
            duration_s *= self._slow_factor
        self._deadline = max(self._deadline, loop.time() - _CATCH_UP_S) + duration_s
        self._step_timer = loop.call_at(self._deadline, self._end_step)

    def _end_step(self) -> None:
        self._step_timer = None
        self._progress += 1
        outputs = self._scheduler.complete()
        faults = self._script.at_step(self._progress) + self._script.at_outputs(outputs)
        for fault in faults:
            self._strike(fault)
        if self._state != "ready":
            return
        for output in outputs.full:
            if output.handoff is not None:
                self._after(self.options.handoff_ttl_s, self._expire, output.id)
        # As TensorRT-LLM's executor, which looks after transfers between two steps.
        now = asyncio.get_running_loop().time()
        ended = [request_id for request_id, due in self._fetches.items() if due <= now]
        outputs.full += map(self._fetched, ended)
        if outputs:
            self._notices = None
            self._unread_steps += 1
            self._outbox.append(outputs)
            self._news.set()
        if not self._scheduler.idle:
            self._begin_step()

    def _watch_fetches(self) -> None:
        """There is no step at the end of which they would be looked after."""
        now = asyncio.get_running_loop().time()
        for request_id, due in self._fetches.items():
            if request_id not in self._request_timers:
                self._after(max(0.0, due - now), self._end_fetch, request_id)

    def _end_fetch(self, request_id: int) -> None:
        self._progress += 1
        self._notify(self._fetched(request_id))
        self._wake()

    def _fetched(self, request_id: int) -> Output:
        self._drop_timer(request_id)
        failed = bool(self._script.at_handoff())
        return self._scheduler.fetched(request_id, failed=failed)

    def _expire(self, request_id: int) -> None:
        self._let_go(request_id)
        self._notify(Output(request_id, [], Finish.CANCELLED))

    def _let_go(self, request_id: int) -> None:
        self._drop_timer(request_id)
        self._scheduler.release(request_id)
        self._wake()

    def _notify(self, output: Output) -> None:
        """Hand out what no step produced. Such outputs are merged while no step comes between, so
        that they add at most one to each unread step."""
        if self._notices is None:
            self._notices = Outputs()
            self._outbox.append(self._notices)
        for before in self._notices.full:
            if before.id == output.id:
                before.join(output)
                break
        else:
            self._notices.full.append(output)
        self._news.set()

    # --- timers and faults ---

    def _after(self, delay_s: float, act: Callable[[int], None], request_id: int) -> None:
        loop = asyncio.get_running_loop()
        self._request_timers[request_id] = loop.call_later(delay_s, act, request_id)

    def _drop_timer(self, request_id: int) -> None:
        self._fetches.pop(request_id, None)
        timer = self._request_timers.pop(request_id, None)
        if timer is not None:
            timer.cancel()

    def _stop(self, state: State) -> None:
        self._state = state
        if self._step_timer is not None:
            self._step_timer.cancel()
            self._step_timer = None
        for timer in self._request_timers.values():
            timer.cancel()
        self._request_timers.clear()
        self._fetches.clear()
        self._waits_for_reader = False
        self._news.set()

    def _strike(self, fault: Fault) -> None:
        match fault:
            case Kill():
                os.kill(os.getpid(), signal.SIGKILL)
            case Exit(code=code):
                os._exit(code)
            case Stall():
                self._stop("stalled")
            case Fail():
                self._stop("failed")
            case SlowDown(factor=factor, steps=steps):
                self._slow_factor = factor
                self._slow_until = self._progress + steps
            case _:
                pass  # the script itself has done what there is to do
