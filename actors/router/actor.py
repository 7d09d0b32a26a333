"""The router: from token ids to workers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any

from actors.kv.hashing import PrefixHasher
from actors.messages.assign import Assigned, Rejected, Why
from actors.messages.events import Inventory, Placed, Placement, Report, TellInventory
from actors.messages.explain import Explained
from actors.messages.key import RequestKey, count_tokens
from actors.messages.route import Route
from actors.messages.stages import ROUTE, stages
from actors.messages.work import Generate, Prefill
from actors.router import explain
from actors.router.admission import RESUMED_PRIORITY, AdmissionQueue, Refused
from actors.router.affinity import Sessions
from actors.router.index import BlockIndex
from actors.router.options import STRATEGIES, RouterOptions, StrategyName
from actors.router.placement import (
    Ask,
    Decision,
    NoPlacement,
    Placer,
    make_ask,
    placements,
    predict,
)
from actors.router.roster import Member, Roster
from actors.router.statistics import Statistics
from actors.router.strategies import make_strategy
from actors.router.suspects import Suspects
from actors.runtime.actor import Actor, Down, Joined, Returned, handler
from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.presence import EVERY_ROLE

RETRY_AFTER_S = 1.0
TEND_S = 0.25
"""Between two looks at what time does: overdue inventories, estimates, predictions."""
SWEEP_S = 0.002
"""For sweeping the index, each time; at ten million blocks one step is longer than that."""
SHARE_EVERY_S = 0.005
"""The other routers are told of a placement at once after a quiet time, and then at most so often:
what they do not know yet they choose against."""
ASSIGN_SHARE = 0.9
"""Of the time an ingress waits for an assignment; the rest is for the way there and back."""
MAX_SHARED = 150
"""Placements collected at most; then they are told at once. With all the blocks they foretell they
stay well below a megabyte, the default frame limit of NATS."""


class Router(Actor):
    """Chooses the workers of each request, tells them, and tells the ingress who they are.

    What it knows of caches and load it is told by the workers, and asks for again when it starts;
    it keeps nothing of a request but its place in the queue. One that was lost with a router is
    submitted again by its ingress.
    """

    Options = RouterOptions
    options: RouterOptions

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.statistics = Statistics()
        self.index = BlockIndex(self.options.index_blocks)
        self._hasher = PrefixHasher()
        self._sessions = Sessions(self.options.affinity)
        names = STRATEGIES if self.options.override else [self.options.strategy]
        self._placers = {name: self._make_placer(STRATEGIES[name]) for name in names}
        self.roster = Roster(
            self.index,
            self.options.cost,
            uses_index=any(placer.uses_index for placer in self._placers.values()),
        )
        self._suspects = Suspects()
        self._queues: dict[str, AdmissionQueue[Route]] = {}
        self._unshared: list[Placement] = []
        self._share_timer: asyncio.TimerHandle | None = None
        self._shared_at = 0.0
        self._routed = 0
        self._without_context: set[str] = set()
        self._seconds = stages(self.metrics).labels(ROUTE)
        self._follow()

    def _make_placer(self, name: StrategyName) -> Placer:
        strategy = make_strategy(name, self.index, self.options.cost, random.Random())
        return Placer(self.options, self.index, strategy, self._sessions)

    def _follow(self) -> None:
        """Have the queue's numbers read whenever somebody asks for metrics."""
        waiting = self.metrics.gauge(
            "understudy_router_queued_requests", "Requests that wait here until a worker has room."
        ).labels()
        queued = self.metrics.counter(
            "understudy_router_requests_queued_total", "Requests that had to wait here."
        ).labels()
        refused = self.metrics.counter(
            "understudy_router_requests_refused_total",
            "Requests turned away as too many were waiting, or for too long.",
        ).labels()

        def look() -> None:
            waiting.set(sum(map(len, self._queues.values())))
            queued.mirror(self.statistics.queued)
            refused.mirror(self.statistics.refused)

        self.metrics.before_collect(look)

    # -- life ----------------------------------------------------------------------------------

    async def starting(self) -> None:
        self.watch(EVERY_ROLE)
        self.spawn(self._tend(), name="tend")

    async def draining(self) -> None:
        """Whoever waits here is better off with another router."""
        for queue in self._queues.values():
            for message in queue.clear():
                self._reject(message, "lost", "the router is leaving")

    async def stopping(self) -> None:
        if self._share_timer is not None:
            self._share_timer.cancel()

    def progress(self) -> tuple[int, bool]:
        return self._routed, False

    def gauges(self) -> dict[str, float]:
        members = list(self.roster.members())
        return {
            **self.statistics.gauges(),
            "waiting": float(sum(map(len, self._queues.values()))),
            "workers": float(len(members)),
            "models_without_context": float(len(self._without_context)),
            "silent_workers": float(sum(member.feed.silent for member in members)),
            "unsynced_workers": float(sum(not member.feed.live for member in members)),
            "event_gaps": float(sum(member.feed.gaps for member in members)),
            "index_blocks": float(len(self.index)),
            "index_refused": float(self.index.refused),
        }

    def troubles(self) -> list[str]:
        members = list(self.roster.members())
        found = [
            f"the cache of {member.address.name} cannot be known: it {member.feed.trouble}"
            for member in members
            if member.feed.silent
        ]
        found += [
            f"no context worker of {model}: generation workers prefill"
            for model in sorted(self._without_context)
        ]
        models = sorted({member.card.model for member in members})
        found += [
            f"no generation worker of {model}: requests are answered with 503"
            for model in models
            if not self.roster.site(model).can_serve
        ]
        return found

    # -- requests ------------------------------------------------------------------------------

    @handler
    def route(self, message: Route) -> None:
        self._routed += 1
        objection = self._objection(message.hints.strategy)
        if objection:
            rejected = Rejected(message.key, "invalid", objection, "x-understudy-strategy")
            self._tell_ingress(rejected, message.request_id)
        elif message.hints.explain:
            self._explain(message)
        elif self._may_pass(message.model):
            self._place(message, 0.0)
        else:
            self._enqueue(message)

    def _objection(self, strategy: str) -> str:
        """What is wrong with a request's choice of a strategy."""
        if not strategy or (self.options.override and strategy in STRATEGIES):
            return ""
        if not self.options.override:
            return "This service does not let requests choose a routing strategy."
        return f"No routing strategy is called {strategy!r}. There are {', '.join(STRATEGIES)}."

    def _place(self, message: Route, queued_s: float) -> None:
        """Choose workers for a request, and send it to them."""
        began = time.perf_counter()
        now = self.clock.now()
        try:
            ask, decision = self._decide(message, now)
        except NoPlacement as error:
            self.statistics.unplaced += 1
            self._trace(message, queued_s, error="unavailable")
            self._reject(message, "unavailable", str(error), RETRY_AFTER_S)
            return
        matched = decision.computing.matched * ask.block_tokens
        context = None if decision.context is None else decision.context.member.address
        generation = decision.generation.member.address
        assigned = Assigned(message.key, context, generation, ask.tokens, matched, queued_s * 1000)
        self._expect(message, ask, decision, now)
        if message.hints.session:
            self._sessions.note(message.hints.session, decision.workers, now)
        if message.hints.strategy:
            self.statistics.overridden += 1
        took_s = time.perf_counter() - began
        self.statistics.decided(decision, ask, took_s)
        self._seconds.observe(queued_s + took_s)
        if message.trace is not None:
            self._trace(message, queued_s + took_s, assigned)
        if self.node.verbose:
            self.log.debug(
                "placed",
                request=message.request_id,
                epoch=message.key.epoch,
                context=str(context),
                generation=str(generation),
                matched_tokens=matched,
                queued_ms=round(queued_s * 1000, 2),
            )
        try:
            # First, so that the ingress knows whom to watch before tokens can come.
            self.tell(message.key.ingress, assigned)
            self._send_work(message, context or generation, assigned)
        except NoSuchActor as error:
            self._forget(message.key, context, generation)
            self.log.info(
                "route_failed",
                request=message.request_id,
                epoch=message.key.epoch,
                reason=str(error),
            )
            self._reject(message, "lost", f"the chosen worker has just gone ({error.target})")

    def _decide(self, message: Route, now: float) -> tuple[Ask, Decision]:
        site = self.roster.site(message.model)
        placer = self._placer(message)
        ask = make_ask(
            message.prompt,
            site.block_tokens,
            session=message.hints.session,
            hasher=self._hasher if placer.uses_index else None,
        )
        return ask, placer.place(site, message.model, ask, now, self._suspects.at(now))

    def _placer(self, message: Route) -> Placer:
        return self._placers[STRATEGIES.get(message.hints.strategy, self.options.strategy)]

    def _expect(self, message: Route, ask: Ask, decision: Decision, now: float) -> None:
        """Count what a decision will cost the workers, before any report can say so."""
        placed = placements(message.key, ask, decision)
        for placement in placed:
            self.roster.place(placement, now)
        predict(self.index, ask, decision)
        self._share(placed)
        queue = self._queues.get(message.model)
        if queue is not None:
            queue.placed(now)

    def _send_work(self, message: Route, worker: Address, assigned: Assigned) -> None:
        key, request_id, prompt = message.key, message.request_id, message.prompt
        if assigned.context is None:
            work: Generate | Prefill = Generate(
                key,
                request_id,
                prompt,
                message.sampling,
                message.resumed,
                message.budget_s,
                message.trace,
            )
        else:
            work = Prefill(
                key,
                request_id,
                prompt,
                message.sampling,
                assigned.generation,
                message.resumed,
                message.budget_s,
                message.trace,
            )
        self.tell(worker, work)

    @handler
    def returned(self, message: Returned) -> None:
        """A worker did not take its work: let the ingress submit it again."""
        work = message.message
        if isinstance(work, Generate | Prefill):
            # The registry may not have noticed yet; a moment's trouble with NATS looks the same.
            self._suspects.add(message.target, self.clock.now())
            self.statistics.lost += 1
            generation = work.generation if isinstance(work, Prefill) else message.target
            self._forget(work.key, message.target, generation)
            rejected = Rejected(work.key, "lost", f"{message.target}: {message.reason}")
            self._tell_ingress(rejected, work.request_id)

    def _trace(
        self,
        message: Route,
        seconds: float,
        assigned: Assigned | None = None,
        *,
        error: Why | None = None,
    ) -> None:
        """The span of a decision, the wait for it included."""
        tracer = self.node.tracer
        if tracer is None or message.trace is None:
            return
        attributes: dict[str, str | int | float] = {
            "understudy.actor": str(self.address),
            "understudy.request": message.request_id,
            "understudy.epoch": message.key.epoch,
            "gen_ai.request.model": message.model,
            "understudy.strategy": STRATEGIES.get(message.hints.strategy, self.options.strategy),
        }
        if error is not None:
            attributes["error.type"] = error
        if assigned is not None:
            attributes |= {
                "understudy.context": str(assigned.context or assigned.generation),
                "understudy.generation": str(assigned.generation),
                "understudy.matched_tokens": assigned.matched_tokens,
                "understudy.queued_ms": assigned.queued_ms,
            }
        tracer.record(ROUTE, message.trace, seconds, attributes, error=error or "")

    def _forget(self, key: RequestKey, *workers: Address | None) -> None:
        for worker in workers:
            if worker is not None:
                self.roster.unplace(worker, key)

    def _reject(self, message: Route, why: Why, text: str, retry_after_s: float = 0.0) -> None:
        rejected = Rejected(message.key, why, text, retry_after_s=retry_after_s)
        self._tell_ingress(rejected, message.request_id)

    def _tell_ingress(self, message: Rejected | Explained, request_id: str) -> None:
        try:
            self.tell(message.key.ingress, message)
        except NoSuchActor:
            self.log.debug("ingress_gone", request=request_id, epoch=message.key.epoch)

    def _explain(self, message: Route) -> None:
        site, now = self.roster.site(message.model), self.clock.now()
        began = time.perf_counter()
        try:
            ask, decision = self._decide(message, now)
        except NoPlacement as error:
            self._reject(message, "unavailable", str(error), RETRY_AFTER_S)
            return
        took_s = time.perf_counter() - began
        avoid = self._suspects.at(now)
        name = STRATEGIES.get(message.hints.strategy, self.options.strategy)
        queue = self._queues.get(message.model)
        explained = Explained(
            message.key,
            name,
            ask.tokens,
            ask.block_tokens,
            explain.candidates(
                site,
                decision,
                ask,
                self.index,
                self.options,
                avoid,
                with_costs=self._placer(message).uses_index,
            ),
            explain.sentence(decision, ask),
            queue=0 if queue is None else len(queue),
            admitted=self._may_pass(message.model),
            decision_us=took_s * 1e6,
        )
        self._tell_ingress(explained, message.request_id)

    # -- the queue -----------------------------------------------------------------------------

    def _may_pass(self, model: str) -> bool:
        """Whether a request is placed at once; also when nobody could ever take it from a queue."""
        site = self.roster.site(model)
        if not site.can_serve:
            return True
        return not self._queues.get(model) and site.has_room(self.options.admission)

    def _enqueue(self, message: Route) -> None:
        queue = self._queues.get(message.model)
        if queue is None:
            queue = self._queues[message.model] = AdmissionQueue(self.options.admission)
        hints = message.hints
        resumed = message.resumed > 0 or message.key.epoch > 0
        limit = self.options.admission.max_priority
        self.statistics.queued += 1
        refused = queue.offer(
            message,
            tenant=hints.tenant,
            priority=RESUMED_PRIORITY if resumed else min(hints.priority, limit),
            tokens=count_tokens(message.prompt) + message.sampling.max_tokens,
            wait_s=hints.wait_s * ASSIGN_SHARE,
            now=self.clock.now(),
        )
        if refused is not None:
            self._refuse(refused)

    def _advance(self, model: str) -> None:
        """Place those who wait, as long as there is room."""
        queue = self._queues.get(model)
        while queue:
            site = self.roster.site(model)
            if site.can_serve and not site.has_room(self.options.admission):
                return
            waiting = queue.take()
            assert waiting is not None, "the queue is not empty"
            queued_s = self.clock.now() - waiting.since
            self.statistics.waited(queued_s)
            self._place(waiting.item, queued_s)

    def _refuse(self, refused: Refused[Route]) -> None:
        self.statistics.refused += 1
        self._trace(refused.item, refused.waited_s, error="overloaded")
        self._reject(refused.item, "overloaded", refused.text, refused.retry_after_s)

    # -- workers -------------------------------------------------------------------------------

    @handler
    def joined(self, message: Joined) -> None:
        newcomer = self.roster.joined(message.entry, self.clock.now())
        if newcomer is not None:
            self._ask(newcomer)
        self._workers_changed()

    @handler
    def down(self, message: Down) -> None:
        if self.roster.down(message.address):
            self._workers_changed()

    @handler
    def report(self, message: Report) -> None:
        self.statistics.lagged(self.clock.wall() - message.at)
        if self.roster.report(message, self.clock.now()):
            self.log.info("report_missing", worker=str(message.worker), number=message.number)
            self._ask(message.worker)
        if self._queues:
            member = self.roster.member(message.worker)
            if member is not None:
                self._advance(member.card.model)

    @handler
    def inventory(self, message: Inventory) -> None:
        if self.roster.inventory(message, self.clock.now()):
            self._ask(message.worker)

    def _ask(self, worker: Address) -> None:
        with contextlib.suppress(NoSuchActor):  # its Down is on the way
            self.tell(worker, TellInventory(self.address))

    def _workers_changed(self) -> None:
        for model in tuple(self._queues):
            self._advance(model)
        without = self.roster.without_context()
        for model in without - self._without_context:
            self.log.warning("no_context_worker", model=model, instead="generation workers prefill")
        self._without_context = without

    # -- other routers -------------------------------------------------------------------------

    @handler
    def placed(self, message: Placed) -> None:
        now = self.clock.now()
        for placement in message.placements:
            self.roster.place(placement, now)
            self.roster.foretell(placement)

    def _share(self, placements: list[Placement]) -> None:
        """Have the other routers know of it soon, if there are any."""
        if len(self.directory.ready(self.role)) < 2:
            return
        self._unshared += placements
        if self._share_timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time(), self._shared_at + SHARE_EVERY_S)
            self._share_timer = loop.call_at(due, self._tell_others)
        elif len(self._unshared) >= MAX_SHARED:
            self._share_timer.cancel()
            self._tell_others()

    def _tell_others(self) -> None:
        self._share_timer = None
        self._shared_at = asyncio.get_running_loop().time()
        message, self._unshared = Placed(tuple(self._unshared)), []
        for entry in self.directory.ready(self.role):
            if entry.address != self.address:
                with contextlib.suppress(NoSuchActor):  # it has just gone
                    self.tell(entry.address, message)

    # -- time ----------------------------------------------------------------------------------

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            now = self.clock.now()
            for worker in self.roster.tend(now):
                self._ask(worker)
            for model, queue in self._queues.items():
                for refused in queue.expire(now):
                    self._refuse(refused)
                self._advance(model)
            for member in self.roster.members():
                self._check(member, now)
            began = time.perf_counter()
            while self.index.sweep() and time.perf_counter() - began < SWEEP_S:
                pass

    def _check(self, member: Member, now: float) -> None:
        """Say loudly, and once, when a worker's cache cannot be known."""
        trouble = member.feed.check(now) if member.card.publishes_cache_events else ""
        was_silent, member.feed.trouble = member.feed.silent, trouble
        if bool(trouble) == was_silent:
            return
        if trouble:
            self.log.warning("worker_silent", worker=str(member.address), trouble=trouble)
        else:
            self.log.info("worker_heard_again", worker=str(member.address))
