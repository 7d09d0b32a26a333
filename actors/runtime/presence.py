"""Who is there, as one node knows it, and who of its actors are told when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.runtime import logs
from actors.runtime.actor import Down, Joined
from actors.runtime.address import Address
from actors.runtime.clock import Clock
from actors.runtime.directory import Change, Directory, Left, Up
from actors.runtime.hosts import Hosts, HostWatch
from actors.runtime.message import WIRE_VERSION, Message
from actors.runtime.registry.base import Observation

EVERY_ROLE = "*"
"""Watched like a role, it stands for all of them."""

Inform = Callable[[str, Message], None]
"""Gives an actor of the node, by its name, a message that comes before all others."""


class Presence:
    """The directory of a node, kept up to date by what the registry, supervisors and other hosts
    say, and the monitors and watches of the node's actors."""

    def __init__(
        self,
        clock: Clock,
        inform: Inform,
        *,
        host: str,
        host_silence_s: float | None,
        beat: Callable[[], None],
    ) -> None:
        """`beat` lets this host be heard; `host_silence_s` as in `Node`."""
        self.directory = Directory()
        self.log = logs.get_logger("actor")
        self._clock = clock
        self._inform = inform
        self._monitors: dict[Address, set[str]] = {}
        self._watchers: dict[str, set[str]] = {}
        self._warned_of: set[Address] = set()
        """Those who speak another wire format."""
        self._expiry: asyncio.TimerHandle | None = None
        self.hosts: HostWatch | None = None
        """None where no host is missed by its silence."""
        if host_silence_s is not None:
            self.hosts = HostWatch(
                Hosts(host, host_silence_s),
                clock,
                present=lambda: self.directory.hosts,
                beat=beat,
                silent=self._silent,
                back=self._back,
            )

    async def close(self) -> None:
        """Wait for nothing any more. Comes after the last observation."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self.hosts is not None:
            await self.hosts.close()

    @property
    def silent_hosts(self) -> frozenset[str]:
        """The other hosts that nothing is heard of."""
        return frozenset() if self.hosts is None else self.hosts.hosts.silent

    # -- who wants to know ---------------------------------------------------------------------

    def monitor(self, name: str, address: Address) -> None:
        """See `Actor.monitor`; `name` is the actor's own."""
        if self.directory.has_ended(address):
            self._inform(name, Down(address, "has ended"))
            return
        self._monitors.setdefault(address, set()).add(name)

    def demonitor(self, name: str, address: Address) -> None:
        """See `Actor.demonitor`."""
        monitoring = self._monitors.get(address)
        if monitoring is not None:
            monitoring.discard(name)
            if not monitoring:
                del self._monitors[address]

    def watch(self, name: str, role: str) -> None:
        """See `Actor.watch`."""
        self._watchers.setdefault(role, set()).add(name)
        for entry in self.directory.all():
            if role in {entry.role, EVERY_ROLE}:
                self._inform(name, Joined(entry))

    def _watching(self, role: str) -> set[str]:
        return self._watchers.get(role, set()) | self._watchers.get(EVERY_ROLE, set())

    # -- what is heard -------------------------------------------------------------------------

    def observe(self, observation: Observation) -> None:
        """The registry has changed."""
        now = self._clock.now()
        self._tell(self.directory.observe(observation, now))
        self._schedule_expiry(now)
        self._warn_of_unspoken()

    def ended(self, address: Address, reason: str) -> None:
        """Somebody saw this life end."""
        self._tell(self.directory.ended(address, reason))

    def _silent(self, host: str) -> None:
        self.log.warning("host_silent", host=host)
        self._tell(self.directory.silent(host))

    def _back(self, host: str) -> None:
        self.log.info("host_heard_again", host=host)
        self._tell(self.directory.heard(host))

    def _warn_of_unspoken(self) -> None:
        unspoken = {entry.address: entry for entry in self.directory.unspoken()}
        for address in unspoken.keys() - self._warned_of:
            self.log.warning(
                "wire_version_differs",
                actor=str(address),
                theirs=unspoken[address].wire,
                ours=WIRE_VERSION,
                so="it is sent nothing from here",
            )
        self._warned_of = set(unspoken)

    def _schedule_expiry(self, now: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        due = self.directory.next_expiry
        if due is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, due - now), self._expire)

    def _expire(self) -> None:
        now = self._clock.now()
        self._tell(self.directory.expire(now))
        self._schedule_expiry(now)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            match change:
                case Up(entry):
                    for name in sorted(self._watching(entry.role)):
                        self._inform(name, Joined(entry))
                case Left(address, reason):
                    down = Down(address, reason)
                    informed = self._monitors.pop(address, set()) | self._watching(address.role)
                    for name in sorted(informed):
                        self._inform(name, down)
