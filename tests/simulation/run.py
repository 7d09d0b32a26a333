"""One run: bring the service up, work under faults, heal, demand progress, look for leftovers."""

from __future__ import annotations

import os
import random
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import structlog

from actors.engines.simulated import SimulatedEngine
from actors.runtime.registry.base import State
from actors.text.tokenizer import Tokenizer
from actors.worker.actor import Worker
from supervisor import tree
from tests.service import CAPITALS, tokenizer
from tests.simulation import scenario as scenarios
from tests.simulation.etcd import SimEtcdClient
from tests.simulation.faults import Fault
from tests.simulation.loop import Stuck
from tests.simulation.network import SimTransport
from tests.simulation.supervision import SimLink
from tests.simulation.watching import watched
from tests.simulation.workload import Ask, Call, Violation
from tests.simulation.world import HEALED_AFTER_S, World, pid_of_current

UP_WITHIN_S = 20.0
ENDED_WITHIN_S = 150.0
"""From the healing until every request has ended: two times no progress with the ordinary policy,
and what lies around."""
PROBED_WITHIN_S = 20.0
QUIET_WITHIN_S = 120.0
NATS_PATIENCE_S = 3.0
"""`Policy.restart_s`."""
EPOCH_1970_S = 1_800_000_000.0


class Result(msgspec.Struct):
    """What came of a run."""

    seed: int
    failure: str
    digest: str
    sometimes: Counter[str]
    faults: list[Fault]
    fired: int
    lines: list[str]
    virtual_s: float
    turns: int


def run(seed: int, *, keep: list[int] | None = None, verbose: bool = False) -> Result:
    """Run a seed. `keep`: the indices of the faults that strike; all when None."""
    return play(scenarios.make(seed), keep=keep, verbose=verbose)


def play(
    scenario: scenarios.Scenario,
    life: Callable[[World], Coroutine[Any, Any, None]] | None = None,
    *,
    keep: list[int] | None = None,
    verbose: bool = False,
) -> Result:
    """Run a scenario; with a `life`, that is what happens in it."""
    if keep is not None:
        kept = [scenario.faults[index] for index in keep]
        scenario = msgspec.structs.replace(scenario, faults=kept)
    tokenizer()  # loaded before loading is replaced
    world = World(scenario, verbose=verbose)
    failure = ""
    with _inside(world):
        try:
            world.loop.run((life or _live)(world))
        except (Violation, Stuck) as error:
            failure = str(error)
        except Exception:  # noqa: BLE001 - a defect of the simulation is shown like one it found
            failure = traceback.format_exc()
        digest = world.digest
        world.loop.bury()
    return Result(
        scenario.seed,
        failure,
        digest,
        world.sometimes,
        scenario.faults,
        len(world.nemesis.fired),
        world.lines,
        world.loop.now,
        world.loop.turns,
    )


async def _live(world: World) -> None:
    scenario = world.scenario
    world.start_supervisor()
    await world.until(lambda: not_up(world), UP_WITHIN_S, "the service is up")
    world.trace("UP")
    begun = world.loop.now
    world.nemesis.schedule(scenario.faults)
    for ask in scenario.asks:
        world.loop.call_later(ask.at, world.open_call, Call(world, ask))
    last_s = max([fault.at for fault in scenario.faults] + [scenarios.WORK_S])
    due = begun + last_s + HEALED_AFTER_S
    await world.until(
        lambda: _at(world, due) and _requests(world),
        1000,
        "the faults are over",
    )
    if scenario.faults and world.nemesis.fired:
        # Those that last go on for as long as they would, a while at least.
        longest = max(fault.last_s for fault in world.nemesis.fired)
        await world.until(lambda: _at(world, due + longest), 1000, "the faults are over")
    world.nemesis.heal()
    await world.until(
        lambda: _requests(world),
        ENDED_WITHIN_S,
        "every request has ended",
    )
    _judge(world)
    await world.until(lambda: not_up(world), 60.0, "the service is up again")
    await probe(world)
    await world.until(lambda: _unrest(world), QUIET_WITHIN_S, "all is quiet")
    await leave(world)


def _at(world: World, when: float) -> str:
    return "" if world.loop.now >= when else f"it is not {when:.1f} s yet"


def _requests(world: World) -> str:
    """Which requests have not ended."""
    asked = {call.ask.number for call in world.calls}
    later = [ask.number for ask in world.scenario.asks if ask.number not in asked]
    return ", ".join(map(str, later + [c.ask.number for c in world.calls if not c.ended]))


def not_up(world: World) -> str:
    """What is still missing from a service that runs as it should."""
    supervisor = world.supervisor
    if supervisor is None or supervisor.proc.dead:
        return "there is no supervisor"
    if supervisor.gone is not None:
        raise Violation(f"the supervisor gave up: {supervisor.gone.reason}")
    for one in supervisor.status():
        if one.state is not tree.State.RUNNING:
            return f"{one.id} is {one.state} ({one.last_exit})"
    return _disagreement(world)


def _disagreement(world: World) -> str:
    """Where some node's view of who is there differs from what is."""
    owners = [cell.entry for node in world.nodes.values() for cell in node.cells]
    truth = {entry.name: entry.incarnation for entry in owners}
    if len(truth) < len(owners):
        return f"one name, two owners: {sorted(entry.name for entry in owners)}"
    wanted = {name for node in world.scenario.nodes for name in node}
    if set(truth) != wanted:
        return f"missing: {sorted(wanted - set(truth))}"
    for proc, node in world.nodes.items():
        seen = {
            entry.name: entry.incarnation
            for entry in node.directory.all()
            if entry.state is State.READY
        }
        if seen != truth:
            differing = sorted(seen.items() ^ truth.items())
            return f"{proc} sees it differently: {differing}"
    return ""


