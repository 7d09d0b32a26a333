"""Writes the run state down, so that a successor can take over what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from supervisor.child import Child
from supervisor.plan import Plan
from supervisor.plane import NATS
from supervisor.recipe import identity
from supervisor.runstate import Holder, RunningChild, RunState, write_run_state

log = structlog.get_logger("supervisor")


class Record:
    """The file with the run state: told of every change, written when it is time to."""

    def __init__(self, path: Path, look: Callable[[], RunState]) -> None:
        """`look`: what is to be written, as it is now."""
        self._path = path
        self._look = look
        self._changed = False

    def note(self) -> None:
        """Something in it has changed."""
        self._changed = True

    def save_if_changed(self) -> None:
        if not self._changed:
            return
        self._changed = False
        state = self._look()
        try:
            write_run_state(self._path, state)
        except OSError as error:
            # A full disk is no reason to stop looking after what runs.
            log.error("run_state_not_written", error=str(error))  # noqa: TRY400 - no traceback


def run_state(
    plan: Plan,
    holder: Holder,
    order: Sequence[str],
    children: Iterable[Child],
    above: dict[str, int],
) -> RunState:
    """What a successor has to know. `order`: all ids of the tree, in start order; `above`: the
    last incarnation known, by actor name."""
    started = sorted(children, key=lambda child: order.index(child.id))
    return RunState(
        supervisor=holder,
        ports=plan.ports,
        etcd_peer_port=plan.etcd_peer_port,
        nats_token=plan.nats.token if NATS in plan.ports else None,
        children=tuple(running(child) for child in started if child.process is not None),
        above=above,
    )


def running(child: Child) -> RunningChild:
    """What is written of a child that has a process."""
    assert child.process is not None, "only started children are kept"
    return RunningChild(
        name=child.id,
        pid=child.process.pid,
        pid_started=child.process.started,
        run=child.run_told,
        server=child.is_server,
        incarnations=child.incarnations,
        identity="" if child.recipe.image is not None else identity(child.recipe),
        granted=child.granted,
        rehearsed=child.standby and child.prepared,
        formerly=child.formerly,
    )
