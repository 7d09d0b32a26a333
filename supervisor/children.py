"""The processes of a tree: brought into being, watched, and told of when they end.

What the tree decides comes in by `start`, `drain`, `stop` and `kill`; what becomes of it goes back
as events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from actors.runtime.address import Address
from supervisor import events, tree
from supervisor.adoption import Adoption
from supervisor.casting import Casting
from supervisor.child import Child
from supervisor.departures import Departures
from supervisor.gpus import GPU_VARIABLE, Gpus
from supervisor.launchers.world import World
from supervisor.launchers.zygote import Zygote
from supervisor.layout import Layout
from supervisor.plane import NATS
from supervisor.recipe import Recipe, part
from supervisor.record import Record
from supervisor.report import Fall, describe
from supervisor.resources import LimitError, impose
from supervisor.takeover import ADOPTION_GRACE_S, Unclaimed
from supervisor.vigil import Vigil


class Children:
    """All processes of one supervisor, the servers and zygotes included."""

    def __init__(
        self,
        layout: Layout,
        gpus: Gpus,
        departures: Departures,
        record: Record,
        adopted: Adoption,
        *,
        feed: Callable[[tree.Event], None],
        tell: Callable[[events.Event], None],
        is_starting: Callable[[str], bool],
    ) -> None:
        """`feed` is for the tree and `tell` for people; `is_starting`: whether the tree waits for
        this child to be ready."""
        self.running: dict[str, Child] = {}
        """By id; those with a process, or with one on its way."""
        self.above: dict[str, int] = dict(adopted.above)
        """By actor name: the last incarnation known."""
        self.falls: dict[str, Fall] = {}
        """By id: its last end that was not asked for."""
        self._ended_at: dict[str, float] = {}
        """By id: when it ended, until it is ready again, however many tries that takes."""
        self._layout = layout
        self._gpus = gpus
        self._departures = departures
        self._record = record
        self._feed = feed
        self._tell = tell
        self._is_starting = is_starting
        self._vigil = Vigil(self._condemn)
        self.unclaimed = Unclaimed(adopted, gpus, self._vigil)
        self._casting = Casting(lost.name for lost in adopted.lost)
        self._loop = asyncio.get_running_loop()

    def take_over(self, recipes: Mapping[str, Recipe]) -> None:
        """Watch what is adopted. `recipes`: by id, of everything in the tree."""
        self.unclaimed.take_over(recipes, self._make)
        for child in self.unclaimed.all():
            if child.standby and child.prepared:
                self._casting.comes(child.id, part(child.recipe))
                self._casting.rehearsed(child.id)

    def called(self, name: str, run: int) -> Child | None:
        """The child whose process may call itself so."""
        return next((child for child in self.all() if child.is_called(name, run)), None)

    def find(self, name: str) -> Child | None:
        """One that the tree has asked for, or not yet."""
        return self.running.get(name) or self.unclaimed.get(name)

    def all(self) -> list[Child]:
        """The same, every one."""
        return [*self.running.values(), *self.unclaimed.all()]

    def known_pids(self) -> set[int] | None:
        """Of those that the tree has asked for; None while a node may just be coming into being."""
        children = self.running.values()
        if any(child.zygote is not None and child.zygote.forking for child in children):
            return None
        return {child.process.pid for child in children if child.process is not None}

    def close(self) -> None:
        """Nobody is watched any more."""
        self._vigil.close()

    # -- orders ----------------------------------------------------------------------------------

    def start(self, name: str, run: int, recipe: Recipe) -> None:
        """Start a child; one that was taken over runs already, and one that fell may have an
        understudy."""
        child = self.unclaimed.claim(name)
        if child is None:
            understudy = self._casting.step_in(name, part(recipe))
            if understudy is None:
                self._launch(name, run, recipe)
            else:
                self._promote(understudy, name, run, recipe)
            return
        assert child.process is not None, "it was taken over with one"
        child.run = run
        self.running[name] = child
        self._record.note()
        self._tell(events.ChildAdopted(id=name, run=run, pid=child.process.pid))
        if child.prepared:
            self._ready(child)

    def drain(self, name: str) -> None:
        self._told_to_leave(name)
        if name in self.running:  # or it has just become another
            self.running[name].drain()

    def stop(self, name: str) -> None:
        self._told_to_leave(name)
        child = self.running.get(name)
        if child is None:
            return  # it has just become another
        if name == NATS:
            # The departures of those that have just ended go out before it does.
            self._departures.close(then=child.stop)
        else:
            child.stop()

    def kill(self, name: str) -> None:
        self._told_to_leave(name)
        if name in self.running:
            self.running[name].kill()

    def _told_to_leave(self, name: str) -> None:
        self._vigil.forget(name)
        self._casting.leaves(name)

    def _make(self, name: str, run: int, recipe: Recipe) -> Child:
        return Child(
            name,
            run,
            recipe,
            self._layout,
            on_process=self._born,
            on_link=self._linked,
            on_ready=self._ready,
            on_alive=self._alive,
            on_exit=self._exited,
        )

    def _launch(self, name: str, run: int, recipe: Recipe) -> None:
        child = self._make(name, run, recipe)
        try:
            child.start(self.above, self._zygote_for(child), self._grant(name, child.recipe))
        except OSError as error:
            self._over(child, tree.Reason(tree.Kind.ABNORMAL, f"cannot be started: {error}"))
            return
        self.running[name] = child
        if child.process is not None:
            self._born(child)

    def _promote(self, understudy: str, name: str, run: int, recipe: Recipe) -> None:
        """Answer the start of a child with the process of its understudy."""
        child = self.running.pop(understudy, None)
        was_running = child is not None
        if child is None:
            child = self.unclaimed.claim(understudy)
        assert child is not None, "only those here are cast"
        assert child.process is not None, "it has been spoken to"
        was_loaded, former_run = child.prepared, child.run
        self._vigil.forget(understudy)
        self._gpus.hand_over(understudy, name)
        child.promote(name, run, recipe, self.above)
        self.running[name] = child
        if was_loaded:
            # What is frozen must not be waited for until the deadline of a start.
            grace_s = 0.0 if child.is_linked else ADOPTION_GRACE_S
            self._vigil.watch(name, recipe.watchdog, grace_s=grace_s)
        # Written down before it is said: a successor must know whom it takes over.
        self._record.note()
        self._record.save_if_changed()
        child.send_promotion()
        self._tell(
            events.ChildPromoted(id=name, run=run, pid=child.process.pid, understudy=understudy)
        )
        if was_running:
            self._feed(tree.Promoted(understudy, former_run))

    def _grant(self, name: str, recipe: Recipe) -> dict[str, str]:
        """What this run alone has in its environment. Raises NoGpusError."""
        if recipe.gpus is None:
            return {}
        return {GPU_VARIABLE: ",".join(self._gpus.grant(name, recipe.gpus))}

    def _zygote_for(self, child: Child) -> Zygote | World | None:
        name = child.recipe.zygote
        parent = None if name is None else self.running.get(name)
        return None if parent is None else parent.zygote

    # -- what becomes of them --------------------------------------------------------------------

    def _born(self, child: Child) -> None:
        assert child.process is not None, "it has just been started"
        try:
            impose(child.recipe.limits, child.process.pid)
        except LimitError as error:
            child.fail(str(error))
        self._record.note()
        self._tell(events.ChildStarting(id=child.id, run=child.run, pid=child.process.pid))
        # At once, not when the step is done: a successor can only take over what it can read of.
        self._record.save_if_changed()

    def _linked(self, child: Child) -> None:
        if child.standby and not child.asked and not child.prepared:
            self._casting.comes(child.id, part(child.recipe))

    def _ready(self, child: Child) -> None:
        if child.standby and not child.asked:
            self._casting.rehearsed(child.id)
        self.above |= child.incarnations
        if self.running.get(child.id) is not child:
            return  # taken over, but not asked for yet; or it has ended just now
        # A node says so again after reconnecting.
        first = self._is_starting(child.id)
        self._record.note()
        if child.id == NATS:
            self._departures.open()
        if first and not child.asked:
            # Before anybody is told: a successor must not take it for one that is still loading.
            self._record.save_if_changed()
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
        child = self.find(name)
        if child is not None:
            child.condemn(reason)

    def _exited(self, child: Child, reason: tree.Reason) -> None:
        self._vigil.forget(child.id)
        if self.unclaimed.drop(child):
            self._tell_end(child, reason)
            return  # when the tree asks for it, it is started
        del self.running[child.id]
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
        self._record.note()
        self._casting.ended(child.id, fell=not (child.asked and child.prepared))
        self._gpus.free(child.id)
        self._ended_at.setdefault(child.id, self._loop.time())
        lives = (Address.parse(f"{name}#{life}") for name, life in child.incarnations.items())
        self._departures.publish(lives, str(reason))
        expected = reason.expected or reason == tree.KILLED
        if not reason.expected:
            self.falls[child.id] = Fall(self._loop.time(), child.tail())
        self._tell(
            events.ChildEnded(
                id=child.id,
                run=child.run,
                reason=describe(reason),
                cause="watchdog" if child.condemned else reason.origin.kind.value,
                expected=expected,
                log=str(child.log),
                tail=() if expected else child.tail(),
            )
        )