def _judge(world: World) -> None:
    """What clients saw must be what they may see."""
    for call in world.calls:
        if call.outcome == "refused":
            raise Violation(f"request {call.ask.number} found no ingress")
        if call.outcome == "cut" and call._side is not None:
            continue
        if call.outcome == "error" and world.scenario.calm and not _may_fail(world, call):
            raise Violation(f"request {call.ask.number} failed though little did: {call.why}")


def _may_fail(world: World, call: Call) -> bool:
    """A new request is turned away when NATS does not come back in a moment."""
    begun = any(call.texts)
    return not begun and any(
        fault.what == "nats-stop" and fault.last_s >= NATS_PATIENCE_S
        for fault in world.nemesis.fired
    )


async def probe(world: World) -> None:
    """Every ingress must serve as if nothing had been."""
    rng = random.Random(f"probe/{world.seed}")
    probes = []
    for index in range(len(world.ingresses)):
        ask = Ask(
            number=1000 + index,
            at=0.0,
            ingress=index,
            chat=False,
            stream=True,
            choices=1,
            max_tokens=10,
            seed=rng.randrange(1000),
            prompt="a probe",
            stop="",
            usage=True,
            leave_after=None,
        )
        call = Call(world, ask)
        probes.append(call)
        world.open_call(call)
    await world.until(lambda: _requests(world), PROBED_WITHIN_S, "the probes have ended")
    for call in probes:
        if call.outcome != "ok":
            raise Violation(f"the probe of ingress/{call.ask.ingress}: {call.outcome} {call.why}")


def _unrest(world: World) -> str:
    """What is still held by somebody although nothing goes on."""
    for proc, node in world.nodes.items():
        for cell in node.cells:
            actor = cell.actor
            if isinstance(actor, Worker):
                engine = actor._engine
                assert isinstance(engine, SimulatedEngine)
                load = engine.load()
                if len(actor._jobs):
                    return f"{proc} has {len(actor._jobs)} jobs"
                if load.running or load.waiting or load.blocks_used:
                    return f"{proc}'s engine: {load}"
            if len(cell.mailbox):
                return f"{cell.entry.name} has {len(cell.mailbox)} messages"
    for ingress in world.ingress_actors():
        if ingress._choices or ingress._exchanges:
            return f"{ingress.address}: {len(ingress._choices)} choices"
    return _disagreement(world)


async def leave(world: World) -> None:
    """Stop it in order: nothing may be left."""
    supervisor = world.supervisor
    assert supervisor is not None, "it is up"
    supervisor.shut_down()
    await world.until(
        lambda: "" if supervisor.gone else "it has not", 60.0, "the service has stopped"
    )
    assert supervisor.gone is not None, "it has been waited for"
    if supervisor.gone.exit_code != 0:
        raise Violation(f"the supervisor's exit code is {supervisor.gone.exit_code}")
    alive = [proc.name for proc in world.nodes]
    if alive:
        raise Violation(f"left behind: {alive}")
    # At once, or when its lease ends if its owner could not reach etcd just then.
    await world.until(lambda: _registered(world), 15.0, "the registry is empty")


def _registered(world: World) -> str:
    """The names that are held. How many lives they have had is kept for ever."""
    held = [key.decode() for key in sorted(world.etcd.keys) if b"/lives/" not in key]
    return ", ".join(held)


# -- what is replaced ----------------------------------------------------------------------------


@cache
def _tokenizer(source: str) -> Tokenizer:
    return tokenizer() if source == str(CAPITALS) else Tokenizer.load(source)


@contextmanager
def _inside(world: World) -> Iterator[None]:
    """Everything that would reach outside leads into the world."""
    numbers = iter(range(1, 1 << 30))
    clock = SimpleNamespace(
        time=lambda: EPOCH_1970_S + world.loop.now + world.wall_ahead_s,
        perf_counter=world.loop.time,
    )
    replaced: list[tuple[str, Any]] = [
        ("actors.runtime.process.NatsTransport", lambda *_: SimTransport(world.nats)),
        ("actors.runtime.process.Link", SimpleNamespace(connect=SimLink.connector(world))),
        ("actors.runtime.registry.etcd.EtcdClient", lambda _: SimEtcdClient(world.etcd)),
        ("actors.runtime.registry.etcd.is_alive", world.pid_lives),
        ("actors.runtime.process.process_started", lambda pid: pid),
        ("actors.runtime.node.process_started", lambda pid: pid),
        ("actors.runtime.clock.time", clock),
        ("actors.ingress.server.listener._listening", world.streams.bind),
        (
            "actors.router.actor.random",
            SimpleNamespace(Random=lambda: random.Random(f"router/{world.seed}")),
        ),
        (
            "actors.engines.simulated.engine.uuid",
            SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"{next(numbers):032x}")),
        ),
        ("actors.text.store.Tokenizer.load", _tokenizer),
    ]
    configuration = structlog.get_config()
    generator = random.getstate()
    with ExitStack() as stack:
        for name, value in replaced:
            stack.enter_context(patch(name, value))
        stack.enter_context(patch.object(os, "getpid", pid_of_current))
        stack.enter_context(watched(world))
        random.seed(world.seed)
        structlog.configure(
            processors=[_Drop(world)], cache_logger_on_first_use=False, context_class=dict
        )
        try:
            yield
        finally:
            random.setstate(generator)
            structlog.configure(**configuration)


class _Drop:
    """Puts what is logged into the trace."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        if self._world._verbose:
            said = {k: v for k, v in event.items() if k not in {"event", "exc_info"}}
            self._world.lines.append(
                f"{self._world.loop.now:11.6f}    log {method}: {event['event']} {said}"
            )
        raise structlog.DropEvent
