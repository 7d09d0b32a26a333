"""One run of one leaf of the tree: its process, its log, and what it says over its link.

How a process comes about is the run's own affair: it is spawned, or forked by a zygote, which
takes a moment in which there is no process yet. Orders of that moment are carried out after it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from actors.runtime.link import (
    Beat,
    DrainOrder,
    Failing,
    Hello,
    Link,
    LogLevel,
    Measured,
    Prepared,
    Promote,
    Rehearsed,
    Said,
)
from actors.runtime.metrics import Family
from actors.runtime.pids import descends_from
from supervisor import logfiles
from supervisor.exits import Asked, reason_of
from supervisor.launchers.local import Exit, LocalProcess
from supervisor.launchers.world import World
from supervisor.launchers.zygote import Zygote
from supervisor.layout import Layout
from supervisor.measuring import Asking
from supervisor.papers import promotion, write_spec
from supervisor.recipe import Recipe
from supervisor.runstate import RunningChild
from supervisor.signs import Signs
from supervisor.tree import Reason
from supervisor.zygotes import start_zygote


class Child:
    """Spawned by `start`, over when `on_exit` is called, which happens exactly once after it."""

    def __init__(
        self,
        name: str,
        run: int,
        recipe: Recipe,
        layout: Layout,
        *,
        on_process: Callable[[Child], None],
        on_link: Callable[[Child], None],
        on_ready: Callable[[Child], None],
        on_alive: Callable[[Child], None],
        on_exit: Callable[[Child, Reason], None],
    ) -> None:
        self.id = name
        self.run = run
        self.recipe = recipe
        self.log = layout.log(name)
        self.started_at = 0.0
        """Loop time of the spawn, or of the adoption."""
        self.run_told = run
        """What the process takes its run to be; of an adopted one, a number of another tree's."""
        self.adopted = False
        """Whether an earlier supervisor has started it."""
        self.prepared = False
        """Whether it has said that it can do its work; an understudy, that it is loaded."""
        self.formerly: tuple[str, int] | None = None
        """Name and run that it had as an understudy, as long as it may still call itself so."""
        self.incarnations: dict[str, int] = {}
        self.meta: dict[str, msgspec.Raw] = {}
        self.beat: Beat | None = None
        self.beat_at = 0.0
        self.process: LocalProcess | None = None
        self.zygote: Zygote | World | None = None
        """Set when this child is one."""
        self.leader: LocalProcess | None = None
        """Of ranks that mpirun has started: the one that is the node, when it has called."""
        self._forking: Zygote | World | None = None
        """Set while the answer of the zygote that is to fork this child is awaited."""
        self._spec_file = layout.node_spec(name)
        self._layout = layout
        self._on_process = on_process
        self._on_link = on_link
        self._on_ready = on_ready
        self._on_alive = on_alive
        self._on_exit = on_exit
        self._asked = Asked.NOTHING
        self._condemned = ""
        self._failing = ""
        self._link: Link | None = None
        self._asking = Asking()
        self._signs = Signs(self._is_prepared, self._answered)
        self._log_offset = 0
        self.granted: dict[str, str] = {}
        """Environment of this run alone."""
        self._draining = False
        self._promotion: Promote | None = None
        """What it has been told, if it has."""

    @property
    def standby(self) -> bool:
        """Whether it is an understudy."""
        return self.recipe.node is not None and self.recipe.node.standby

    @property
    def is_server(self) -> bool:
        return self.recipe.node is None

    def start(
        self,
        above: Mapping[str, int],
        zygote: Zygote | World | None = None,
        granted: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start it, by forking the zygote if one is given. `above` has the last incarnation known
        of each actor name; `granted` is environment of this run alone.

        Raises OSError when the process cannot be started; then nothing is left to clean up.
        """
        self.granted = dict(granted)
        self._log_offset = logfiles.rotate(self.log)
        if self.recipe.node is not None:
            write_spec(self._spec_file, self.recipe.node, self.run, above)
        if self.recipe.ready_mark is not None:
            self.log.touch(0o600)
            mark, probe = self.recipe.ready_mark, self.recipe.probe
            self._signs.follow(self.log, self._log_offset, mark, probe)
        self.started_at = asyncio.get_running_loop().time()
        try:
            self.zygote = start_zygote(self.recipe, self.log, self._exited)
            if self.zygote is not None:
                self.process = self.zygote.process
                # It takes orders from the start; what is asked for early waits for the imports.
                asyncio.get_running_loop().call_soon(self._is_prepared)
            elif zygote is None:
                self._spawn()
            else:
                cwd = Path(self.recipe.cwd)
                cwd.stat()  # a fork could only die of what a spawn would have raised
                env = {**self.recipe.own_env, **self.granted}
                zygote.fork(self._spec_file, self.log, cwd, env, self._forked)
                self._forking = zygote
        except OSError:
            self._signs.close()
            raise
        self._feel_pulse()
        if self.recipe.node is None and self.recipe.ready_mark is None and self.zygote is None:
            # It has nothing to say; whether it stays up is seen later.
            asyncio.get_running_loop().call_soon(self._is_prepared)

    def adopt(self, running: RunningChild, above: Mapping[str, int]) -> None:
        """Take over a process that an earlier supervisor has started. It becomes ready when it
        answers, or says so itself.

        Raises ProcessLookupError when it is no more.
        """
        self.process = LocalProcess(running.pid, started=running.pid_started, on_exit=self._exited)
        self.adopted = True
        self.run_told = running.run
        self.incarnations = dict(running.incarnations)
        self.granted = dict(running.granted)
        self.started_at = asyncio.get_running_loop().time()
        self._log_offset = logfiles.size(self.log)
        self.formerly = running.formerly
        if running.formerly is not None:
            self._promotion = self._promote_note(above)
        self.prepared = self.standby and running.rehearsed
        if self.recipe.probe is not None:
            self._signs.probe(self.recipe.probe)
        elif self.recipe.node is None:
            self.prepared = True
            self._feel_pulse()

    def is_process(self, pid: int, started: int) -> bool:
        """Whether this child's node is that process: its own, or a rank that its mpirun started."""
        if self.process is None:
            return True
        if (pid, started) == (self.process.pid, self.process.started):
            return True
        if self.recipe.ranks is None or not descends_from(pid, self.process.pid):
            return False
        if self.leader is None:
            try:
                self.leader = LocalProcess(pid, started=started, on_exit=self._leader_ended)
            except OSError:
                return False
        return True

    def _leader_ended(self, _ending: Exit) -> None:
        self.leader = None  # mpirun ends the others, and then itself
        if self.recipe.outlived and not self.asked and self.process is not None:
            self._failing = self._failing or "the worker has ended, and its ranks with it"
            self.process.send(signal.SIGTERM)

    def _spawn(self) -> None:
        self.process = LocalProcess.spawn(
            self.recipe.argv,
            env={**self.recipe.env, **self.granted},
            cwd=Path(self.recipe.cwd),
            log=self.log,
            on_exit=self._exited,
        )

    def _forked(self, outcome: int | str) -> None:
        """The zygote has answered: with a pid, or with why not."""
        self._forking = None
        if self._asked is not Asked.NOTHING and isinstance(outcome, str):
            hard = self._asked is Asked.NO_MORE
            self._exited(Exit(signal=signal.SIGKILL if hard else signal.SIGTERM))
            return
        try:
            if isinstance(outcome, int):
                self.process = LocalProcess(outcome, on_exit=self._exited)
            else:
                self._spawn()
        except OSError as error:
            self._failing = f"cannot be started: {error}"
            self._exited(Exit())
            return
        self._on_process(self)
        if self._asked is Asked.NO_MORE:
            self.kill()
        elif self._asked is Asked.TO_LEAVE:
            self.stop()

    # -- orders ----------------------------------------------------------------------------------

    def promote(self, name: str, run: int, recipe: Recipe, above: Mapping[str, int]) -> None:
        """Have an understudy go on as another child, which it was started to stand in for. It is
        ready when it says so. One that is not linked right now is told when it is again."""
        assert self.standby, "only an understudy has no part yet"
        self.formerly = (self.id, self.run_told)
        self.id, self.run, self.run_told, self.recipe = name, run, run, recipe
        self.prepared = False
        self.log = self._layout.log(name)
        self._log_offset = logfiles.rotate(self.log)
        self.started_at = asyncio.get_running_loop().time()
        self._promotion = self._promote_note(above)

    def send_promotion(self) -> None:
        """Tell it so; apart, as it has to be written down first."""
        assert self._promotion is not None, "it was promoted"
        if self._link is not None:
            self._link.say(self._promotion)

    def _promote_note(self, above: Mapping[str, int]) -> Promote:
        assert self.recipe.node is not None, "understudies are nodes"
        return promotion(self.id, self.run_told, self.recipe.node, above, self.log)

    def drain(self) -> None:
        """Ask a node to finish its work and leave; one that is not linked right now is asked when
        it is again."""
        self._ask(Asked.TO_LEAVE)
        self._draining = True
        if self._link is not None:
            self._link.say(DrainOrder())

    def set_log_level(self, level: str, actor: str | None) -> bool:
        """Have a node write down more, or less; False when it is not linked, or no node."""
        if self._link is None:
            return False
        self._link.say(LogLevel(level, actor))
        return True

    def stop(self) -> None:
        """SIGTERM."""
        self._ask(Asked.TO_LEAVE)
        # mpirun would not let the ranks end in their own way.
        process = self.leader or self.process
        if process is not None:
            process.send(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, its whole process group."""
        self._ask(Asked.NO_MORE)
        if self.process is not None:
            self.process.kill()
        elif self._forking is not None:
            # A zygote that has not answered by now may never do so: it may be frozen itself.
            self._forking.process.kill()

    def condemn(self, reason: str) -> None:
        """SIGKILL its process group, for a failure that it cannot tell of itself."""
        self._condemned = reason
        if self.process is not None:
            self.process.kill()

    def fail(self, why: str) -> None:
        """Kill it for a failure that it does not know of itself."""
        self._failing = why
        if self.process is not None:
            self.process.kill()

    def _ask(self, what: Asked) -> None:
        self._asked = max(self._asked, what)

    @property
    def condemned(self) -> bool:
        """Whether the watchdog has killed it."""
        return bool(self._condemned)

    @property
    def asked(self) -> bool:
        """Whether it has been told to end."""
        return self._asked is not Asked.NOTHING

    # -- its link --------------------------------------------------------------------------------

    def linked(self, link: Link, hello: Hello) -> None:
        """The node has connected, perhaps again."""
        self._link = link
        if self._promotion is not None and (hello.node, hello.run) == self.formerly:
            link.say(self._promotion)
        if self._draining:
            link.say(DrainOrder())
        self._on_link(self)

    @property
    def is_linked(self) -> bool:
        return self._link is not None

    def is_called(self, name: str, run: int) -> bool:
        """Whether its process may call itself so."""
        return (name, run) in {(self.id, self.run_told), self.formerly}

    def unlinked(self, link: Link) -> None:
        """A connection of the node has ended, perhaps an old one."""
        if self._link is link:
            self._link = None

    def hear(self, note: Said) -> None:
        """The node has said something."""
        match note:
            case Prepared(incarnations, meta):
                self.incarnations, self.meta = incarnations, meta
                self.formerly = None
                self._is_prepared()
            case Rehearsed() if self.standby:
                self._is_prepared()
            case Beat():
                self.beat, self.beat_at = note, asyncio.get_running_loop().time()
                self._on_alive(self)
            case Measured():
                self._asking.hear(note)
            case Failing(reason):
                self._failing = reason
            case _:
                pass  # a second Hello, or an order that is ours to give

    async def measure(self) -> tuple[Family, ...] | None:
        """What the node counts; None when it does not say in time, or is not linked."""
        return None if self._link is None else await self._asking.ask(self._link)

    def _is_prepared(self) -> None:
        self.prepared = True
        self._on_ready(self)

    # -- its process -----------------------------------------------------------------------------

    def tail(self) -> tuple[str, ...]:
        """The last lines that this run has written."""
        return logfiles.tail(self.log, self._log_offset)

    def _feel_pulse(self) -> None:
        if self.recipe.pulse and self.process is not None:
            self._signs.feel_pulse(self.process.pid)

    def _answered(self) -> None:
        """A server has answered a probe, or a helper's process can run."""
        if not self.prepared:
            self._is_prepared()
        self._on_alive(self)

    def _exited(self, ending: Exit) -> None:
        self._signs.close()
        reason = reason_of(
            ending,
            asked=self._asked,
            condemned=self._condemned,
            said=self._failing,
            tail=self.tail(),
            node=not self.is_server,
        )
        self._on_exit(self, reason)
