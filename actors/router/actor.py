"""The router: from token ids to workers."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from actors.messages.assign import Assigned, Rejected, Why
from actors.messages.cards import Fleet
from actors.messages.events import Inventory, Placed, Report
from actors.messages.key import count_tokens
from actors.messages.route import Route
from actors.messages.work import Generate, Prefill
from actors.router.placement import NoPlacement, StrategyName, make_strategy, place
from actors.router.suspects import Suspects
from actors.runtime.actor import Actor, Down, Joined, Returned, handler
from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.node import EVERY_ROLE

RETRY_AFTER_S = 1.0


class RouterOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the router."""

    strategy: StrategyName = "round_robin"


class Router(Actor):
    """Chooses the workers of each request, tells them, and tells the ingress who they are.

    Keeps nothing of a request: one that was lost with a router is submitted again by its ingress.
    """

    Options = RouterOptions
    options: RouterOptions

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._fleet = Fleet()
        self._strategy = make_strategy(self.options.strategy, random.Random())
        self._suspects = Suspects()
        self._routed = 0

    async def starting(self) -> None:
        self.watch(EVERY_ROLE)

    def progress(self) -> tuple[int, bool]:
        return self._routed, False

    @handler
    def route(self, message: Route) -> None:
        self._routed += 1
        try:
            avoid = self._suspects.at(self.clock.now())
            placement = place(self._fleet, message.model, self._strategy, avoid)
        except NoPlacement as error:
            self._reject(message, "unavailable", str(error))
            return
        tokens = count_tokens(message.prompt)
        assigned = Assigned(message.key, placement.context, placement.generation, tokens)
        try:
            # First, so that the ingress knows whom to watch before tokens can come.
            self.tell(message.key.ingress, assigned)
            self._send_work(message, placement.context or placement.generation, assigned)
        except NoSuchActor as error:
            self.log.info("route_failed", request=message.request_id, reason=str(error))
            self._reject(message, "lost", f"the chosen worker has just gone ({error.target})")

    @handler
    def joined(self, message: Joined) -> None:
        self._fleet.joined(message.entry)

    @handler
    def down(self, message: Down) -> None:
        self._fleet.down(message.address)

    @handler
    def told(self, message: Report | Inventory | Placed) -> None:
        """What workers and other routers say; for strategies that look at it."""

    @handler
    def returned(self, message: Returned) -> None:
        """A worker did not take its work: let the ingress submit it again."""
        work = message.message
        if isinstance(work, Generate | Prefill):
            # The registry may not have noticed yet; a moment's trouble with NATS looks the same.
            self._suspects.add(message.target, self.clock.now())
            rejected = Rejected(work.key, "lost", f"{message.target}: {message.reason}")
            self._tell_ingress(rejected)

    def _send_work(self, message: Route, worker: Address, assigned: Assigned) -> None:
        key, request_id, prompt = message.key, message.request_id, message.prompt
        if assigned.context is None:
            work: Generate | Prefill = Generate(
                key, request_id, prompt, message.sampling, message.resumed, message.budget_s
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
            )
        self.tell(worker, work)

    def _reject(self, message: Route, why: Why, text: str) -> None:
        self._tell_ingress(Rejected(message.key, why, text, retry_after_s=RETRY_AFTER_S))

    def _tell_ingress(self, rejected: Rejected) -> None:
        try:
            self.tell(rejected.key.ingress, rejected)
        except NoSuchActor:
            self.log.debug("ingress_gone", key=str(rejected.key))
