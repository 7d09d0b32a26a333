"""Carries the faults out, and ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.engines.simulated import SimulatedEngine
from actors.engines.simulated.faults import Fail, FailHandoff, Stall
from actors.worker.actor import Worker
from supervisor import tree
from tests.simulation.faults import Fault
from tests.simulation.loop import CURRENT, Proc

if TYPE_CHECKING:
    from tests.simulation.world import World

WATCH_LAG_S = 3.0


class Nemesis:
    """What is wrong with a world just now."""

    def __init__(self, world: World) -> None:
        self.fired: list[Fault] = []
        self.weather: list[Fault] = []
        self.waiting: dict[str, list[Fault]] = {}
        """By message kind: faults that strike at a certain one."""
        self.expected_deaths: set[Proc] = set()
        self._world = world
        self._stalled: set[Proc] = set()
        self._healed = False

    def schedule(self, faults: list[Fault]) -> None:
        """Have the faults strike, counted from now."""
        for fault in faults:
            if fault.on:
                self.waiting.setdefault(fault.on, []).append(fault)
            else:
                self._world.loop.call_later(fault.at, self._strike_named, fault)

    def _strike_named(self, fault: Fault) -> None:
        self.strike(fault, self._world.proc_of(fault.target) if fault.target else None)

    def strike(self, fault: Fault, proc: Proc | None) -> None:
        """Now, and this process if it is one that strikes a process."""
        world = self._world
        if self._healed or (fault.target and proc is None):
            return
        if proc is not None and (proc.dead or proc is world.loop.world):
            return
        if proc is not None and fault.what == "freeze" and proc.frozen:
            return
        world.trace(f"FAULT {fault} -> {proc or 'the plane'}")
        self.fired.append(fault)
        world.count(f"fault {fault.what}")
        if proc is None:
            self._strike_plane(fault)
            return
        self._note_phase(fault, proc)
        if fault.what in {"fetch-fails", "engine-fails", "engine-stalls"}:
            self._break_engine(fault, proc)
        else:
            self._strike_process(fault, proc)

    def _strike_process(self, fault: Fault, proc: Proc) -> None:
        world = self._world
        match fault.what:
            case "kill" if CURRENT.get(None) is proc:
                proc.doomed = True  # it is in the middle of something
            case "kill":
                proc.kill()
            case "freeze":
                proc.freeze()
                self._later(fault, proc.thaw)
            case "cut":
                transport = world.transport_of(proc)
                if transport is not None:
                    transport.set_cut("hold" if fault.how == "hold" else "lose")
                    self._later(fault, lambda: transport.set_cut("no"))
            case "etcd-away":
                world.etcd.unreachable.add(proc)
                self._later(fault, lambda: world.etcd.unreachable.discard(proc))
            case "restart" if world.supervisor is not None:
                world.supervisor.order(tree.RestartChild(ref=0, id=fault.target, force=True))
            case _:
                pass

    def _strike_plane(self, fault: Fault) -> None:
        world, etcd, nats = self._world, self._world.etcd, self._world.nats
        match fault.what:
            case "nats-stop":
                nats.stop()
                self._later(fault, nats.start)
            case "etcd-pause":
                etcd.pause()
                self._later(fault, etcd.start)
            case "etcd-stop" | "etcd-loss":
                etcd.stop()
                self._later(fault, lambda: etcd.start(empty=fault.what == "etcd-loss"))
            case "etcd-lag":
                etcd.watch_lag_s = WATCH_LAG_S
                self._later(fault, lambda: setattr(etcd, "watch_lag_s", 0.0))
            case "weather":
                self.weather.append(fault)
                self._later(fault, lambda: self.weather.remove(fault))
            case "supervisor-kill":
                if world.supervisor is not None and not world.supervisor.proc.dead:
                    world.supervisor.proc.kill()
                    self._later(fault, world.start_supervisor)
            case _:
                self._hurt_registry(fault)

    def _hurt_registry(self, fault: Fault) -> None:
        etcd, rng = self._world.etcd, self._world.rng
        match fault.what:
            case "etcd-compact":
                etcd.compact()
            case "lease-revoked" if etcd.leases():
                etcd.revoke(rng.choice(etcd.leases()))
            case "key-deleted" if etcd.keys:
                etcd.delete(rng.choice(sorted(etcd.keys)))
            case _:
                pass

    def _later(self, fault: Fault, act: Callable[[], object]) -> None:
        """The end of a fault that lasts; the general healing may come first."""
        loop = self._world.loop

        def end() -> None:
            if not self._healed:
                act()

        loop.call_later(fault.last_s, end, context=loop.world.context)

    def _break_engine(self, fault: Fault, proc: Proc) -> None:
        engine = self._world.engine_of(fault.target)
        if engine is None:
            return
        match fault.what:
            case "fetch-fails":
                next_one = engine._script._handoffs + 1
                engine._script._pending.append(FailHandoff(handoff=next_one))
            case "engine-fails":
                self.expected_deaths.add(proc)
                proc.post(engine._strike, Fail(step=1))
            case _:
                self.expected_deaths.add(proc)
                self._stalled.add(proc)
                proc.post(engine._strike, Stall(step=1))

    def _note_phase(self, fault: Fault, proc: Proc) -> None:
        """Count in which phase of a handoff a worker is struck."""
        node = self._world.nodes.get(proc)
        if node is None or fault.what not in {"kill", "freeze", "cut"}:
            return
        for cell in node.cells:
            if not isinstance(cell.actor, Worker):
                continue
            engine = cell.actor._engine
            assert isinstance(engine, SimulatedEngine), "every engine here is one"
            scheduler = engine._scheduler
            phases = {
                "computing a prompt": scheduler._prefilling,
                "keeping blocks": scheduler._kept,
                "fetching blocks": scheduler._fetching,
                "decoding": scheduler._decoding,
            }
            for phase, sequences in phases.items():
                if sequences:
                    self._world.count(f"{fault.what} while {phase}")

    def heal(self) -> None:
        """End every fault there is. Dead processes come back by themselves."""
        world = self._world
        world.trace("HEAL")
        self._healed = True
        self.waiting.clear()
        self.weather.clear()
        if not world.nats.up:
            world.nats.start()
        if not world.etcd.up or world.etcd.paused:
            world.etcd.start()
        world.etcd.unreachable.clear()
        world.etcd.watch_lag_s = 0.0
        for proc in tuple(world.loop.procs):
            if proc.frozen:
                proc.thaw()
            if proc in self._stalled:
                # With a watchdog it would have been killed long ago.
                proc.kill()
        for transport in tuple(world.nats.transports):
            transport.set_cut("no")
        if world.supervisor is not None and world.supervisor.proc.dead:
            world.start_supervisor()
