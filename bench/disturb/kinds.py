"""The kinds of fault: what is done to whom, and how it is undone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable

import msgspec

from bench.disturb.stage import Stage

NATS_PAUSE_S = 1.0
ETCD_PAUSE_S = 1.0
UNSUPERVISED_S = 0.5
"""How long a killed supervisor's successor is not started, at least."""


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault."""

    name: str
    role: str
    """Of the victim: an entry of the topology, a server, or `supervisor`."""
    does: signal.Signals
    bar_s: float | None
    """What the widest silence of 99 in 100 streams must not exceed; None: no bar of its own."""

    @property
    def cuts(self) -> bool:
        """Whether the victim's own client connections may be lost."""
        return self.role == "ingress"


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("generation-killed", "generation", KILL, 0.3),
        Kind("generation-frozen", "generation", STOP, 2.5),
        Kind("context-killed", "context", KILL, 0.3),
        Kind("context-frozen", "context", STOP, 2.5),
        Kind("router-killed", "router", KILL, 0.5),
        Kind("router-frozen", "router", STOP, 2.5),
        Kind("preprocessor-killed", "preprocessor", KILL, 0.5),
        Kind("ingress-killed", "ingress", KILL, 0.5),
        Kind("nats-killed", "nats", KILL, 1.0),
        Kind("nats-paused", "nats", STOP, None),
        Kind("etcd-killed", "etcd", KILL, 0.3),
        Kind("etcd-paused", "etcd", STOP, 0.3),
        Kind("supervisor-killed", "supervisor", KILL, 0.3),
    )
}
"""By name. Bars: a worker 0.3 s killed and 2.5 s frozen, router and preprocessor 0.5 s, NATS 1 s;
`no effect` of etcd and the supervisor is written 0.3 s, what an undisturbed stream may show on a
busy machine."""


class Strike(msgspec.Struct):
    """A fault that was done."""

    kind: str
    victim: str
    at: float
    """Loop time."""
    live: int
    """Streams that were under way."""
    cut_ports: set[int] = set()
    """Local ports of clients whose connection the victim held."""
    healed_at: float = 0.0


async def strike(
    stage: Stage, kind: Kind, dice: random.Random, count_live: Callable[[], int]
) -> Strike:
    """Do it, to a victim that the dice choose."""
    loop = asyncio.get_running_loop()
    if kind.role == "supervisor":
        victim, pid = "supervisor", stage.supervisor_pid
    else:
        names = stage.names(kind.role)
        victim = dice.choice(names) if names else kind.role
        pid = stage.pid(victim)
    ports = stage.sockets_of(pid) if kind.cuts else set()
    done = Strike(kind.name, victim, loop.time(), count_live(), ports)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, kind.does)
        if kind.cuts:
            # What was accepted between the look and the kill.
            done.cut_ports |= stage.sockets_of(pid)
    if kind.does is STOP and kind.role in {"nats", "etcd"}:
        # Shorter than the watchdog's patience: it goes on as the same process.
        pause_s = NATS_PAUSE_S if kind.role == "nats" else ETCD_PAUSE_S
        loop.call_later(pause_s, _go_on, pid)
    return done


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def heal(stage: Stage, struck: list[Strike]) -> None:
    """What does not heal by itself: a supervisor is started again."""
    killed = [one.at for one in struck if one.kind == "supervisor-killed" and not one.healed_at]
    if killed:
        at = max(killed)
        await stage.supervisor_gone()
        await asyncio.sleep(max(0.0, at + UNSUPERVISED_S - asyncio.get_running_loop().time()))
        await stage.start_supervisor()
    for one in struck:
        one.healed_at = asyncio.get_running_loop().time()
