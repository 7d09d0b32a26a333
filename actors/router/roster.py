"""The workers as the router knows them: who they are, what they hold, how busy they are. Pure.

Joins the registry's news, the workers' reports and the router's own placements, and keeps for each
model the pools that a placement chooses from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator

import msgspec

from actors.messages.cache import CacheEvent, Stored
from actors.messages.cards import Duty, Fleet, Worker, WorkerCard
from actors.messages.events import Inventory, Placement, Report
from actors.messages.key import RequestKey
from actors.router.feed import Feed, Part, Reading
from actors.router.index import BlockIndex
from actors.router.load import WorkerLoad
from actors.router.options import AdmissionOptions, CostOptions
from actors.runtime.address import Address
from actors.runtime.registry.base import Entry, State

PREDICTION_S = 5.0
"""A prediction of the index holds for one to two of these."""
DEFAULT_BLOCK_TOKENS = 16
BLOCKS_MARGIN = 2
"""A worker may list so many times the blocks of its pool: those on slower tiers count too."""


class Member:
    """One life of a worker."""

    __slots__ = (
        "address",
        "bit",
        "card",
        "counted",
        "feed",
        "load",
        "places",
        "slot",
        "weight",
    )

    def __init__(self, worker: Worker, slot: int, now: float) -> None:
        self.address = worker.entry.address
        self.card = worker.card
        self.slot = slot
        self.bit = 1 << slot
        self.load = WorkerLoad()
        self.feed = Feed(now)
        self.places: list[tuple[Pool, int]] = []
        self.weight = 0.0
        """How busy it is, in blocks; see `CostOptions`."""
        self.counted = (0, 0)
        """Requests and prompt tokens that its pools have counted of it."""


class Pool:
    """Workers that can do the same, and their loads side by side, for quick looking over."""

    def __init__(self, name: str, members: Iterable[Member]) -> None:
        self.name = name
        self.members = list(members)
        self.weights = [member.weight for member in self.members]
        self.requests = sum(member.load.requests for member in self.members)
        self.prefill_tokens = sum(member.load.prefill_tokens for member in self.members)
        self.max_running = sum(member.card.max_running for member in self.members)
        self.position = {member.slot: at for at, member in enumerate(self.members)}
        """By slot of the index."""
        self.mask = sum(member.bit for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def without(self, avoid: Container[Address]) -> Pool:
        """A pool for one decision, some workers left out; its loads are as they are now."""
        left = [member for member in self.members if member.address not in avoid]
        return self if len(left) == len(self.members) else Pool(self.name, left)

    def update(self, position: int, weight: float, requests: int, prefill_tokens: int) -> None:
        """A member's load has changed: to this weight, and by so much more of the rest."""
        self.weights[position] = weight
        self.requests += requests
        self.prefill_tokens += prefill_tokens


class Site(msgspec.Struct, frozen=True):
    """All pools of one model."""

    context: Pool
    generation: Pool
    alone: Pool
    """Who serves whole requests when pairs cannot be had."""
    block_tokens: int
    """Of a KV block; the commonest, if workers differ. Others match nothing."""

    @property
    def can_serve(self) -> bool:
        """Whether somebody could take a request."""
        return bool(self.generation.members or self.alone.members)

    def has_room(self, options: AdmissionOptions) -> bool:
        """Whether the workers, all together, have room for another request. Which of them gets it
        is a question of cost: with a limit for each, a full fleet would send every prompt to
        whoever happens to end one, and lose all locality."""
        if not options.enabled:
            return True
        paired = self.context.members and self.generation.members
        running = self.generation if paired else self.alone
        computing = self.context if paired else self.alone
        if running.max_running and running.requests >= options.fill * running.max_running:
            return False
        return computing.prefill_tokens < options.prefill_tokens * len(computing)


