"""The supervisor of a simulated service: the real tree and watchdog around simulated processes.

The decisions are those of `supervisor.tree` and `supervisor.vigil`; what is written anew is the
shell that starts processes. A node runs the real `actors.runtime.process.Process`, with the
simulated transport, etcd client and link in place of those that open sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.runtime.address import Address
from actors.runtime.errors import PlaneUnavailable
from actors.runtime.link import Beat, DrainOrder, Failing, Hello, Note, Prepared, Said
from actors.runtime.message import encode
from actors.runtime.node import Departed, departures
from actors.runtime.process import NodeSpec
from supervisor import tree
from supervisor.vigil import Vigil
from supervisor.watchdog import Deadlines
from tests.simulation.loop import Proc
from tests.simulation.network import SimTransport

if TYPE_CHECKING:
    from tests.simulation.world import World

FORK_S = (0.03, 0.2)
"""From the order to start until the process's own code runs."""
REAP_S = (0.0005, 0.003)
"""From a process's end until its supervisor knows."""
LINK_S = (0.00005, 0.001)


class SimLink:
    """A node's end of the connection to its supervisor; stands in for `actors.runtime.link.Link`.
    What is said is encoded and decoded, as on the real one."""

    def __init__(self, world: World, supervisor: SimSupervisor) -> None:
        self.proc = world.current()
        self._world = world
        self._supervisor = supervisor
        self._heard: asyncio.Queue[Said | None] = asyncio.Queue()
        self._clear = 0.0
        self._open = True

    @classmethod
    def connector(cls, world: World) -> Callable[[Path], object]:
        """`Link.connect` of a world."""

        async def connect(_path: Path) -> SimLink:
            await asyncio.sleep(world.rng.uniform(*LINK_S))
            supervisor = world.supervisor
            if supervisor is None or supervisor.proc.dead:
                raise ConnectionRefusedError
            link = cls(world, supervisor)
            supervisor.links.append(link)
            return link

        return connect

    def say(self, note: Note) -> None:
        if self._open and not self.proc.doomed:
            data = msgspec.json.encode(note)
            self._later(self._supervisor.proc, self._supervisor.hear, self, data)

    async def hear(self) -> Said | None:
        return await self._heard.get()

    async def close(self) -> None:
        self._open = False

    def tell(self, note: Note | None) -> None:
        """The supervisor says something; None: its end is gone."""
        self._later(self.proc, self._heard.put_nowait, note)

    def _later(self, proc: Proc, act: Callable[..., object], *args: object) -> None:
        loop = self._world.loop
        self._clear = max(self._clear, loop.now + self._world.rng.uniform(*LINK_S))
        loop.call_at(self._clear, act, *args, context=proc.context)


class SimChild(msgspec.Struct, eq=False):
    """One run of a node."""

    id: str
    run: int
    proc: Proc
    begun: bool = False
    """Forked: until then it dies with its supervisor."""
    incarnations: dict[str, int] = {}
    ready: bool = False
    asked: bool = False
    """Told to end."""
    verdict: str = ""
    failing: str = ""


