"""Tells what happens to whoever listens, and what the tree reports in people's words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from supervisor import events, tree
from supervisor.layout import Layout
from supervisor.report import culprit, describe

Listener = Callable[[events.Event], None]


class Teller:
    """Passes each event on to all listeners, in order."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = list(listeners)

    def tell(self, event: events.Event) -> None:
        event = msgspec.structs.replace(event, at=time.time())
        for listener in list(self._listeners):
            try:
                listener(event)
            except OSError:
                # A terminal that was closed, a pipe nobody reads: the tree goes on without it.
                self._listeners.remove(listener)


def failure(report: tree.Report, layout: Layout) -> events.Event | None:
    """The failure that a report of the tree is of; None when it is of none, or its end tells."""
    reason = "" if report.reason is None else describe(report.reason)
    late = report.reason is not None and report.reason.cause == tree.KILLED
    if report.kind is tree.ReportKind.START_ERROR and late:
        # Only our own kill is KILLED without any detail: its deadline was over.
        return events.ChildNotReady(id=report.id, reason=reason, log=str(layout.log(report.id)))
    if report.kind is tree.ReportKind.GAVE_UP:
        return events.ChildGivenUp(id=report.id, reason=reason)
    return None


def conclusion(gone: tree.Gone, layout: Layout) -> events.Stopped:
    """How it all ended, and by whose fault."""
    child = culprit(gone.reason)
    path: Path | None = layout.log(child) if child else None
    return events.Stopped(
        exit_code=gone.exit_code,
        reason=describe(gone.reason),
        child=child,
        log=str(path) if path is not None and path.exists() else "",
    )
