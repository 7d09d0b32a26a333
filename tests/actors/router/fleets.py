"""Fleets for tests: a roster with workers that say what they hold and how busy they are."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from actors.messages.cache import Load, Stored
from actors.messages.cards import Duty, WorkerCard
from actors.messages.events import Inventory, Report
from actors.router.affinity import Sessions
from actors.router.index import BlockIndex
from actors.router.options import RouterOptions, StrategyName
from actors.router.placement import Ask, Decision, Placer
from actors.router.roster import Member, Roster
from actors.router.strategies import make_strategy
from actors.runtime.address import Address
from actors.runtime.registry.base import Entry, State

BLOCK = 16
MODEL = "m"
LIFE = 5


def entry(
    role: str,
    instance: int = 0,
    *,
    duty: Duty | None = None,
    model: str = MODEL,
    state: State = State.READY,
    incarnation: int = LIFE,
    max_running: int = 4,
    blocks_total: int = 1000,
) -> Entry:
    """A worker as the registry shows it; its duty is its role, unless another is given."""
    card = WorkerCard(
        model=model,
        tokenizer="t",
        duty=duty or msgspec.convert(role, Duty),
        engine="simulated",
        max_context_tokens=100,
        block_tokens=BLOCK,
        blocks_total=blocks_total,
        max_running=max_running,
        started_at=0.0,
        publishes_cache_events=True,
    )
    return Entry(
        role=role,
        instance=instance,
        incarnation=incarnation,
        state=state,
        node=role,
        host="h",
        pid=1,
        meta=msgspec.Raw(msgspec.json.encode(card)),
    )


class Theatre:
    """A roster and what chooses from it."""

    def __init__(self, *entries: Entry, strategy: StrategyName = "kv", **options: Any) -> None:
        self.options = msgspec.convert({"strategy": strategy, **options}, RouterOptions)
        self.index = BlockIndex(self.options.index_blocks)
        self.roster = Roster(self.index, self.options.cost, uses_index=True)
        self.sessions = Sessions(self.options.affinity)
        made = make_strategy(strategy, self.index, self.options.cost, random.Random(0))
        self.placer = Placer(self.options, self.index, made, self.sessions)
        self._numbers: dict[str, int] = {}
        for one in entries:
            self.join(one)

    def join(self, one: Entry, blocks: tuple[int, ...] = ()) -> None:
        """A worker that comes, and tells what it holds."""
        address = self.roster.joined(one, 0.0)
        if address is not None:
            self.roster.inventory(Inventory(address, 0, 0, True, blocks, Load()), 0.0)

    def member(self, name: str) -> Member:
        role, _, instance = name.partition("/")
        found = [
            member
            for member in self.roster.members()
            if (member.address.role, member.address.instance) == (role, int(instance or 0))
        ]
        return found[0]

    def says(
        self,
        name: str,
        *,
        stored: tuple[int, ...] = (),
        tokens: int = 0,
        blocks: int = 0,
        running: int = 0,
    ) -> None:
        """A worker's next report."""
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        address = self.member(name).address
        load = Load(running=running, waiting_tokens=tokens, blocks_used=blocks)
        events = (Stored(None, stored),) if stored else ()
        assert not self.roster.report(Report(address, number, load, 0.0, events), 0.0)

    def place(
        self,
        blocks: tuple[int, ...] = (),
        *,
        session: int = 0,
        avoid: tuple[Address, ...] = (),
        model: str = MODEL,
        now: float = 0.0,
        extra_tokens: int = 1,
    ) -> Decision:
        """Place a prompt of these blocks and some tokens more."""
        ask = Ask(len(blocks) * BLOCK + extra_tokens, blocks, BLOCK, session)
        decision = self.placer.place(self.roster.site(model), model, ask, now, avoid)
        if session:
            self.sessions.note(session, decision.workers, now)
        return decision


def chosen(decision: Decision) -> str:
    """Who computes the prompt."""
    return decision.computing.member.address.name