class SimSupervisor:
    """Runs a tree in a process of its own. It can be killed; the next one adopts what runs."""

    def __init__(
        self,
        world: World,
        spec: tree.SupervisorSpec,
        above: dict[str, int],
        *,
        goes_on: bool,
    ) -> None:
        self.world = world
        self.proc = world.loop.process("supervisor")
        self.above = above
        self.children: dict[str, SimChild] = {}
        self.links: list[SimLink] = []
        self.gone: tree.Gone | None = None
        self._goes_on = goes_on
        self._tree = tree.Tree(spec, seed=world.seed)
        self._waiting: deque[tree.Event] = deque()
        self._stepping = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._transport: SimTransport | None = None
        self._unclaimed = world.orphans
        """Adopted nodes that the tree has not asked for yet."""
        self.proc.on_death.append(lambda _how: self._hang_up())
        self.proc.spawn(self._start(), "supervisor")

    async def _start(self) -> None:
        self._vigil = Vigil(self._condemn)
        self.feed(tree.Boot(patient=self._goes_on))
        transport = SimTransport(self.world.nats)
        while True:
            try:
                await transport.start()
            except PlaneUnavailable:
                continue
            self._transport = transport
            return

    def _hang_up(self) -> None:
        for link in self.links:
            link.tell(None)

    def shut_down(self) -> None:
        """Stop everything in order."""
        self.proc.post(self.feed, tree.Shutdown())

    def order(self, command: tree.Command) -> None:
        """Have the tree carry out a command."""
        self.proc.post(self.feed, command)

    def status(self) -> list[tree.ChildStatus]:
        return self._tree.status()

    # -- the tree ------------------------------------------------------------------------------

    def feed(self, event: tree.Event) -> None:
        self._waiting.append(event)
        if self._stepping:
            return
        self._stepping = True
        while self._waiting:
            for action in self._tree.step(self._waiting.popleft(), self.world.loop.now):
                self._execute(action)
        self._stepping = False

    def _execute(self, action: tree.Action) -> None:
        match action:
            case tree.Start(id_, run, spec):
                self._launch(id_, run, spec)
            case tree.Drain(id_):
                self._tell(id_, DrainOrder())
            case tree.Stop(id_):
                self._ask(id_).proc.signal(15)
            case tree.Kill(id_):
                self._ask(id_).proc.kill()
            case tree.SetTimer(key, at):
                self._timers[key] = self.world.loop.call_at(at, self._timer, key)
            case tree.CancelTimer(key):
                self._timers.pop(key).cancel()
            case tree.Gone():
                self.gone = action
            case _:
                pass

    def _timer(self, key: str) -> None:
        del self._timers[key]
        self.feed(tree.Timer(key))

    def _ask(self, id_: str) -> SimChild:
        child = self.children[id_]
        child.asked = True
        self._vigil.forget(id_)
        return child

    def _tell(self, id_: str, note: Note) -> None:
        child = self._ask(id_)
        for link in self.links:
            if link.proc is child.proc:
                link.tell(note)

    # -- processes -----------------------------------------------------------------------------

    def _launch(self, id_: str, run: int, spec: tree.ChildSpec) -> None:
        adopted = self._unclaimed.pop(id_, None)
        if adopted is not None and not adopted.proc.dead:
            adopted.run = run
            self.children[id_] = adopted
            self._watch_end(adopted)
            self.world.count("a supervisor adopted a node")
            if adopted.ready:
                self._ready(adopted)
            return
        proc = self.world.loop.process(f"{id_}.{run}")
        child = SimChild(id_, run, proc)
        self.children[id_] = child
        self._watch_end(child)
        node: NodeSpec = spec.data
        actors = tuple(
            msgspec.structs.replace(one, above=self.above.get(f"{one.role}/{one.instance}", 0))
            for one in node.actors
        )
        node = msgspec.structs.replace(node, actors=actors, run=run)
        after_s = self.world.rng.uniform(*FORK_S)
        self.world.loop.call_later(after_s, self._begin, child, node)

    def _begin(self, child: SimChild, node: NodeSpec) -> None:
        if not child.proc.dead:
            child.begun = True
            self.world.begin(child.id, child.proc, node)

    def _watch_end(self, child: SimChild) -> None:
        def ended(how: str) -> None:
            world = self.world
            after_s = world.rng.uniform(*REAP_S)
            act, context = self.proc.post, world.loop.world.context
            world.loop.call_later(after_s, act, self._ended, child, how, context=context)

        child.proc.on_death.append(ended)

    def _ended(self, child: SimChild, how: str) -> None:
        self._vigil.forget(child.id)
        if self.children.get(child.id) is child:
            del self.children[child.id]
        self.links = [link for link in self.links if link.proc is not child.proc]
        for name, life in child.incarnations.items():
            self._announce(Departed(Address.parse(f"{name}#{life}"), child.verdict or how))
        self.feed(tree.Exited(child.id, child.run, _reason(child, how)))

    def _announce(self, departed: Departed) -> None:
        if self._transport is not None and self._transport.health != "lost":
            self._transport.publish(departures(self.world.namespace), encode(departed))

    def _condemn(self, id_: str, verdict: str) -> None:
        child = self.children.get(id_)
        if child is not None:
            self.world.count("the watchdog killed a node")
            child.verdict = verdict
            child.proc.kill()

    # -- what nodes say ------------------------------------------------------------------------

    def hear(self, link: SimLink, data: bytes) -> None:
        known = [*self.children.values(), *self._unclaimed.values()]
        child = next((one for one in known if one.proc is link.proc), None)
        if child is None:
            return
        note: Said = msgspec.json.decode(data, type=Said)
        match note:
            case Hello():
                pass
            case Prepared(incarnations=incarnations):
                child.incarnations = incarnations
                self.above |= incarnations
                child.ready = True
                if child.id in self.children:
                    self._ready(child)
            case Beat():
                self._vigil.hear(child.id, note)
            case Failing(reason=reason):
                child.failing = reason
            case _:
                pass

    def _ready(self, child: SimChild) -> None:
        if self.world.scenario.watchdog and not child.asked and not self._vigil.watches(child.id):
            self._vigil.watch(child.id, Deadlines())
        self.feed(tree.Ready(child.id, child.run))


def _reason(child: SimChild, how: str) -> tree.Reason:
    if child.verdict or how == "signal 9":
        return tree.Reason(tree.Kind.KILLED, child.verdict or how)
    if how == "exit 0":
        return tree.SHUTDOWN if child.asked else tree.NORMAL
    kind = tree.Kind.UNAVAILABLE if how == "exit 69" else tree.Kind.ABNORMAL
    return tree.Reason(kind, child.failing or how)
