"""A fleet of simulated workers behind a real router, in virtual time.

Router, workers and engines are the ones that serve; only the clock jumps from timer to timer
instead of waiting. So a run depends on the seed alone, not on the machine, and costs what its
Python costs. What it leaves out: the time that decisions and messages take (`bench.router_speed`
and `bench.load` measure those).
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from actors.engines.simulated.options import SimulatedOptions
from actors.messages.assign import Assigned, Rejected
from actors.messages.frame import Chunk, Frame
from actors.messages.hints import Hints
from actors.messages.key import RequestKey
from actors.messages.route import Route
from actors.messages.sampling import Sampling
from actors.router.actor import Router
from actors.router.options import RouterOptions
from actors.runtime.actor import Actor, handler
from actors.runtime.address import Address
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.local import LocalRegistry, LocalStore
from actors.runtime.transport.local import LocalBus, LocalTransport
from actors.worker.actor import AggregatedWorker
from actors.worker.options import WorkerOptions

MODEL = "simulated"
SAMPLE_S = 0.1
"""Between two looks at how many requests each worker has."""
ENGINE = SimulatedOptions(
    blocks=4096,
    max_running=64,
    max_waiting=1_000_000,
    max_step_tokens=2048,
)
"""64 k tokens of KV cache, prompts computed in steps of 2048 tokens; times as in `timing`."""


class Outcome(msgspec.Struct):
    """One request, in seconds of virtual time."""

    prompt_tokens: int
    sent_s: float
    first_s: float = 0.0
    end_s: float = 0.0
    output_tokens: int = 0
    cached_tokens: int = 0
    worker: int = -1
    refused: str = ""


class Client(Actor):
    """In the place of an ingress: sends token ids to the router, and takes the frames."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.outcomes: list[Outcome] = []
        self.routers: list[Address] = []
        """Whom to send to, in turns by chance; without any, to the router that is there."""
        self._chance = random.Random(0)
        self._answers: dict[int, tuple[Outcome, array[int], asyncio.Future[None]]] = {}

    async def generate(self, prompt: array[int], max_tokens: int, hints: Hints) -> array[int]:
        """The answer's tokens; fewer than asked for when the request was refused."""
        outcome = Outcome(len(prompt), self.clock.now())
        number = len(self.outcomes)
        self.outcomes.append(outcome)
        answer: array[int] = array("I")
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[number] = (outcome, answer, ended)
        key = RequestKey(self.address, number, 0)
        sampling = Sampling(max_tokens=max_tokens, seed=number)
        router = self._chance.choice(self.routers) if self.routers else "router"
        self.tell(router, Route(key, "", MODEL, prompt.tobytes(), sampling, 0, hints))
        await ended
        return answer

    @handler
    def frame(self, message: Frame) -> None:
        now = self.clock.now()
        for chunk in message.everything():
            self._take(chunk, message.worker, now)

    def _take(self, chunk: Chunk, worker: Address, now: float) -> None:
        outcome, answer, ended = self._answers[chunk.number]
        if not outcome.first_s:
            outcome.first_s, outcome.worker = now, worker.instance
            outcome.cached_tokens = chunk.cached_tokens
        answer.extend(chunk.tokens)
        if chunk.finish:
            outcome.end_s, outcome.output_tokens = now, len(answer)
            del self._answers[chunk.number]
            ended.set_result(None)

    @handler
    def rejected(self, message: Rejected) -> None:
        outcome, _, ended = self._answers.pop(message.key.number)
        outcome.refused, outcome.end_s = message.why, self.clock.now()
        ended.set_result(None)

    @handler
    def assigned(self, message: Assigned) -> None:
        """Nothing to do: there are no replays here."""


class Fleet(msgspec.Struct):
    """A running fleet."""

    client: Client
    routers: list[Router]
    workers: list[AggregatedWorker]
    in_hand: list[list[int]] = []
    """By sample, requests of each worker."""

    async def watch(self) -> None:
        """Sample the workers until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            loads = [worker._engine.load() for worker in self.workers]  # noqa: SLF001 - no other way
            self.in_hand.append([load.running + load.waiting for load in loads])


@asynccontextmanager
async def fleet(
    options: RouterOptions, workers: int = 8, routers: Sequence[type[Router]] = (Router,)
) -> AsyncIterator[Fleet]:
    """Workers and a client in one node, and each router in one of its own, ready."""
    bus, store = LocalBus(), LocalStore()
    worker = WorkerOptions(engine=ENGINE, model=MODEL)
    hosted: list[list[Hosted]] = [
        [
            *(
                Hosted(actor=AggregatedWorker, role="aggregated", instance=instance, options=worker)
                for instance in range(workers)
            ),
            Hosted(actor=Client, role="ingress"),
        ],
        *(
            [Hosted(actor=kind, role="router", instance=instance, options=options)]
            for instance, kind in enumerate(routers)
        ),
    ]
    nodes = [
        Node(f"bench/{number}", "bench", LocalTransport(bus), LocalRegistry(store))
        for number in range(len(hosted))
    ]
    for node, actors in zip(nodes, hosted, strict=True):
        await node.start(actors)
    started = [cell.actor for node in nodes for cell in node.cells]
    made = Fleet(
        next(actor for actor in started if isinstance(actor, Client)),
        [actor for actor in started if isinstance(actor, Router)],
        [actor for actor in started if isinstance(actor, AggregatedWorker)],
        [],
    )
    watching = asyncio.create_task(made.watch())
    try:
        await asyncio.sleep(1.0)  # inventories, of virtual time
        yield made
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for node in reversed(nodes):
            await node.stop()


def tokens(rng: random.Random, count: int) -> array[int]:
    """Random token ids."""
    return array("I", rng.choices(range(1, 1_000_000), k=count))
