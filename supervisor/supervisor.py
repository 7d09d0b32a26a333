"""The shell around the pure tree: executes what it decides, and tells it what happened.

Every event goes through `_feed`, one at a time and without an await, so the tree sees them in the
order in which they happened and no decision is taken on a state that is about to change.

Its parts: `children` (the processes), `orders` (commands and their replies), `change` (other
topologies), `naming` (of models), `control` (the socket), `teller` (the listeners), `record` (the
run state).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec

from actors.runtime.link import Hello
from actors.runtime.registry.etcd import EtcdRegistry
from supervisor import adoption, events, tree, usage
from supervisor.calls import Answer, Apply, Denied, Status
from supervisor.change.executor import Changes
from supervisor.change.source import Planner
from supervisor.child import Child
from supervisor.children import Children
from supervisor.control import Control, Subscription
from supervisor.departures import Departures
from supervisor.elsewhere import Elsewhere
from supervisor.gpus import Gpus
from supervisor.ids import is_understudy
from supervisor.launchers.zygote import become_subreaper
from supervisor.layout import Layout
from supervisor.measuring import Gathered, document
from supervisor.naming import CONNECT_TIMEOUT_S, Naming
from supervisor.orders import Orders, answer_of, full_name, replicas, set_log_level
from supervisor.plan import ROOT, Plan
from supervisor.plane import NATS
from supervisor.recipe import Recipe, leaves
from supervisor.record import Record, run_state
from supervisor.report import Sight, make_status, urls_and_models
from supervisor.runstate import Holder, RunState
from supervisor.strays import Strays
from supervisor.teller import Listener, Teller, conclusion, failure
from supervisor.topology import Overrides


class Supervisor:
    """Runs one plan, once. Whoever makes it holds the namespace's lock and has made the layout."""

    def __init__(
        self,
        plan: Plan,
        layout: Layout,
        holder: Holder,
        *,
        listeners: tuple[Listener, ...] = (),
        planner: Planner | None = None,
        adopted: adoption.Adoption = adoption.NOTHING,
    ) -> None:
        """Without a planner it cannot be scaled, and no other topology be applied. What is
        `adopted` runs already, and its start is to take it over."""
        self._plan = plan
        self._layout = layout
        self._holder = holder
        self.web: str | None = None
        """The address of the page that shows this supervisor, told in its status."""
        self._tree = tree.Tree(plan.tree, seed=holder.pid)
        self._waiting: deque[tree.Event] = deque()
        self._stepping = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        elsewhere = plan.here is not None and NATS not in plan.ports
        resumed = bool(adopted.taken or adopted.lost)
        self._boot = tree.Boot(patient=elsewhere, resumed=resumed)
        """How the tree is started: another node may be about to start the servers, or an earlier
        supervisor has served, and this one goes on."""
        self._hurried = False
        """Whether to stop without draining."""
        self._loop = asyncio.get_running_loop()
        self._booted_at = self._loop.time()
        self._gone: asyncio.Future[tree.Gone] = self._loop.create_future()
        self._control = Control(layout.socket, self)
        self._gathered = Gathered()
        self._tell = Teller([*listeners, self._control.tell, self._gathered.tell]).tell
        self._record = Record(layout.run, self._run_state)
        self._elsewhere: Elsewhere | None = None
        if plan.here is not None:
            self._elsewhere = Elsewhere(plan.namespace, plan.etcd)
        self._departures = Departures(plan.namespace, plan.nats)
        self._children = Children(
            layout,
            Gpus(planner.host.gpus if planner is not None else ()),
            self._departures,
            self._record,
            adopted,
            feed=self._feed,
            tell=self._tell,
            is_starting=self._is_starting,
        )
        self._strays = Strays(self._children.known_pids)
        self._orders = Orders(self._feed)
        self._changes = Changes(self, planner, self._tell)
        settings = msgspec.structs.replace(plan.etcd, connect_timeout_s=CONNECT_TIMEOUT_S)
        self.naming = Naming(partial(EtcdRegistry, settings, plan.namespace))
        """The names that clients may call models by."""

    async def run(self) -> events.Stopped:
        """Start everything; return when all has ended, by order or because the tree gave up.

        Raises OSError when the socket cannot be opened. Cancelled, it kills every child first.
        """
        # What a zygote forks is ours, and so is what a dead node leaves behind.
        become_subreaper()
        self._strays.open()
        self._children.take_over(dict(leaves(self._plan.tree)))
        await self._control.start()
        if NATS not in self._plan.ports:
            self._departures.open()
        if self._elsewhere is not None:
            self._elsewhere.open()
        try:
            try:
                self._booted_at = self._loop.time()
                self._feed(self._boot)
                gone = await asyncio.shield(self._gone)
            except BaseException:  # whatever it is, no child may be left without a supervisor
                self.stop(force=True)
                await self._gone
                raise
            # What the tree has not got round to asking for.
            await self._children.unclaimed.end()
            stopped = conclusion(gone, self._layout)
            self._tell(stopped)
            return stopped
        finally:
            self._children.close()
            await self._changes.close()
            if self._elsewhere is not None:
                await self._elsewhere.close()
            self._strays.close()
            await self._departures.wait_closed()
            await self._control.close()
            self._layout.run.unlink(missing_ok=True)

    # -- the tree --------------------------------------------------------------------------------

    def _feed(self, event: tree.Event) -> None:
        self._waiting.append(event)
        if self._stepping:
            return  # an action of the current step caused this: it is next
        self._stepping = True
        try:
            while self._waiting:
                for action in self._tree.step(self._waiting.popleft(), self._loop.time()):
                    self._execute(action)
        finally:
            self._stepping = False
        self._record.save_if_changed()

    def _execute(self, action: tree.Action) -> None:
        match action:
            case tree.Start(child, run, spec):
                self._children.start(child, run, spec.data)
            case tree.Drain(child, run):
                self._drain(child, run)
            case tree.Stop(child):
                self._children.stop(child)
            case tree.Kill(child):
                self._children.kill(child)
            case tree.SetTimer(key, at):
                self._timers[key] = self._loop.call_at(at, self._timer, key)
            case tree.CancelTimer(key):
                self._timers.pop(key).cancel()
            case tree.Report():
                self._report(action)
            case tree.Reply():
                self._orders.settle(action)
            case tree.Gone():
                self._gone.set_result(action)

    def _drain(self, child: str, run: int) -> None:
        if self._hurried:
            self._feed(tree.Drained(child, run))
        else:
            self._children.drain(child)

    def _timer(self, key: str) -> None:
        del self._timers[key]
        self._feed(tree.Timer(key))

    def _report(self, report: tree.Report) -> None:
        if report.kind is tree.ReportKind.PROGRESS and report.id == ROOT:
            urls, models = urls_and_models(self._children.running.values())
            took = self._loop.time() - self._booted_at
            self._tell(events.Serving(took_s=took, urls=urls, models=models, web=self.web))
        elif (failed := failure(report, self._layout)) is not None:
            self._tell(failed)

    def _is_starting(self, id_: str) -> bool:
        return self._tree.which_child(id_).state is tree.State.STARTING

    def _ids(self) -> list[str]:
        """Of all children and supervisors, in start order."""
        return [status.id for status in self._tree.status()]

    def _run_state(self) -> RunState:
        children = self._children
        return run_state(self._plan, self._holder, self._ids(), children.all(), children.above)

    # -- asked by the console and by calls -------------------------------------------------------

    def stop(self, *, force: bool = False, drain: bool = True) -> None:
        """Stop everything in reverse order, each child draining first if it does and `drain` says
        so; with `force`, kill everything at once."""
        if self._tree.gone:
            return
        self._tell(events.Stopping(force=force))
        self._hurried = self._hurried or not drain
        self._children.unclaimed.stop(force=force)
        self._feed(tree.Shutdown(force=force))
        if self._hurried:
            for child in self._tree.status():
                if child.state is tree.State.DRAINING:
                    self._feed(tree.Drained(child.id, child.run))

    async def restart(self, name: str, *, rolling: bool = False) -> Answer:
        """Stop a child, or all replicas of an entry, and start it again; return when it is ready,
        or refused. `rolling`: one at a time, see `change.rollout`."""
        ids = replicas(name, self._ids())
        if rolling:
            principals = [self._tree.which_child(id_) for id_ in ids if not is_understudy(id_)]
            if not all(one.state is tree.State.RUNNING for one in principals):
                return Denied(why=f"{name}: not all of it is running; restart it without --rolling")
            return await self._changes.rolling_restart(name, ids)
        orders = [partial(tree.RestartChild, id=id_, force=True) for id_ in ids or (name,)]
        return answer_of(await asyncio.gather(*map(self.order, orders)))

    async def drain_child(self, child: str) -> Answer:
        """Drain and stop a child, and keep it stopped; return when it has ended."""
        id_ = full_name(child, self._ids())
        return answer_of([await self.order(partial(tree.TerminateChild, id=id_))])

    def set_log_level(self, name: str, level: str) -> Answer:
        """Have a child, all replicas of an entry, one actor, or all (`all`) write down events from
        a level on; until the process ends."""
        return set_log_level(self._children.running.values(), name, level)

    async def scale(self, name: str, replicas: int) -> Answer:
        """Have so many replicas of an entry."""
        return await self._changes.scale(name, replicas)

    async def apply(self, call: Apply) -> Answer:
        """Have what a topology says, or tell what would change."""
        overrides = Overrides(sets=call.sets, port=call.port, namespace=call.namespace)
        return await self._changes.apply(
            Path(call.path), call.text, overrides, dry_run=call.dry_run
        )

    def reload(self) -> None:
        """Apply the file that runs, as it is now."""
        self._changes.reload()

    async def status(self) -> Status:
        """Everything as it is now."""
        children = self._children.running
        groups = {child.process.pid for child in children.values() if child.process}
        # On a thread: a big host has thousands of processes to look through.
        used = await asyncio.to_thread(usage.look, groups)
        sight = Sight(
            now=self._loop.time(),
            usage=used,
            own=usage.look_at_this_process(),
            falls=self._children.falls,
            web=self.web,
        )
        if self._elsewhere is not None:
            sight = msgspec.structs.replace(
                sight,
                registered=self._elsewhere.actors(),
                registry=self._elsewhere.health,
            )
        nodes = self._tree.status()
        return make_status(self._plan, self._holder, self._layout, nodes, children, sight)

    async def metrics(self) -> str:
        """What everybody counts, for Prometheus."""
        children = dict(self._children.running)
        nodes = {id_: child for id_, child in children.items() if not child.is_server}
        groups = {child.process.pid: id_ for id_, child in children.items() if child.process}
        answers = await asyncio.gather(*(child.measure() for child in nodes.values()))
        used = await asyncio.to_thread(usage.look, list(groups))
        told = [(id_, one) for id_, one in zip(nodes, answers, strict=True) if one is not None]
        silent = nodes.keys() - dict(told).keys()
        now = self._loop.time()
        self._gathered.look(
            self._tree.status(),
            {groups[pid]: one for pid, one in used.items()},
            {id_: now - child.beat_at for id_, child in nodes.items() if child.beat is not None},
            silent,
            now,
        )
        return document(self._gathered, self._plan.namespace, told)

    def subscribe(self, recent: int) -> AbstractContextManager[Subscription]:
        """What happens from now on, after the last `recent` events."""
        return self._control.subscribe(recent)

    def find(self, hello: Hello) -> Child | None:
        """The child whose process is calling; None when it is none of ours."""
        child = self._children.called(hello.node, hello.run)
        if child is None or child.process is None:
            # A node may call before its zygote's answer has told us its pid. Runs are never used
            # twice, so there is nobody else it could be.
            return child
        return child if child.is_process(hello.pid, hello.pid_started) else None

    # -- asked by changes ------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What is run, all changes included."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan
        self._holder = msgspec.structs.replace(self._holder, topology=str(plan.topology.absolute()))
        self._record.note()

    async def order(self, make: Callable[[int], tree.Command]) -> tree.Done | tree.Refused:
        """Have the tree carry out a command; return when it has. `make` is given its number."""
        return await self._orders.give(make)

    def look(self) -> list[tree.ChildStatus]:
        """Every child and supervisor as it is now."""
        return self._tree.status()

    def spec_of(self, id_: str) -> tree.Spec:
        """What a child or supervisor is started with next."""
        return self._tree.child_spec(id_)

    def recipe_in_use(self, id_: str) -> Recipe | None:
        """What the process of a child was started with; None when it has none now."""
        child = self._children.running.get(id_)
        return None if child is None else child.recipe
