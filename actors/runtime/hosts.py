"""Which hosts are there: each lets itself be heard over the transport, twice a second.

The registry knows it too, but only by a lease that runs out, and a lease must be long: when it is
over, names are free. Here nothing is given up. A host that is not heard is taken to be away, and
one that is heard again is back, with the same actors in the same lives; every node has a view of
its own, and nobody has to agree.

One beat speaks for all nodes of a host. Whoever has heard none of its own host lately sends one,
so that any of them may end or freeze, the supervisor too. (IGMP's hosts keep their reports few in
the same way, RFC 2236 section 3.)

Beats of the own host come back over the transport like all others, and prove that one would have
heard. A node that misses these too blames nobody: it is cut off itself, or nobody can be heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import NamedTuple

from actors.runtime import tasks
from actors.runtime.clock import Clock
from actors.runtime.message import Message

BEAT_S = 0.4
"""Without a beat of its own host for this long a node sends one, when it looks."""
LOOK_S = 0.25
MOST_S = 2 * LOOK_S
"""What passes between two looks, as far as others are concerned."""
DEAF_S = 0.75
"""Without a beat of its own host for this long a node cannot blame others."""


class HostBeat(Message, frozen=True):
    """Somebody lives on this host."""

    host: str


class Look(NamedTuple):
    """What there is to do after a look."""

    beat: bool
    """Send one."""
    silent: tuple[str, ...]
    """Hosts that were there until now."""


class Hosts:
    """Pure. `heard` when a beat comes, `look` every LOOK_S; times are the caller's clock's."""

    def __init__(self, own: str, silence_s: float) -> None:
        self._own = own
        self._silence_s = silence_s
        self._quiet_s: dict[str, float] = {own: 0.0}
        """Since the last beat of each host that has ever been heard."""
        self._silent: set[str] = set()
        """Also when nobody is known there any more: until it is heard."""
        self._looked_at = 0.0

    @property
    def silent(self) -> frozenset[str]:
        """The hosts that are taken to be away."""
        return frozenset(self._silent)

    def heard(self, host: str, now: float) -> bool:
        """A beat has come. Whether the host is back by it."""
        # Less than nothing: the next look adds the whole time since the last one.
        self._quiet_s[host] = -min(now - self._looked_at, MOST_S)
        if host not in self._silent:
            return False
        self._silent.remove(host)
        return True

    def look(self, present: Collection[str], now: float) -> Look:
        """Time has passed. `present`: the hosts of which anybody is known."""
        # A delay of our own is nobody's silence: a look counts for no more than one is meant to.
        passed_s = min(now - self._looked_at, MOST_S)
        self._looked_at = now
        own = self._quiet_s[self._own] + passed_s
        deaf = own > DEAF_S
        # Of one that was never heard (an earlier release, say) silence means nothing.
        self._quiet_s = {
            host: 0.0 if deaf else quiet_s + passed_s
            for host, quiet_s in self._quiet_s.items()
            if host in present
        }
        self._quiet_s[self._own] = own
        fallen = tuple(
            host
            for host, quiet_s in self._quiet_s.items()
            if host not in {self._own, *self._silent} and quiet_s >= self._silence_s
        )
        self._silent.update(fallen)
        return Look(own >= BEAT_S, fallen)


class HostWatch:
    """Looks, from `open` to `close`, on behalf of a node."""

    def __init__(
        self,
        hosts: Hosts,
        clock: Clock,
        *,
        present: Callable[[], Collection[str]],
        beat: Callable[[], None],
        silent: Callable[[str], None],
        back: Callable[[str], None],
    ) -> None:
        self.hosts = hosts
        self._clock = clock
        self._present = present
        self._beat = beat
        self._silent = silent
        self._back = back
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="hosts")

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end(self._task)

    def heard(self, host: str) -> None:
        """A beat has come."""
        if self.hosts.heard(host, self._clock.now()):
            self._back(host)

    async def _run(self) -> None:
        while True:
            look = self.hosts.look(self._present(), self._clock.now())
            if look.beat:
                self._beat()
            for host in look.silent:
                self._silent(host)
            await asyncio.sleep(LOOK_S)
