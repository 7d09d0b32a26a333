"""Whether what is known of a worker's cache is all there is to know. Pure.

    asking ──inventory complete──▶ live ──a number is missing──▶ asking

While asking, events are passed over: the inventory has them. It is asked for again when it does not
come, or when a part of it is missing.
"""

from __future__ import annotations

import enum

from actors.messages.events import HEARTBEAT_S, Inventory, Report

ASK_AGAIN_S = 1.0
SILENT_AFTER_S = 10.0
"""From the first prompt that should have left blocks behind to a warning that none was told of."""
MUTE_AFTER_S = 3 * HEARTBEAT_S
"""Without any report, from a worker that says it reports."""


class Reading(enum.Enum):
    """What to do with the events of a report."""

    APPLY = enum.auto()
    PASS = enum.auto()
    GAP = enum.auto()
    """Ask for the inventory."""


class Part(enum.Enum):
    """What to do with a part of an inventory."""

    BEGIN = enum.auto()
    """Forget what was known, and store these."""
    STORE = enum.auto()
    PASS = enum.auto()
    AGAIN = enum.auto()
    """A part is missing: ask once more."""


class Feed:
    """The reports of one life of a worker."""

    def __init__(self, now: float) -> None:
        self.live = False
        self.gaps = 0
        self.heard_at = now
        self.trouble = ""
        """Why events are known to be missing, as `check` last said; empty when none are."""
        self._number = 0
        self._part = 0
        self._asked_at = now
        self._events_due: float | None = None
        self._has_events = False

    @property
    def silent(self) -> bool:
        """Whether events are known to be missing."""
        return bool(self.trouble)

    def ask(self, now: float) -> None:
        """Its inventory has been asked for."""
        self.live = False
        self._asked_at = now
        self._part = 0

    def report(self, report: Report, now: float) -> Reading:
        """A report has come."""
        self.heard_at = now
        if report.events:
            self._has_events = True
        if not self.live:
            return Reading.PASS
        if report.number == self._number + 1:
            self._number = report.number
            return Reading.APPLY
        if report.number <= self._number:
            return Reading.PASS
        self.gaps += 1
        return Reading.GAP

    def inventory(self, inventory: Inventory, now: float) -> Part:
        """A part of the inventory has come."""
        self.heard_at = now
        if inventory.blocks:
            self._has_events = True
        if self.live:
            return Part.PASS
        if inventory.part == 0:
            self._number = inventory.number
            self._part = 0
        elif inventory.part != self._part or inventory.number != self._number:
            return Part.AGAIN
        self._part += 1
        self.live = inventory.last
        return Part.BEGIN if inventory.part == 0 else Part.STORE

    def overdue(self, now: float) -> bool:
        """Whether the inventory ought to be asked for again."""
        return not self.live and now >= self._asked_at + ASK_AGAIN_S

    def computed(self, now: float) -> None:
        """The worker has taken a prompt whose blocks it will have to tell of."""
        if self._events_due is None:
            self._events_due = now + SILENT_AFTER_S

    def check(self, now: float) -> str:
        """Why this worker's cache cannot be known, in words; empty when all is well."""
        if now - self.heard_at > MUTE_AFTER_S:
            return f"has sent no report for {now - self.heard_at:.0f} s"
        if self._events_due is not None and not self._has_events and now > self._events_due:
            return "computes prompts and tells of no cached block"
        return ""
