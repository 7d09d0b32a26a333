"""The shell around the pure tree: executes what it decides, and tells it what happened.

Every event goes through `_feed`, one at a time and without an await, so the tree sees them in the
order in which they happened and no decision is taken on a state that is about to change.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import msgspec
import structlog

from actors.runtime.address import Address
from actors.runtime.link import Hello
from supervisor import adoption, events, tree, usage
from supervisor.calls import Accepted, Answer, Apply, Denied, Status
from supervisor.change.executor import Changes, refusal_text
from supervisor.change.source import Planner
from supervisor.child import Child
from supervisor.control import Control, Subscription
from supervisor.departures import Departures
from supervisor.gpus import GPU_VARIABLE, Gpus
from supervisor.launchers.zygote import Zygote, become_subreaper
from supervisor.layout import Layout
from supervisor.leftovers import end_leftovers
from supervisor.plan import ROOT, Plan
from supervisor.recipe import Recipe, identity, leaves
from supervisor.report import Fall, Sight, culprit, describe, make_status, urls_and_models
from supervisor.resources import LimitError, impose
from supervisor.runstate import Holder, RunningChild, RunState, write_run_state
from supervisor.strays import Strays
from supervisor.topology import Overrides
from supervisor.vigil import Vigil

NATS = "nats"
ADOPTION_GRACE_S = 1.0
"""For a node to find the new socket, beyond what it has for a heartbeat."""
log = structlog.get_logger("supervisor")
Listener = Callable[[events.Event], None]


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
        self._tree = tree.Tree(plan.tree, seed=holder.pid)
        self._changes = Changes(self, planner, self._tell)
        self._gpus = Gpus(planner.host.gpus if planner is not None else ())
        self._hurried = False
        """Whether to stop without draining."""
        self._control = Control(layout.socket, self)
        self._strays = Strays(self._known_pids)
        self._departures = Departures(plan.namespace, plan.nats)
        self._listeners = [*listeners, self._control.tell]
        self._children: dict[str, Child] = {}
        """By id; those with a process."""
        self._adoption = adopted
        self._unclaimed: dict[str, Child] = {}
        """By id: taken over, and the tree has not asked for them to be started yet."""
        self._above: dict[str, int] = dict(adopted.above)
        """By actor name: the last incarnation known."""
        self._ended_at: dict[str, float] = {}
        """By id: when it ended, until it is ready again, however many tries that takes."""
        self._falls: dict[str, Fall] = {}
        """By id: its last end that was not asked for."""
        self.web: str | None = None
        """The address of the page that shows this supervisor, told in its status."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._replies: dict[int, asyncio.Future[tree.Done | tree.Refused]] = {}
        self._commands = 0
        self._waiting: deque[tree.Event] = deque()
        self._stepping = False
        self._changed = False
        self._loop = asyncio.get_running_loop()
        self._booted_at = self._loop.time()
        self._gone: asyncio.Future[tree.Gone] = self._loop.create_future()
        self._vigil = Vigil(self._condemn)

    async def run(self) -> events.Stopped:
        """Start everything; return when all has ended, by order or because the tree gave up.

        Raises OSError when the socket cannot be opened. Cancelled, it kills every child first.
        """
        # What a zygote forks is ours, and so is what a dead node leaves behind.
        become_subreaper()
        self._strays.open()
        self._take_over()
        await self._control.start()
        if not self._is_embedded(NATS):
            self._departures.open()
        try:
            try:
                self._booted_at = self._loop.time()
                self._feed(tree.Boot())
                gone = await asyncio.shield(self._gone)
            except BaseException:  # whatever it is, no child may be left without a supervisor
                self.stop(force=True)
                await self._gone
                raise
            # What the tree has not got round to asking for.
            await end_leftovers(_running(child) for child in self._unclaimed.values())
            return self._conclude(gone)
        finally:
            self._vigil.close()
            await self._changes.close()
            self._strays.close()
            await self._departures.wait_closed()
            await self._control.close()
            self._layout.run.unlink(missing_ok=True)

    # -- asked by the console and by calls -------------------------------------------------------

    def stop(self, *, force: bool = False, drain: bool = True) -> None:
        """Stop everything in reverse order, each child draining first if it does and `drain` says
        so; with `force`, kill everything at once."""
        if self._tree.gone:
            return
        self._tell(events.Stopping(force=force))
        self._hurried = self._hurried or not drain
        for id_, unclaimed in self._unclaimed.items():
            self._vigil.forget(id_)
            (unclaimed.kill if force else unclaimed.stop)()
        self._feed(tree.Shutdown(force=force))
        if self._hurried:
            for child in self._tree.status():
                if child.state is tree.State.DRAINING:
                    self._feed(tree.Drained(child.id, child.run))

    async def restart(self, name: str, *, rolling: bool = False) -> Answer:
        """Stop a child, or all replicas of an entry, and start it again; return when it is ready,
        or refused. `rolling`: one at a time, see `change.rollout`."""
        ids = self._replicas(name)
        if rolling:
            if not all(self._tree.which_child(id_).state is tree.State.RUNNING for id_ in ids):
                return Denied(why=f"{name}: not all of it is running; restart it without --rolling")
            return await self._changes.rolling_restart(name, ids)
        orders = [partial(tree.RestartChild, id=id_, force=True) for id_ in ids or (name,)]
        return _answer(await asyncio.gather(*map(self.order, orders)))

    async def drain_child(self, child: str) -> Answer:
        """Drain and stop a child, and keep it stopped; return when it has ended."""
        id_ = self._full_name(child)
        return _answer([await self.order(partial(tree.TerminateChild, id=id_))])

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

    async def order(self, make: Callable[[int], tree.Command]) -> tree.Done | tree.Refused:
        """Have the tree carry out a command; return when it has. `make` is given its number."""
        self._commands += 1
        reply: asyncio.Future[tree.Done | tree.Refused] = self._loop.create_future()
        self._replies[self._commands] = reply
        self._feed(make(self._commands))
        return await reply

    async def status(self) -> Status:
        """Everything as it is now."""
        groups = {child.process.pid for child in self._children.values() if child.process}
        # On a thread: a big host has thousands of processes to look through.
        used = await asyncio.to_thread(usage.look, groups)
        sight = Sight(
            now=self._loop.time(),
            usage=used,
            own=usage.look_at_this_process(),
            falls=self._falls,
            web=self.web,
        )
        nodes = self._tree.status()
        return make_status(self._plan, self._holder, self._layout, nodes, self._children, sight)

    def subscribe(self, recent: int) -> AbstractContextManager[Subscription]:
        """What happens from now on, after the last `recent` events."""
        return self._control.subscribe(recent)

    def find(self, hello: Hello) -> Child | None:
        """The child whose process is calling; None when it is none of ours."""
        child = self._find(hello.node)
        if child is None:
            return None
        if child.process is None:
            # A node may call before its zygote's answer has told us its pid. Runs are never used
            # twice, so there is nobody else it could be.
            return child if hello.run == child.run_told else None
        known = (child.run_told, child.process.pid, child.process.started)
        return child if known == (hello.run, hello.pid, hello.pid_started) else None

    @property
    def plan(self) -> Plan:
        """What is run, all changes included."""
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan
        self._holder = msgspec.structs.replace(self._holder, topology=str(plan.topology.absolute()))
        self._changed = True

    def look(self) -> list[tree.ChildStatus]:
        """Every child and supervisor as it is now."""
        return self._tree.status()

    def spec_of(self, id_: str) -> tree.Spec:
        """What a child or supervisor is started with next."""
        return self._tree.child_spec(id_)

    def recipe_in_use(self, id_: str) -> Recipe | None:
        """What the process of a child was started with; None when it has none now."""
        child = self._children.get(id_)
        return None if child is None else child.recipe

    def _replicas(self, name: str) -> list[str]:
        """A child, or every replica of an entry; empty when there is neither."""
        ids = [status.id for status in self._tree.status()]
        if name in ids:
            return [name]
        return [id_ for id_ in ids if id_.rpartition("/")[0] == name and _is_number(id_)]

    def _full_name(self, name: str) -> str:
        """`router` for `router/0`, when it is the only one."""
        ids = {status.id for status in self._tree.status()}
        if name in ids or f"{name}/0" not in ids or f"{name}/1" in ids:
            return name
        return f"{name}/0"

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
        self._save_if_changed()

    def _execute(self, action: tree.Action) -> None:
        match action:
            case tree.Start(child, run, spec):
                self._start(child, run, spec)
            case tree.Drain(child, run):
                self._vigil.forget(child)
                self._drain(child, run)
            case tree.Stop(child):
                self._vigil.forget(child)
                self._stop(self._children[child])
            case tree.Kill(child):
                self._vigil.forget(child)
                self._children[child].kill()
            case tree.SetTimer(key, at):
                self._timers[key] = self._loop.call_at(at, self._timer, key)
            case tree.CancelTimer(key):
                self._timers.pop(key).cancel()
            case tree.Report():
                self._report(action)
            case tree.Reply():
                self._reply(action)
            case tree.Gone():
                self._gone.set_result(action)

    def _drain(self, child: str, run: int) -> None:
        if self._hurried:
            self._feed(tree.Drained(child, run))
        else:
            self._children[child].drain()

    def _reply(self, reply: tree.Reply) -> None:
        assert isinstance(reply.ref, int), "all refs are ours"
        waiting = self._replies.pop(reply.ref)
        if not waiting.done():  # the caller may have hung up
            waiting.set_result(reply.result)

    def _timer(self, key: str) -> None:
        del self._timers[key]
        self._feed(tree.Timer(key))

    def _report(self, report: tree.Report) -> None:
        reason = "" if report.reason is None else describe(report.reason)
        late = report.reason is not None and report.reason.cause == tree.KILLED
        if report.kind is tree.ReportKind.START_ERROR and late:
            # Only our own kill is KILLED without any detail: its deadline was over.
            path = str(self._layout.log(report.id))
            self._tell(events.ChildNotReady(id=report.id, reason=reason, log=path))
        elif report.kind is tree.ReportKind.GAVE_UP:
            self._tell(events.ChildGivenUp(id=report.id, reason=reason))
        elif report.kind is tree.ReportKind.PROGRESS and report.id == ROOT:
            urls, models = urls_and_models(self._children.values())
            took = self._loop.time() - self._booted_at
            self._tell(events.Serving(took_s=took, urls=urls, models=models, web=self.web))

    # -- children --------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Watch what is adopted from now on; the tree's orders to start it follow."""
        recipes = dict(leaves(self._plan.tree))
        for name, running in self._adoption.taken.items():
            child = self._make_child(name, running.run, recipes[name])
            try:
                child.adopt(running)
            except OSError:
                continue  # it has ended meanwhile, and is started like anything that has
            self._unclaimed[name] = child
            self._gpus.keep(name, running.granted.get(GPU_VARIABLE, "").split(","))
            if running.incarnations or child.recipe.probe is not None:
                # It was ready. Otherwise it may still be loading, with its start's deadline.
                self._vigil.watch(name, child.recipe.watchdog, grace_s=ADOPTION_GRACE_S)

    def _start(self, name: str, run: int, spec: tree.ChildSpec) -> None:
        child = self._unclaimed.pop(name, None)
        if child is None:
            self._launch(name, run, spec.data)
            return
        assert child.process is not None, "it was taken over with one"
        child.run = run
        self._children[name] = child
        self._changed = True
        self._tell(events.ChildAdopted(id=name, run=run, pid=child.process.pid))
        if child.prepared:
            self._ready(child)

    def _make_child(self, name: str, run: int, recipe: Recipe) -> Child:
        return Child(
            name,
            run,
            recipe,
            self._layout,
            on_process=self._born,
            on_ready=self._ready,
            on_alive=self._alive,
            on_exit=self._exited,
        )

    def _launch(self, name: str, run: int, recipe: Recipe) -> None:
        child = self._make_child(name, run, recipe)
        try:
            child.start(self._above, self._zygote_for(child), self._grant(name, child.recipe))
        except OSError as error:
            self._over(child, tree.Reason(tree.Kind.ABNORMAL, f"cannot be started: {error}"))
            return
        self._children[name] = child
        if child.process is not None:
            self._born(child)

    def _grant(self, name: str, recipe: Recipe) -> dict[str, str]:
        """What this run alone has in its environment. Raises NoGpusError."""
        if recipe.gpus is None:
            return {}
        return {GPU_VARIABLE: ",".join(self._gpus.grant(name, recipe.gpus))}

    def _zygote_for(self, child: Child) -> Zygote | None:
        name = child.recipe.zygote
        parent = None if name is None else self._children.get(name)
        return None if parent is None else parent.zygote

    def _born(self, child: Child) -> None:
        assert child.process is not None, "it has just been started"
        try:
            impose(child.recipe.limits, child.process.pid)
        except LimitError as error:
            child.fail(str(error))
        self._changed = True
        self._tell(events.ChildStarting(id=child.id, run=child.run, pid=child.process.pid))
        # At once, not when the step is done: a successor can only take over what it can read of.
        self._save_if_changed()

    def _ready(self, child: Child) -> None:
        self._above |= child.incarnations
        if self._children.get(child.id) is not child:
            return  # taken over, but not asked for yet; or it has ended just now
        # A node says so again after reconnecting.
        first = self._tree.which_child(child.id).state is tree.State.STARTING
        self._changed = True
        if child.id == NATS:
            self._departures.open()
        if first and not child.asked:
            now = self._loop.time()
            ended_at = self._ended_at.pop(child.id, None)
            self._tell(
                events.ChildReady(
                    id=child.id,
                    run=child.run,
                    took_s=now - child.started_at,
                    down_s=None if ended_at is None else now - ended_at,
                )
            )
        if not child.asked and not self._vigil.watches(child.id):
            self._vigil.watch(child.id, child.recipe.watchdog)
        self._feed(tree.Ready(child.id, child.run))

    def _alive(self, child: Child) -> None:
        self._vigil.hear(child.id, child.beat)

    def _condemn(self, name: str, reason: str) -> None:
        child = self._find(name)
        if child is not None:
            child.condemn(reason)

    def _find(self, name: str) -> Child | None:
        return self._children.get(name) or self._unclaimed.get(name)

    def _stop(self, child: Child) -> None:
        if child.id == NATS:
            # The departures of those that have just ended go out before it does.
            self._departures.close(then=child.stop)
        else:
            child.stop()

    def _exited(self, child: Child, reason: tree.Reason) -> None:
        self._vigil.forget(child.id)
        if self._unclaimed.get(child.id) is child:
            del self._unclaimed[child.id]
            self._tell_end(child, reason)
            return  # when the tree asks for it, it is started
        del self._children[child.id]
        if child.adopted and not child.prepared and not child.asked:
            # To take it over was one try at the start that the tree waits for. This is another.
            self._tell_end(child, reason)
            self._launch(child.id, child.run, child.recipe)
            return
        self._over(child, reason)

    def _over(self, child: Child, reason: tree.Reason) -> None:
        self._tell_end(child, reason)
        self._feed(tree.Exited(child.id, child.run, reason))

    def _tell_end(self, child: Child, reason: tree.Reason) -> None:
        self._changed = True
        self._gpus.free(child.id)
        self._ended_at.setdefault(child.id, self._loop.time())
        lives = (Address.parse(f"{name}#{life}") for name, life in child.incarnations.items())
        self._departures.publish(lives, str(reason))
        expected = reason.expected or reason == tree.KILLED
        if not reason.expected:
            self._falls[child.id] = Fall(self._loop.time(), child.tail())
        self._tell(
            events.ChildEnded(
                id=child.id,
                run=child.run,
                reason=describe(reason),
                expected=expected,
                log=str(child.log),
                tail=() if expected else child.tail(),
            )
        )

    # -- telling and writing down ----------------------------------------------------------------

    def _tell(self, event: events.Event) -> None:
        event = msgspec.structs.replace(event, at=time.time())
        for listener in list(self._listeners):
            try:
                listener(event)
            except OSError:
                # A terminal that was closed, a pipe nobody reads: the tree goes on without it.
                self._listeners.remove(listener)

    def _conclude(self, gone: tree.Gone) -> events.Stopped:
        child = culprit(gone.reason)
        path: Path | None = self._layout.log(child) if child else None
        stopped = events.Stopped(
            exit_code=gone.exit_code,
            reason=describe(gone.reason),
            child=child,
            log=str(path) if path is not None and path.exists() else "",
        )
        self._tell(stopped)
        return stopped

    def _save_if_changed(self) -> None:
        if self._changed:
            self._changed = False
            self._save()

    def _save(self) -> None:
        order = [status.id for status in self._tree.status()]
        children = [*self._children.values(), *self._unclaimed.values()]
        running = sorted(children, key=lambda child: order.index(child.id))
        state = RunState(
            supervisor=self._holder,
            ports=self._plan.ports,
            etcd_peer_port=self._plan.etcd_peer_port,
            nats_token=self._plan.nats.token if self._is_embedded(NATS) else None,
            children=tuple(_running(child) for child in running if child.process is not None),
            above=self._above,
        )
        try:
            write_run_state(self._layout.run, state)
        except OSError as error:
            # A full disk is no reason to stop looking after what runs.
            log.error("run_state_not_written", error=str(error))  # noqa: TRY400 - no traceback

    def _known_pids(self) -> set[int] | None:
        children = self._children.values()
        if any(child.zygote is not None and child.zygote.forking for child in children):
            return None
        return {child.process.pid for child in children if child.process is not None}

    def _is_embedded(self, server: str) -> bool:
        return server in self._plan.ports


def _answer(results: Sequence[tree.Done | tree.Refused]) -> Answer:
    refused = [refusal_text(result) for result in results if isinstance(result, tree.Refused)]
    return Denied(why="; ".join(refused)) if refused else Accepted()


def _is_number(id_: str) -> bool:
    return id_.rpartition("/")[2].isdecimal()


def _running(child: Child) -> RunningChild:
    assert child.process is not None, "only started children are kept"
    return RunningChild(
        name=child.id,
        pid=child.process.pid,
        pid_started=child.process.started,
        run=child.run_told,
        server=child.is_server,
        incarnations=child.incarnations,
        identity="" if child.recipe.image is not None else identity(child.recipe),
        granted=child.granted,
    )
