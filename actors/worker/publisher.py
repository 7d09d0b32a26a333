"""When a worker's reports go out, and to whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from actors.engines.base import Engine
from actors.messages.events import HEARTBEAT_S, Report
from actors.messages.key import RequestKey
from actors.runtime.actor import Actor
from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.message import Message
from actors.worker.jobs import Jobs
from actors.worker.reports import Reports

LINGER_S = 0.02
"""So long a report that is due waits for tokens to go along with. By itself it would wake three
processes, 100 µs and more each."""
MIN_INTERVAL_S = 0.001
"""However short `every_s` is: a busy engine is looked at again after this."""


class Publisher:
    """Reports an engine's changes to every router, at most each `every_s` seconds: with the next
    tokens, or in `LINGER_S`. From `start` to `stop`."""

    def __init__(
        self, actor: Actor, engine: Engine, jobs: Jobs, router: str, every_s: float
    ) -> None:
        self._actor = actor
        self._engine = engine
        self._jobs = jobs
        self._router = router
        self._every_s = max(every_s, MIN_INTERVAL_S)
        self._reports = Reports()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._published_at = 0.0
        self._open = False

    def start(self) -> None:
        self._open = True
        self._arm(HEARTBEAT_S)

    def stop(self) -> None:
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self, key: RequestKey) -> None:
        """Work has arrived; the next report says so."""
        self._reports.take(key)
        self.touch()

    def touch(self) -> None:
        """Something may have changed. Costs next to nothing when a report is due anyway."""
        if self._open:
            wait_s = self._published_at + self._every_s - self._actor.clock.now()
            self._arm(max(0.0, wait_s) + LINGER_S)

    def along(self) -> None:
        """Tokens are being sent: a report that is due leaves with them."""
        due = self._published_at + self._every_s
        if self._timer is not None and self._actor.clock.now() >= due:
            self._timer.cancel()
            self._fire()

    def send_inventory(self, router: Address) -> None:
        """Bring all routers up to date, then tell this one everything."""
        self._publish_changes()
        # A snapshot drops the changes still waiting: with the report above there are none.
        for part in self._reports.inventory(self._actor.address, self._engine.cache_snapshot()):
            self._tell(router, part)

    def _arm(self, delay_s: float) -> None:
        due = self._actor.clock.now() + delay_s
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._publish_changes():
            quiet_s = self._actor.clock.now() - self._published_at
            if quiet_s >= HEARTBEAT_S:
                self._send(self._reports.heartbeat)
        # Steps that produce no token, of a long prompt say, change the load unseen.
        self._arm(self._every_s + LINGER_S if self._engine.busy else HEARTBEAT_S)

    def _publish_changes(self) -> bool:
        if not self._actor.directory.ready(self._router):
            # Whoever comes asks for the inventory; until then the changes wait in the engine.
            return False
        load, events = self._engine.load(), self._engine.take_cache_events()
        wall, unneeded = self._actor.clock.wall(), self._jobs.take_unneeded()
        report = self._reports.changes(self._actor.address, load, events, wall, unneeded)
        if report is None:
            return False
        self._send(lambda *_: report)
        return True

    def _send(self, report: Callable[[Address, float], Report]) -> None:
        self._published_at = self._actor.clock.now()
        message = report(self._actor.address, self._actor.clock.wall())
        for entry in self._actor.directory.ready(self._router):
            self._tell(entry.address, message)

    def _tell(self, router: Address, message: Message) -> None:
        with contextlib.suppress(NoSuchActor):  # it has just gone
            self._actor.tell(router, message)
