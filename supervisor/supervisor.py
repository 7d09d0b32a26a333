"""The shell around the pure tree: executes what it decides, and tells it what happened.

Every event goes through `_feed`, one at a time and without an await, so the tree sees them in the
order in which they happened and no decision is taken on a state that is about to change.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

from actors.runtime.address import Address
from actors.runtime.link import Hello
from supervisor import events, tree
from supervisor.calls import Accepted, Answer, Denied, Status
from supervisor.child import Child
from supervisor.control import Control
from supervisor.departures import Departures
from supervisor.launchers.zygote import Zygote, become_subreaper
from supervisor.layout import Layout
from supervisor.plan import ROOT, Plan
from supervisor.report import culprit, describe, make_status, urls_and_models
from supervisor.runstate import Holder, RunningChild, RunState, write_run_state
from supervisor.strays import Strays

NATS = "nats"
log = structlog.get_logger("supervisor")
Listener = Callable[[events.Event], None]


class Supervisor:
    """Runs one plan, once. Whoever makes it holds the namespace's lock and has made the layout."""

    def __init__(
        self, plan: Plan, layout: Layout, holder: Holder, *, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self._plan = plan
        self._layout = layout
        self._holder = holder
        self._tree = tree.Tree(plan.tree, seed=holder.pid)
        self._control = Control(layout.socket, self)
        self._strays = Strays(self._known_pids)
        self._departures = Departures(plan.namespace, plan.nats)
        self._listeners = [*listeners, self._control.tell]
        self._children: dict[str, Child] = {}
        """By id; those with a process."""
        self._above: dict[str, int] = {}
        """By actor name: the last incarnation known."""
        self._ended_at: dict[str, float] = {}
        """By id: when it ended, until it is ready again, however many tries that takes."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._replies: dict[int, asyncio.Future[tree.Done | tree.Refused]] = {}
        self._commands = 0
        self._waiting: deque[tree.Event] = deque()
        self._stepping = False
        self._changed = False
        self._loop = asyncio.get_running_loop()
        self._booted_at = self._loop.time()
        self._gone: asyncio.Future[tree.Gone] = self._loop.create_future()

    async def run(self) -> events.Stopped:
        """Start everything; return when all has ended, by order or because the tree gave up.

        Raises OSError when the socket cannot be opened. Cancelled, it kills every child first.
        """
        # What a zygote forks is ours, and so is what a dead node leaves behind.
        become_subreaper()
        self._strays.open()
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
            return self._conclude(gone)
        finally:
            self._strays.close()
            await self._departures.wait_closed()
            await self._control.close()
            self._layout.run.unlink(missing_ok=True)

    # -- asked by the console and by calls -------------------------------------------------------

    def stop(self, *, force: bool = False) -> None:
        """Stop everything in reverse order; with `force`, kill everything at once."""
        if not self._tree.gone:
            self._tell(events.Stopping(force=force))
            self._feed(tree.Shutdown(force=force))

    async def restart(self, child: str) -> Answer:
        """Stop a child and start it again; return when it is ready, or refused."""
        self._commands += 1
        reply: asyncio.Future[tree.Done | tree.Refused] = self._loop.create_future()
        self._replies[self._commands] = reply
        self._feed(tree.RestartChild(self._commands, self._full_name(child), force=True))
        result = await reply
        if isinstance(result, tree.Done):
            return Accepted()
        why = describe(result.reason) if result.reason else result.detail
        text = result.why.value.replace("_", " ")
        return Denied(why=f"{child}: {text}{': ' if why else ''}{why}")

    def status(self) -> Status:
        """Everything as it is now."""
        nodes, now = self._tree.status(), self._loop.time()
        return make_status(self._plan, self._holder, self._layout, nodes, self._children, now)

    def find(self, hello: Hello) -> Child | None:
        """The child whose process is calling; None when it is none of ours."""
        child = self._children.get(hello.node)
        if child is None or child.process is None:
            return None
        known = (child.run, child.process.pid, child.process.started)
        return child if known == (hello.run, hello.pid, hello.pid_started) else None

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
            case tree.Drain(child):
                self._children[child].drain()
            case tree.Stop(child):
                self._stop(self._children[child])
            case tree.Kill(child):
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
            self._tell(events.Serving(took_s=took, urls=urls, models=models))

    # -- children --------------------------------------------------------------------------------

    def _start(self, name: str, run: int, spec: tree.ChildSpec) -> None:
        child = Child(
            name,
            run,
            spec.data,
            self._layout,
            on_process=self._born,
            on_ready=self._ready,
            on_exit=self._exited,
        )
        try:
            child.start(self._above, self._zygote_for(child))
        except OSError as error:
            self._over(child, tree.Reason(tree.Kind.ABNORMAL, f"cannot be started: {error}"))
            return
        self._children[name] = child
        if child.process is not None:
            self._born(child)

    def _zygote_for(self, child: Child) -> Zygote | None:
        name = child.recipe.zygote
        parent = None if name is None else self._children.get(name)
        return None if parent is None else parent.zygote

    def _born(self, child: Child) -> None:
        assert child.process is not None, "it has just been started"
        self._changed = True
        self._tell(events.ChildStarting(id=child.id, run=child.run, pid=child.process.pid))
        if not self._stepping:
            self._save_if_changed()

    def _ready(self, child: Child) -> None:
        # A node says so again after reconnecting.
        first = self._tree.which_child(child.id).state is tree.State.STARTING
        self._above |= child.incarnations
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
        self._feed(tree.Ready(child.id, child.run))

    def _stop(self, child: Child) -> None:
        if child.id == NATS:
            # The departures of those that have just ended go out before it does.
            self._departures.close(then=child.stop)
        else:
            child.stop()

    def _exited(self, child: Child, reason: tree.Reason) -> None:
        del self._children[child.id]
        self._over(child, reason)

    def _over(self, child: Child, reason: tree.Reason) -> None:
        self._changed = True
        self._ended_at.setdefault(child.id, self._loop.time())
        lives = (Address.parse(f"{name}#{life}") for name, life in child.incarnations.items())
        self._departures.publish(lives, str(reason))
        expected = reason.expected or reason == tree.KILLED
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
        self._feed(tree.Exited(child.id, child.run, reason))

    # -- telling and writing down ----------------------------------------------------------------

    def _tell(self, event: events.Event) -> None:
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
        running = sorted(self._children.values(), key=lambda child: order.index(child.id))
        state = RunState(
            supervisor=self._holder,
            ports=self._plan.ports,
            children=tuple(_running(child) for child in running if child.process is not None),
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


def _running(child: Child) -> RunningChild:
    assert child.process is not None, "only started children are kept"
    return RunningChild(
        name=child.id,
        pid=child.process.pid,
        pid_started=child.process.started,
        run=child.run,
        server=child.is_server,
        incarnations=child.incarnations,
    )
