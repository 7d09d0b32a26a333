"""What the registry says of the actors of all nodes, for the supervisor of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.runtime import tasks
from actors.runtime.errors import PlaneUnavailable
from actors.runtime.message import WIRE_VERSION
from actors.runtime.registry.base import Deleted, Entry, Listed, Observation, Put
from actors.runtime.registry.etcd import EtcdRegistry, EtcdSettings
from supervisor.calls import RegisteredActor
from supervisor.published import published


class Elsewhere:
    """Follows the registry from `open` to `close`; through outages it keeps the last view."""

    def __init__(self, namespace: str, settings: EtcdSettings) -> None:
        self._connect: Callable[[], EtcdRegistry] = lambda: EtcdRegistry(settings, namespace)
        self._registry: EtcdRegistry | None = None
        self._entries: dict[str, Entry] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="elsewhere")

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end(self._task)
        if self._registry is not None:
            await self._registry.close()

    @property
    def health(self) -> str:
        """As `Status.registry` has it."""
        if self._registry is None:
            return "unreached"
        return "current" if self._registry.health == "connected" else "lost"

    def actors(self) -> tuple[RegisteredActor, ...]:
        """Every actor of the namespace, on all nodes, in order of their hosts and names."""
        entries = sorted(
            self._entries.values(), key=lambda entry: (entry.host, entry.role, entry.instance)
        )
        return tuple(
            RegisteredActor(
                role=entry.role,
                instance=entry.instance,
                state=_state(entry),
                host=entry.host,
                incarnation=entry.incarnation,
                process=entry.node,
                pid=entry.pid,
                model=published(entry.meta).model,
            )
            for entry in entries
        )

    async def _follow(self) -> None:
        while True:
            registry = self._connect()
            try:
                await registry.start(self._observe)
            except PlaneUnavailable:
                continue  # it has tried for seconds; an embedded one may not have started yet
            self._registry = registry
            return

    def _observe(self, observation: Observation) -> None:
        match observation:
            case Put(entry):
                self._entries[entry.name] = entry
            case Deleted(name):
                self._entries.pop(name, None)
            case Listed(entries):
                self._entries = {entry.name: entry for entry in entries}


def _state(entry: Entry) -> str:
    """Also that no actor of this release can talk to it."""
    foreign = "" if entry.wire == WIRE_VERSION else f", wire format {entry.wire}"
    return f"{entry.state.value}{foreign}"
