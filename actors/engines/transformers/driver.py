"""The engine's thread: the only owner of model, pool and scheduler.

Commands come in through one queue; reports go out through one callback. Nothing is shared, so
nothing is locked. Between two steps the thread looks at what has come in, and when there is
nothing to compute it sleeps in the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import structlog

from actors.engines.base import EngineFailed
from actors.engines.transformers.commands import Command, Ended, Failed, Report
from actors.engines.transformers.options import TransformersOptions

_log = structlog.get_logger(__name__)


class Driver:
    """Runs one engine. `run` is the body of its thread; everything else is called from there,
    but for `inbox`, `idle`, `progress` and `patience_s`."""

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
        self._options = options
        self._report = report

    def run(self) -> None:
        try:
            # Here, so that a process that only validates options never imports torch.
            from actors.engines.transformers.model import load  # noqa: PLC0415
            from actors.engines.transformers.steps import Steps  # noqa: PLC0415

            Steps(self, self._options, load(self._options), self._report).serve()
        except EngineFailed as error:
            self._report(Failed(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever broke, the worker must learn of it
            _log.exception("engine broke")
            self._report(Failed(f"{type(error).__name__}: {error}"))
        finally:
            self.idle = True
            self._report(Ended())
