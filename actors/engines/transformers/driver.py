"""The engine's thread: the only owner of model, pool and scheduler.

Commands come in through one queue; reports go out through one callback. Nothing is shared, so
nothing is locked. Between two steps the thread looks at what has come in, and when there is
nothing to compute it sleeps in the queue.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from actors.engines.base import EngineFailed
from actors.engines.threaded import Ended, Failed
from actors.engines.transformers.commands import Command, Report
from actors.engines.transformers.options import TransformersOptions

if TYPE_CHECKING:
    from actors.engines.transformers.parallel.team import Team

_log = structlog.get_logger(__name__)


class Driver:
    """Runs one engine. `run` is the body of its thread; everything else is called from there,
    but for `inbox`, `idle`, `progress`,
    `patience_s`, `handoff_refusals` and `lost`."""

    def __init__(
        self,
        options: TransformersOptions,
        report: Callable[[Report], None],
    ) -> None:
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        self.progress = 0
        self.patience_s = 0.0
        """For the step that is being computed."""
        self.idle = True
        """Nothing can be computed until something comes in."""
        self.handoff_refusals: Mapping[str, int] = {}
        """Of this rank, as `Exchange.refusals`."""
        self.lost = False
        """Another rank of the engine has gone; the thread may never return from the step it is
        in."""
        self._options = options
        self._report = report

    def run(self) -> None:
        # The imports are here, so that a process that only validates options never loads torch.
        try:
            if self._options.tensor_parallel_size == 1:
                self._serve(None)
                return
            from actors.engines.transformers.parallel.team import Team  # noqa: PLC0415

            team = Team(self._options, self._lose)
            try:
                self._serve(team)
            finally:
                team.close()
        except EngineFailed as error:
            self._report(Failed(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever broke, the worker must learn of it
            _log.exception("engine_broke")
            self._report(Failed(f"{type(error).__name__}: {error}"))
        finally:
            # A model is full of cycles, and so is what holds the pool. Both are large, and the
            # collector's own next full turn may be hours away in a process that goes on.
            gc.collect()
            self.idle = True
            self._report(Ended())

    def _serve(self, team: Team | None) -> None:
        from actors.engines.transformers.model import load  # noqa: PLC0415
        from actors.engines.transformers.steps import Steps  # noqa: PLC0415

        Steps(self, self._options, load(self._options, team), self._report).serve()

    def _lose(self, reason: str) -> None:
        """Called in a thread of the team's."""
        self.lost = True
        self._report(Failed(reason))
        self._report(Ended())
