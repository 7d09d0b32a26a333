"""Carries changes out on the running tree, one at a time, and takes them back when a step fails.

Whether everything in a file is right is found out before anything is touched: the text, the
host's means, the actors' options, and the tree's own rules, in this order. A step that fails after
that, a process that does not start for instance, ends the change: the way back is planned from
what is there then, by the same rules, and taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from msgspec.structs import replace

from supervisor import events, tree
from supervisor.calls import Accepted, Answer, Denied, Proposal
from supervisor.change.difference import difference
from supervisor.change.items import render
from supervisor.change.rollout import rolling_restart, rollout
from supervisor.change.source import Planner, Source
from supervisor.change.stage import (
    Adopt,
    Bring,
    Dismiss,
    Place,
    Replace,
    Stage,
    StandIn,
    Step,
)
from supervisor.plan import ROOT, Plan
from supervisor.recipe import Recipe
from supervisor.report import describe
from supervisor.topology import Overrides, TopologyError
from supervisor.topology import render as render_error

log = structlog.get_logger("change")


class Owner(Protocol):
    """The supervisor, as far as changing it goes."""

    plan: Plan

    async def order(self, make: Callable[[int], tree.Command]) -> tree.Done | tree.Refused:
        """Have the tree carry out a command; return when it has."""
        ...

    def look(self) -> Sequence[tree.ChildStatus]: ...

    def spec_of(self, id_: str) -> tree.Spec: ...

    def recipe_in_use(self, id_: str) -> Recipe | None:
        """What the process of this child was started with; None when it has none now."""
        ...


class StepFailed(Exception):
    """The tree did not do what a step asked for."""


class Changes:
    """All changes of one supervisor. One is under way at a time; another is denied, not queued:
    it would have been decided on what is about to be different."""

    def __init__(
        self, owner: Owner, planner: Planner | None, tell: Callable[[events.Event], None]
    ) -> None:
        """Without a planner, nothing can be read again: only restarts and drains work."""
        self._owner = owner
        self._tell = tell
        self._planner = planner
        self._under_way: str | None = None
        self._reloading: asyncio.Task[None] | None = None

    # -- what can be asked for -------------------------------------------------------------------

    async def scale(self, name: str, replicas: int) -> Answer:
        """Have this many replicas of an entry; return when new ones are ready and old ones gone."""
        if self._planner is None:
            return Denied(why="this supervisor was not started from a file")
        source = self._planner.source.scaled(name, replicas)
        # The options are those that run already.
        return await self._go_to(f"scale {name} to {replicas}", source, check_actors=False)

    async def apply(
        self, path: Path, text: str, overrides: Overrides, *, dry_run: bool = False
    ) -> Answer:
        """Have what this text says, or with `dry_run` only tell the difference."""
        if self._planner is None:
            return Denied(why="this supervisor was not started from a file")
        source = self._planner.of(path, text, overrides)
        return await self._go_to(f"apply {path.name}", source, check_actors=True, dry_run=dry_run)

    def reload(self) -> None:
        """Apply the file that was last applied, as it is now. Without effect while it is under
        way; how it went is told by events."""
        if self._planner is not None and self._reloading is None:
            self._reloading = asyncio.get_running_loop().create_task(self._reload(), name="reload")

    async def rolling_restart(self, name: str, ids: Sequence[str]) -> Answer:
        """Replace processes by themselves, one at a time, each ready before the next."""
        what = f"rolling restart of {name}"
        if (busy := self._refusal()) is not None:
            return busy
        self._under_way = what
        try:
            return await self._carry_out(what, rolling_restart(self._stage(), ids), ())
        finally:
            self._under_way = None

    async def close(self) -> None:
        """End what `reload` has begun."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)

    # -- how it is done --------------------------------------------------------------------------

    async def _reload(self) -> None:
        assert self._planner is not None, "reload has looked"
        what = f"reload {self._planner.source.path.name}"
        try:
            answer = await self._go_to(what, self._planner.again(), check_actors=True)
        except TopologyError as error:
            answer = Denied(why=render_error(error))
        finally:
            self._reloading = None
        if isinstance(answer, Denied):
            self._tell(events.ChangeFailed(what=what, reason=answer.why, taken_back=True))

    async def _go_to(
        self, what: str, source: Source, *, check_actors: bool, dry_run: bool = False
    ) -> Answer:
        assert self._planner is not None, "the callers have looked"
        if (busy := self._refusal()) is not None:
            return busy
        self._under_way = what
        try:
            before = self._owner.plan
            plan = await self._planner.plan(before, source, check_actors=check_actors)
            tree.check(plan.tree)
            items = difference(before.tree, plan.tree)
            if dry_run:
                return Proposal(changes=items, lines=tuple(render(items)))
            steps = rollout(self._stage(), plan.tree)
            answer = await self._carry_out(what, steps, tuple(render(items)))
            if isinstance(answer, Accepted):
                self._owner.plan = plan
                self._planner.source = source
        except TopologyError as error:
            return Denied(why=render_error(error))
        except tree.SpecError as error:
            return Denied(why=str(error))
        else:
            return answer
        finally:
            self._under_way = None

    async def _carry_out(self, what: str, steps: Sequence[Step], lines: tuple[str, ...]) -> Answer:
        if not steps:
            return Accepted()
        started = asyncio.get_running_loop().time()
        origin = self._owner.plan.tree
        self._tell(events.ChangeStarted(what=what, steps=len(steps), difference=lines))
        try:
            await self._take(what, steps)
        except StepFailed as error:
            taken_back = await self._take_back(what, origin)
            failed = events.ChangeFailed(what=what, reason=str(error), taken_back=taken_back)
            self._tell(failed)
            after = "everything is as before" if taken_back else "it could not be taken back"
            return Denied(why=f"{error}; {after}")
        took = asyncio.get_running_loop().time() - started
        self._tell(events.ChangeDone(what=what, took_s=took))
        return Accepted()

    async def _take_back(self, what: str, origin: tree.SupervisorSpec) -> bool:
        if self._owner.look()[0].state is not tree.State.RUNNING:
            return False  # everything ends: that is why it failed
        try:
            await self._take(f"taking back: {what}", rollout(self._stage(), origin))
        except StepFailed as error:
            log.error("not_taken_back", what=what, reason=str(error))  # noqa: TRY400 - expected
            return False
        return True

    async def _take(self, what: str, steps: Sequence[Step]) -> None:
        for number, step in enumerate(steps, start=1):
            text = f"{what}: {describe_step(step)}"
            self._tell(events.ChangeStep(what=text, step=number, steps=len(steps)))
            await self._one(step)

    async def _one(self, step: Step) -> None:
        match step:
            case Adopt(adopted):
                await self._order(lambda ref: tree.Reconfigure(ref, adopted))
                self._owner.plan = replace(self._owner.plan, tree=adopted)
            case Bring(id_):
                # Its supervisor may have restarted just now, and have brought it itself.
                started = tree.Refusal.RUNNING
                await self._order(lambda ref: tree.RestartChild(ref, id_), also_fine=started)
            case StandIn(supervisor, spec):
                await self._order(lambda ref: tree.StartChild(ref, supervisor, spec))
            case Replace(id_):
                await self._order(lambda ref: tree.RestartChild(ref, id_, force=True))
            case Dismiss(id_):
                # A temporary child is forgotten when it ends, and a stand-in with its supervisor.
                gone = tree.Refusal.NOT_FOUND
                await self._order(lambda ref: tree.TerminateChild(ref, id_), also_fine=gone)
                await self._order(lambda ref: tree.DeleteChild(ref, id_), also_fine=gone)

    async def _order(
        self, make: Callable[[int], tree.Command], *, also_fine: tree.Refusal | None = None
    ) -> None:
        result = await self._owner.order(make)
        if isinstance(result, tree.Refused) and result.why is not also_fine:
            raise StepFailed(refusal_text(result))

    def _refusal(self) -> Denied | None:
        if self._under_way is not None:
            return Denied(why=f"a change is under way: {self._under_way}; try again after it")
        state = self._owner.look()[0].state
        if state is not tree.State.RUNNING:
            return Denied(why=f"the service is {state.value}: it can be changed when it is running")
        return None

    def _stage(self) -> Stage:
        """What is there now."""
        present: dict[str, Place] = {}
        running: dict[str, tree.ChildSpec] = {}
        for status in self._owner.look():
            present[status.id] = Place(status.supervisor, status.is_supervisor)
            spec = self._owner.spec_of(status.id)
            if not isinstance(spec, tree.ChildSpec) or status.state is tree.State.STOPPED:
                continue
            in_use = self._owner.recipe_in_use(status.id)
            running[status.id] = spec if in_use is None else replace(spec, data=in_use)
        adopted = self._owner.spec_of(ROOT)
        assert isinstance(adopted, tree.SupervisorSpec), "the root is a supervisor"
        return Stage(adopted, present, running)


def describe_step(step: Step) -> str:
    """A step in words."""
    match step:
        case Adopt():
            return "adopt the new settings"
        case Bring(id_):
            return f"start {id_}"
        case StandIn(_, spec):
            return f"start {spec.id} as a stand-in"
        case Replace(id_):
            return f"replace {id_}"
        case Dismiss(id_):
            return f"drain and stop {id_}"


def refusal_text(refused: tree.Refused) -> str:
    """Why the tree did not carry out a command."""
    why = describe(refused.reason) if refused.reason else refused.detail
    text = refused.why.value.replace("_", " ")
    return f"{refused.id}: {text}{': ' if why else ''}{why}"