class Roster:
    """Keeps members, index and pools in step."""

    def __init__(self, index: BlockIndex, cost: CostOptions, *, uses_index: bool) -> None:
        self.fleet = Fleet()
        self.index = index
        self._cost = cost
        self._uses_index = uses_index
        self._members: dict[str, Member] = {}
        self._sites: dict[str, Site] = {}
        self._had_context: set[str] = set()
        self._rotated_at = 0.0

    # -- who is there --------------------------------------------------------------------------

    def joined(self, entry: Entry, now: float) -> Address | None:
        """Take in what the registry says; the worker to ask for its inventory, if one is new."""
        self.fleet.joined(entry)
        worker = self.fleet.find(entry.name)
        if worker is None:
            return None
        member = self._members.get(entry.name)
        if member is not None and member.address.incarnation == entry.incarnation:
            member.card = worker.card
            self._forget_sites()
            return None
        if member is not None:
            self._remove(member)
        self._forget_sites()
        if entry.state is not State.READY:
            return None
        member = Member(worker, self.index.open(_limit(worker.card)), now)
        self._members[entry.name] = member
        if member.card.duty == "context":
            self._had_context.add(member.card.model)
        return member.address

    def down(self, address: Address) -> bool:
        """A life has ended: its blocks and its load are gone at once. Whether it was a worker's."""
        known = self.fleet.knows(address)
        self.fleet.down(address)
        member = self._members.get(address.name)
        if member is not None and member.address.incarnation <= address.incarnation:
            self._remove(member)
        self._forget_sites()
        return known

    def member(self, address: Address) -> Member | None:
        """The worker, if this is the life that is known."""
        member = self._members.get(address.name)
        return member if member is not None and member.address == address else None

    def members(self) -> Iterator[Member]:
        return iter(self._members.values())

    def site(self, model: str) -> Site:
        """The model's pools as they are now."""
        site = self._sites.get(model)
        if site is None:
            site = self._sites[model] = self._make_site(model)
        return site

    def without_context(self) -> set[str]:
        """Models that had context workers once, have none now, and are served all the same."""
        return {
            model
            for model in self._had_context
            if not self.site(model).context.members and self.site(model).can_serve
        }

    # -- what they say -------------------------------------------------------------------------

    def report(self, report: Report, now: float) -> bool:
        """Take a report in; True when events are missing and the inventory must be asked for."""
        member = self.member(report.worker)
        if member is None:
            return False
        member.load.report(report.load, report.taken)
        self._refresh(member)
        for key, generation in report.unneeded:
            self.unplace(generation, key)
        if report.taken and member.card.publishes_cache_events:
            member.feed.computed(now)
        reading = member.feed.report(report, now)
        if reading is Reading.APPLY:
            self._apply(member, report.events)
        elif reading is Reading.GAP:
            member.feed.ask(now)
        return reading is Reading.GAP

    def inventory(self, inventory: Inventory, now: float) -> bool:
        """Take a part of an inventory in; True when it must be asked for again."""
        member = self.member(inventory.worker)
        if member is None:
            return False
        part = member.feed.inventory(inventory, now)
        if part is Part.BEGIN:
            member.load.report(inventory.load)
            self._refresh(member)
            if member.feed.gaps:
                # A lost report may have said who has taken what, or need not.
                self._lose_track()
            if self.index.count(member.slot):
                self._renew_slot(member)
        if part in {Part.BEGIN, Part.STORE} and self._uses_index:
            self.index.store(member.slot, inventory.blocks)
        elif part is Part.AGAIN:
            member.feed.ask(now)
        return part is Part.AGAIN

    def place(self, placement: Placement, now: float) -> None:
        """Count what a router has just sent to a worker."""
        if placement.key.epoch:
            self._overtake(placement.key)
        member = self.member(placement.worker)
        if member is not None:
            member.load.place(placement, now)
            self._refresh(member)

    def _overtake(self, key: RequestKey) -> None:
        """A request is run again: attempts before, if still on their way, were lost there."""
        before = [msgspec.structs.replace(key, epoch=epoch) for epoch in range(key.epoch)]
        for member in self._members.values():
            if member.load.overtake(before):
                self._refresh(member)

    def _lose_track(self) -> None:
        """Nobody may say of all that is expected what has become of it. To count too little for a
        moment is better than to take idle workers for busy until it runs out."""
        for member in self._members.values():
            if member.load.lose_track():
                self._refresh(member)

    def foretell(self, placement: Placement) -> None:
        """Count blocks that another router's choice will put into a cache as there already."""
        member = self.member(placement.worker)
        if member is not None and self._uses_index:
            self.index.predict(member.slot, placement.computed)

    def unplace(self, worker: Address, key: RequestKey) -> None:
        """It did not arrive."""
        member = self.member(worker)
        if member is not None and member.load.forget(key):
            self._refresh(member)

    def tend(self, now: float) -> list[Address]:
        """What time does: estimates run out. The workers to ask (again) for their inventories."""
        if now - self._rotated_at >= PREDICTION_S:
            self._rotated_at = now
            self.index.rotate()
        asked = []
        for member in self._members.values():
            if member.load.expire(now):
                self._refresh(member)
            if member.feed.overdue(now):
                member.feed.ask(now)
                asked.append(member.address)
        return asked

    # -- inside --------------------------------------------------------------------------------

    def _apply(self, member: Member, events: Iterable[CacheEvent]) -> None:
        if not self._uses_index:
            return
        for event in events:
            if isinstance(event, Stored):
                self.index.store(member.slot, event.blocks)
            else:
                self.index.remove(member.slot, event.blocks)

    def _refresh(self, member: Member) -> None:
        cost, load = self._cost, member.load
        prefill = cost.prefill_weight * load.prefill_tokens / (member.card.block_tokens or 1)
        # What a context worker holds are handoffs on their way out; they keep nobody waiting.
        held = 0.0 if member.card.duty == "context" else cost.decode_weight * load.blocks
        member.weight = prefill + held
        requests, prefill_tokens = member.counted
        member.counted = (load.requests, load.prefill_tokens)
        for pool, position in member.places:
            pool.update(
                position,
                member.weight,
                load.requests - requests,
                load.prefill_tokens - prefill_tokens,
            )

    def _remove(self, member: Member) -> None:
        del self._members[member.address.name]
        self.index.drop(member.slot)
        if member.card.duty == "context":
            # What it was to hand over does not come, and whose requests are over nobody says.
            self._lose_track()

    def _renew_slot(self, member: Member) -> None:
        self.index.drop(member.slot)
        member.slot = self.index.open(_limit(member.card))
        member.bit = 1 << member.slot
        self._forget_sites()

    def _forget_sites(self) -> None:
        self._sites.clear()
        for member in self._members.values():
            member.places.clear()

    def _make_site(self, model: str) -> Site:
        context, generation, aggregated = (
            self._serving(model, duty) for duty in ("context", "generation", "aggregated")
        )
        site = Site(
            Pool(f"{model}:context", context),
            Pool(f"{model}:generation", generation),
            Pool(f"{model}:alone", [*aggregated, *([] if context else generation)]),
            _block_tokens([*context, *generation, *aggregated]),
        )
        for pool in (site.context, site.generation, site.alone):
            for position, member in enumerate(pool.members):
                member.places.append((pool, position))
        return site

    def _serving(self, model: str, duty: Duty) -> list[Member]:
        found = (self.member(w.entry.address) for w in self.fleet.serving(model, duty))
        return [member for member in found if member is not None]


def _block_tokens(members: Iterable[Member]) -> int:
    sizes = Counter(member.card.block_tokens for member in members)
    return sizes.most_common(1)[0][0] if sizes else DEFAULT_BLOCK_TOKENS


def _limit(card: WorkerCard) -> int:
    return BLOCKS_MARGIN * card.blocks_total
