"""The tree against an independent model of OTP, and against its own promises under chaos."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec.structs import replace

from supervisor.tree import (
    NORMAL,
    SHUTDOWN,
    AutoShutdown,
    ChildSpec,
    DeleteChild,
    Drained,
    Exited,
    Ignored,
    Kill,
    Ready,
    Reason,
    Reconfigure,
    RestartChild,
    Scale,
    Start,
    StartChild,
    State,
    Stop,
    Strategy,
    SupervisorSpec,
    TerminateChild,
)
from tests.supervisor.otp_model import Actor, OtpModel
from tests.supervisor.specs import otp_trees, trees, worker
from tests.supervisor.stage import BOOM, Opening, Script, Stage

QUICK = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
REASONS = st.sampled_from([NORMAL, SHUTDOWN, BOOM, BOOM])


class FailingStage(Stage):
    """Its children fail to start as often as they are told to."""

    def __init__(self, spec: SupervisorSpec) -> None:
        super().__init__(spec)
        self.failing: Counter[str] = Counter()

    def _open(self, name: str, run: int) -> None:
        if self.failing[name]:
            self.failing[name] -= 1
            self._inbox.append(Exited(name, run, BOOM))
        else:
            super()._open(name, run)


class LikeOtp(RuleBasedStateMachine):
    """Where OTP has an opinion, the tree starts and stops the same children in the same order."""

    @initialize(spec=otp_trees(), failing=st.none() | st.integers(1, 8))
    def boot(self, spec: SupervisorSpec, failing: int | None) -> None:
        self.stage = FailingStage(spec)
        self.model = OtpModel(spec)
        if failing is not None:
            self.model.failing[f"c{failing}"] = self.stage.failing[f"c{failing}"] = 1
        self.model.now = self.stage.now
        self.added = 0
        self.ref = 0
        self.model.start(self.model.root)
        self.stage.boot()

    def _pick(self, data: st.DataObject, actors: list[Actor]) -> Actor:
        assume(actors)
        return data.draw(st.sampled_from(actors), label="actor")

    def _children(self) -> list[Actor]:
        """Everything that a command may name: children of supervisors that are up."""
        found = self.model.root.walk()
        return [actor for actor in found if actor.parent is not None and actor.parent.up]

    def _next_ref(self) -> int:
        self.ref += 1
        return self.ref

    @rule(data=st.data(), reason=REASONS)
    def a_child_dies(self, data: st.DataObject, reason: Reason) -> None:
        up = [one for one in self._children() if one.up and isinstance(one.spec, ChildSpec)]
        actor = self._pick(data, up)
        self.model.handle_exit(actor, expected=reason.expected)
        self.stage.die(actor.spec.id, reason)

    @rule(data=st.data(), times=st.integers(1, 3))
    def the_next_starts_will_fail(self, data: st.DataObject, times: int) -> None:
        found = list(self.model.root.walk())
        actor = self._pick(data, [one for one in found if isinstance(one.spec, ChildSpec)])
        self.model.failing[actor.spec.id] += times
        self.stage.failing[actor.spec.id] += times

    @rule(seconds=st.sampled_from([0.5, 1.0, 1.25, 5.0, 5.25]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds
        self.stage.advance(seconds)

    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        actor = self._pick(data, self._children())
        self.model.terminate(actor)
        self.stage.call(TerminateChild(self._next_ref(), actor.spec.id))

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        down = [one for one in self._children() if not one.up and not one.boss.sup.dynamic]
        actor = self._pick(data, down)
        self.model.start(actor)
        self.stage.call(RestartChild(self._next_ref(), actor.spec.id))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        down = [one for one in self._children() if not one.up and not one.boss.sup.dynamic]
        actor = self._pick(data, down)
        self.model.delete(actor)
        self.stage.call(DeleteChild(self._next_ref(), actor.spec.id))

    @rule(data=st.data())
    def start_child(self, data: st.DataObject) -> None:
        found = [one for one in self.model.root.walk() if not isinstance(one.spec, ChildSpec)]
        sup = self._pick(data, [one for one in found if one.up])
        if sup.sup.dynamic:
            taken = {child.spec.id for child in sup.children}
            spec = next(one for k in range(99) if (one := sup.sup.instance(k)).id not in taken)
        else:
            self.added += 1
            spec = data.draw(_workers(f"a{self.added}", sup.sup.auto_shutdown), label="spec")
        self.model.add(sup, spec)
        given = None if sup.sup.dynamic else spec
        self.stage.call(StartChild(self._next_ref(), sup.spec.id, given))

    @invariant()
    def agree(self) -> None:
        """Same starts, same stops, same order; the same are up."""
        if not hasattr(self, "stage"):
            return
        self.stage.advance()
        trace: list[tuple[str, str]] = []
        for action in self.stage.log:
            if isinstance(action, Start):
                trace.append(("start", action.id))
            elif isinstance(action, (Stop, Kill)):
                trace.append(("stop", action.id))
        assert trace == self.model.trace
        up = {one.spec.id for one in self.model.root.walk() if one.up}
        ours = {one.id for one in self.stage.tree.status() if one.state is State.RUNNING}
        assert ours == up
        assert self.stage.ended() == (not self.model.root.up)
        assert len(self.stage.replies) == self.ref

    def teardown(self) -> None:
        if hasattr(self, "stage") and not self.stage.broken and not self.stage.ended():
            self.stage.shut_down()
            assert self.stage.ended()


@st.composite
def _workers(draw: st.DrawFn, name: str, above: AutoShutdown) -> ChildSpec:
    return worker(draw, name, above, ours=False)


class Chaos(RuleBasedStateMachine):
    """Whatever happens, in whatever order: `Stage` finds no broken promise, every command is
    answered, a tree left in peace comes to rest, and a shutdown ends it."""

    @initialize(spec=trees())
    def boot(self, spec: SupervisorSpec) -> None:
        self.stage = Stage(spec)
        self.ref = 0
        self.added = 0
        self.stage.boot()

    def _draw_id(self, data: st.DataObject) -> str:
        names = [one.id for one in self.stage.tree.status()]
        return data.draw(st.sampled_from(names), label="id")

    def _next_ref(self) -> int:
        self.ref += 1
        return self.ref

    @rule(
        data=st.data(),
        starts=st.lists(
            st.sampled_from(["ready", "ready", "ignore", "hang", BOOM, NORMAL]), min_size=1
        ),
        on_stop=st.sampled_from([SHUTDOWN, SHUTDOWN, NORMAL, BOOM, None]),
        takes=st.sampled_from([0.0, 0.5, 3.0]),
        drains=st.booleans(),
    )
    def rewrite_a_script(
        self,
        data: st.DataObject,
        starts: list[Opening],
        on_stop: Reason | None,
        takes: float,
        drains: bool,
    ) -> None:
        script = Script(starts=starts, on_stop=on_stop, stop_takes_s=takes, drains=drains)
        self.stage.scripts[self._draw_id(data)] = script

    @rule(data=st.data(), reason=REASONS)
    def a_child_dies(self, data: st.DataObject, reason: Reason) -> None:
        assume(self.stage.live)
        self.stage.die(data.draw(st.sampled_from(sorted(self.stage.live))), reason)

    @rule(data=st.data())
    def a_child_is_promoted(self, data: st.DataObject) -> None:
        assume(self.stage.live)
        self.stage.promote(data.draw(st.sampled_from(sorted(self.stage.live))))

    @rule(data=st.data(), late=st.booleans())
    def a_child_speaks(self, data: st.DataObject, late: bool) -> None:
        name = self._draw_id(data)
        run = self.stage.live.get(name, 0) - late
        event = data.draw(st.sampled_from([Ready, Ignored, Drained]))
        self.stage.send(event(name, run))

    @rule(data=st.data())
    def a_stranger_dies(self, data: st.DataObject) -> None:
        name = self._draw_id(data)
        stale = Exited(name, self.stage.live.get(name, 1) - 1, BOOM)
        assert self.stage.tree.step(stale, self.stage.now) == []

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.stage.advance(seconds)

    @rule(data=st.data(), what=st.sampled_from([TerminateChild, RestartChild, DeleteChild]))
    def command(
        self,
        data: st.DataObject,
        what: type[TerminateChild | RestartChild | DeleteChild],
    ) -> None:
        self.stage.call(what(self._next_ref(), self._draw_id(data)))

    @rule(data=st.data())
    def force_restart(self, data: st.DataObject) -> None:
        self.stage.call(RestartChild(self._next_ref(), self._draw_id(data), force=True))

    @rule(data=st.data())
    def start_child(self, data: st.DataObject) -> None:
        spec = data.draw(st.none() | trees() | _any_worker(f"a{self.added}"), label="spec")
        self.added += 1
        if isinstance(spec, SupervisorSpec):
            spec = _renamed(spec, f"a{self.added}")
        self.stage.call(StartChild(self._next_ref(), self._draw_id(data), spec))

    @rule(data=st.data(), count=st.integers(0, 4))
    def scale(self, data: st.DataObject, count: int) -> None:
        self.stage.call(Scale(self._next_ref(), self._draw_id(data), count))

    @rule(data=st.data(), intensity=st.integers(0, 50), strategy=st.sampled_from(Strategy))
    def reconfigure(self, data: st.DataObject, intensity: int, strategy: Strategy) -> None:
        spec = self.stage.tree.child_spec(self._draw_id(data))
        assume(isinstance(spec, SupervisorSpec))
        assert isinstance(spec, SupervisorSpec)
        changed = replace(
            spec,
            intensity=intensity,
            strategy=strategy,
            children=spec.children[1:] + spec.children[:1],
        )
        self.stage.call(Reconfigure(self._next_ref(), changed))

    @precondition(lambda self: not self.stage.ended())
    @rule(force=st.booleans())
    def shut_down(self, force: bool) -> None:
        # Rarely, or most runs would end here.
        assume(self.ref % 4 == 3)
        self.stage.shut_down(force=force)

    def teardown(self) -> None:
        if not hasattr(self, "stage") or self.stage.broken:
            return
        self._leave_in_peace()
        self._assert_at_rest()
        self.stage.shut_down()
        self.stage.advance(1000)
        assert self.stage.ended()
        assert self.stage.replies.keys() == set(range(1, self.ref + 1))

    def _leave_in_peace(self) -> None:
        """From now on every child behaves, and those left hanging come up."""
        self.stage.scripts.clear()
        for _ in range(3):
            for name in list(self.stage.live):
                if self.stage.child(name).state is State.STARTING:
                    self.stage.ready(name)
            for one in self.stage.tree.status():
                if one.state is State.STOPPING and one.id in self.stage.live:
                    # It may wait for ever by its spec: a deaf child would, too.
                    self.stage.die(one.id, SHUTDOWN)
            self.stage.advance(1000)

    def _assert_at_rest(self) -> None:
        """Everything under a running supervisor is up, or down for good."""
        found = {one.id: one for one in self.stage.tree.status()}
        rest = {State.RUNNING, State.STOPPED, State.FAILED}
        for one in found.values():
            above = found.get(one.supervisor)
            if above is None or above.state is State.RUNNING:
                assert one.state in rest, one
            else:
                assert one.id not in self.stage.live, one


@st.composite
def _any_worker(draw: st.DrawFn, name: str) -> ChildSpec:
    return worker(draw, name, AutoShutdown.NEVER, ours=True)


def _renamed(spec: SupervisorSpec, prefix: str) -> SupervisorSpec:
    """The same tree under ids that are free."""
    return replace(
        spec,
        id=f"{prefix}-{spec.id}",
        template=spec.template and replace(spec.template, id=f"{prefix}-{spec.template.id}"),
        children=tuple(
            _renamed(child, prefix)
            if isinstance(child, SupervisorSpec)
            else replace(child, id=f"{prefix}-{child.id}")
            for child in spec.children
        ),
    )


TestLikeOtp = LikeOtp.TestCase
TestLikeOtp.settings = QUICK
TestChaos = Chaos.TestCase
TestChaos.settings = QUICK
