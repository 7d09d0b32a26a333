"""One simulated service and its environment: processes, servers, clients, and what befalls them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable

from actors.engines.simulated import SimulatedEngine, SimulatedOptions
from actors.ingress.actor import Ingress
from actors.runtime.node import Node
from actors.runtime.process import NodeSpec, Process
from actors.worker.actor import Worker
from tests.simulation.etcd import SimEtcd
from tests.simulation.loop import CURRENT, Proc, SimLoop
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Frame, SimNats, SimTransport
from tests.simulation.scenario import NAMESPACE, Scenario
from tests.simulation.streams import Streams
from tests.simulation.supervision import SimChild, SimSupervisor
from tests.simulation.workload import Call, Violation

URGENT_LIMIT = 100
"""What the runtime itself may put into a full mailbox: one message an actor watched."""
HEALED_AFTER_S = 4.0
"""After the last fault's beginning everything is healed, also what would have lasted longer."""
DEATHS_WE_CAUSE = ("signal 9", "signal 15", "exit 0")


class World:
    """See the module. `verbose` keeps the trace; its hash is taken in any case."""

    def __init__(self, scenario: Scenario, *, verbose: bool = False) -> None:
        self.scenario = scenario
        self.seed = scenario.seed
        self.namespace = NAMESPACE
        self.loop = SimLoop(scenario.seed)  # type: ignore[abstract]  # what is not there is not used
        self.rng = random.Random(f"world/{scenario.seed}")
        self.nats = SimNats(self.loop, random.Random(f"nats/{scenario.seed}"))
        self.etcd = SimEtcd(self.loop, random.Random(f"etcd/{scenario.seed}"))
        self.streams = Streams(self.loop, random.Random(f"streams/{scenario.seed}"))
        self.words = SimulatedOptions(eos_every=scenario.engine["eos_every"]).words
        self.supervisor: SimSupervisor | None = None
        self.orphans: dict[str, SimChild] = {}
        """Nodes whose supervisor died, until the next one adopts them."""
        self.nodes: dict[Proc, Node] = {}
        self.wall_ahead_s = 0.0
        """By how much every process's wall clock has been moved."""
        self.sometimes: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.ingresses = sorted(
            name for node in scenario.nodes for name in node if name.startswith("ingress/")
        )
        self.lines: list[str] = []
        self._verbose = verbose
        self._digest = hashlib.blake2b(digest_size=8)
        self._kinds: Counter[str] = Counter()
        self.nemesis = Nemesis(self)
        self.nats.fate = self._fate
        self.nats.sending = self._sending
        self.nats.arriving = self._arriving
        self.loop.after_turn = self._after_turn

    # -- records -------------------------------------------------------------------------------

    def trace(self, what: str) -> None:
        line = f"{self.loop.now:11.6f}  {what}"
        self._digest.update(line.encode())
        if self._verbose:
            self.lines.append(line)

    def count(self, what: str) -> None:
        """One of the interesting things that sometimes happen has happened."""
        self.sometimes[what] += 1

    def wrong(self, what: str) -> None:
        """A promise is broken: the run ends with the current turn."""
        self.loop.errors.append(what)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def current(self) -> Proc:
        return CURRENT.get()

    # -- processes -----------------------------------------------------------------------------

    def start_supervisor(self) -> None:
        above: dict[str, int] = {}
        old = self.supervisor
        if old is not None:
            old.proc.kill()
            above = old.above
            self.orphans = {
                id_: SimChild(
                    id_, child.run, child.proc, begun=True, incarnations=child.incarnations
                )
                for id_, child in (old.children | old._unclaimed).items()
                if child.begun and not child.proc.dead
            }
        self.supervisor = SimSupervisor(self, self.scenario.tree(), above, goes_on=old is not None)

    def begin(self, id_: str, proc: Proc, spec: NodeSpec) -> None:
        """A node's process runs its code from here on."""
        self.trace(f"{proc} starts")
        proc.on_death.append(lambda how: self._died(id_, proc, how))

        async def main() -> None:
            process = Process(spec)
            self.nodes[proc] = process._node
            code = await process.run()
            # What it has published last is still to be written.
            self.loop.call_later(0.0, proc.kill, f"exit {code}", context=self.loop.world.context)

        proc.spawn(main(), "main")

    def _died(self, id_: str, proc: Proc, how: str) -> None:
        self.trace(f"{proc} ends: {how}")
        node = self.nodes.pop(proc, None)
        if node is not None:
            self._check_mailboxes(node)
        for transport in [one for one in self.nats.transports if one.proc is proc]:
            transport.leave()
        for side in proc.connections:
            side.reset()
        self.streams.died(proc)
        self.count(f"a node ended: {how}")
        if how not in DEATHS_WE_CAUSE and proc not in self.nemesis.expected_deaths:
            if how == "exit 69":
                return  # NATS or etcd was out of reach: to be tried again
            if how == "exit 73" and self.supervisor is not None:
                return
            if how == "exit 75" and node is not None and self._is_replaced(node):
                self.count("a node that had lost its name ended itself")
                return
            raise Violation(f"{proc} ended by itself: {how}")

    def _is_replaced(self, node: Node) -> bool:
        """Whether another node has a name of this one, in a later life."""
        mine = {cell.entry.name: cell.entry.incarnation for cell in node.cells}
        return any(
            cell.entry.incarnation > mine.get(cell.entry.name, cell.entry.incarnation)
            for other in self.nodes.values()
            for cell in other.cells
        )

    def node_of(self, name: str) -> tuple[Proc, Node] | None:
        """The live process that hosts an actor, or a node of that name."""
        for proc, node in self.nodes.items():
            if node.name == name or any(cell.entry.name == name for cell in node.cells):
                return proc, node
        return None

    def proc_of(self, name: str) -> Proc | None:
        if self.supervisor is not None:
            child = self.supervisor.children.get(name)
            if child is not None and not child.proc.dead:
                return child.proc
        found = self.node_of(name)
        return None if found is None else found[0]

    def ingress_proc(self, index: int) -> Proc | None:
        found = self.node_of(self.ingresses[index])
        return None if found is None else found[0]

    def transport_of(self, proc: Proc) -> SimTransport | None:
        return next((one for one in self.nats.transports if one.proc is proc), None)

    def engine_of(self, name: str) -> SimulatedEngine | None:
        found = self.node_of(name)
        for cell in [] if found is None else found[1].cells:
            if isinstance(cell.actor, Worker):
                engine = cell.actor._engine
                assert isinstance(engine, SimulatedEngine)
                return engine
        return None

    # -- frames --------------------------------------------------------------------------------

    def _sending(self, frame: Frame) -> bool:
        kind = frame.kind
        self.trace(f"{frame.sender.proc} -> {frame.subject} {kind} {len(frame.data)}")
        waiting = self.nemesis.waiting.get(kind)
        if not waiting:
            return True
        self._kinds[kind] += 1
        for fault in tuple(waiting):
            if fault.nth == self._kinds[kind] and fault.target == "sender":
                waiting.remove(fault)
                self.nemesis.strike(fault, frame.sender.proc)
        return True

    def _arriving(self, frame: Frame, proc: Proc) -> None:
        kind = frame.kind
        waiting = self.nemesis.waiting.get(kind)
        if not waiting:
            return
        self._kinds[f"<{kind}"] += 1
        for fault in tuple(waiting):
            if fault.nth == self._kinds[f"<{kind}"] and fault.target == "receiver":
                waiting.remove(fault)
                self.nemesis.strike(fault, proc)

    def _fate(self, _frame: Frame) -> tuple[float, ...]:
        for weather in self.nemesis.weather:
            draw = self.nats.rng.random()
            if draw < weather.loss:
                return ()
            if draw < weather.loss + weather.double:
                return (0.0, self.nats.rng.uniform(0.0, 0.5))
            if draw < weather.loss + weather.double + weather.late:
                return (self.nats.rng.uniform(0.0, 0.5),)
        return (0.0,)

    # -- clients -------------------------------------------------------------------------------

    def open_call(self, call: Call) -> None:
        self.calls.append(call)
        call.begin()

    def call_ended(self, call: Call) -> None:
        self.count(f"a request ended: {call.outcome}")

    async def until(self, missing: Callable[[], str], within_s: float, what: str) -> None:
        """Wait in virtual time until nothing is missing any more. Raises Violation."""
        due = self.loop.now + within_s
        while still := missing():
            if self.loop.now >= due:
                raise Violation(f"not within {within_s:g} s: {what}; {still}")
            await asyncio.sleep(0.05)

    # -- every step ----------------------------------------------------------------------------

    def _after_turn(self) -> None:
        if self.loop.errors:
            raise Violation(self.loop.errors[0])

    @staticmethod
    def _check_mailboxes(node: Node) -> None:
        """Their fullest moment is kept, so one look at the end of a life sees every step."""
        for cell in node.cells:
            statistics = cell.mailbox.statistics()
            if statistics.peak > statistics.limit + URGENT_LIMIT:
                raise Violation(f"{cell.entry.name}: {statistics.peak} messages waited")

    def ingress_actors(self) -> list[Ingress]:
        return [
            cell.actor
            for node in self.nodes.values()
            for cell in node.cells
            if isinstance(cell.actor, Ingress)
        ]

    def pid_lives(self, pid: int, _started: int) -> bool:
        return any(proc.pid == pid and not proc.dead for proc in self.loop.procs)


def pid_of_current() -> int:
    proc = CURRENT.get(None)
    return os.getppid() if proc is None else proc.pid
