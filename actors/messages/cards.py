"""What a role publishes of itself in the registry (`Entry.meta`), typed."""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.runtime.address import Address
from actors.runtime.registry.base import Entry, State

Duty = Literal["context", "generation", "aggregated"]


class WorkerCard(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: which model it runs, in which duty, within which limits."""

    model: str
    """The public name."""
    tokenizer: str
    """Directory or hub id to load the tokenizer from."""
    duty: Duty
    engine: str
    max_context_tokens: int
    block_tokens: int
    blocks_total: int
    max_running: int
    started_at: float
    """Seconds since 1970."""
    publishes_cache_events: bool = False
    """It says what is in its cache (`events`)."""
    guided: bool = False
    """Whether its engine follows `Sampling.grammar`."""
    prompt_logprobs: bool = False
    embedding_size: int = 0
    """What it finds out about prompts (`Sampling.prompt`)."""
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    """How the model writes, by the names of `actors.text.answers`; None: as plain text."""


class IngressCard(msgspec.Struct, frozen=True, kw_only=True):
    """An ingress: where clients reach it."""

    url: str


def read_card(entry: Entry) -> WorkerCard | None:
    """The card of a worker's entry; None when there is none yet, or it is not a worker's."""
    try:
        return msgspec.json.decode(entry.meta, type=WorkerCard)
    except msgspec.MsgspecError:
        return None


class Worker(msgspec.Struct, frozen=True):
    """A worker as others see it."""

    entry: Entry
    card: WorkerCard

    @property
    def ready(self) -> bool:
        return self.entry.state is State.READY


class Fleet:
    """The workers a role knows of, kept from its `Joined` and `Down` messages."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._serving: dict[tuple[str, Duty], list[Worker]] = {}
        self._seen: dict[str, WorkerCard] = {}

    def joined(self, entry: Entry) -> None:
        """Take in what the registry says of an entry; entries of other roles are passed over."""
        card = read_card(entry)
        if card is None:
            return
        self._workers[entry.name] = Worker(entry, card)
        if card.max_context_tokens or card.model not in self._seen:
            self._seen[card.model] = card
        self._index()

    def down(self, address: Address) -> None:
        """Take in the end of one life; that of a predecessor changes nothing."""
        worker = self._workers.get(address.name)
        if worker is not None and worker.entry.incarnation <= address.incarnation:
            del self._workers[address.name]
            self._index()

    def find(self, name: str) -> Worker | None:
        """The worker of that name, in whatever state."""
        return self._workers.get(name)

    def knows(self, address: Address) -> bool:
        """Whether the address is a worker's."""
        return address.name in self._workers

    def serving(self, model: str, duty: Duty) -> list[Worker]:
        """The model's ready workers of one duty, by name."""
        return self._serving.get((model, duty), [])

    def can_serve(self, model: str) -> bool:
        """Whether some worker could produce tokens of the model now."""
        return bool(self.serving(model, "generation") or self.serving(model, "aggregated"))

    def models(self) -> dict[str, WorkerCard]:
        """Every model seen so far and a card of one of its workers, gone ones included: a model
        whose workers are all being restarted is unavailable, not unknown."""
        return self._seen

    def workers(self) -> list[Worker]:
        return list(self._workers.values())

    def _index(self) -> None:
        self._serving = {}
        for name in sorted(self._workers):
            worker = self._workers[name]
            if worker.ready:
                self._serving.setdefault((worker.card.model, worker.card.duty), []).append(worker)
