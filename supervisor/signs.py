"""The signs by which a process without a link shows that it is ready, and that it lives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from supervisor.follow import Follower
from supervisor.probes import Probe, Prober, Pulse


class Signs:
    """A line in its log, answers to a probe, or that its process can run at all. `on_ready` is
    called for the line; `on_alive` for each answer, and for each look that finds it running."""

    def __init__(self, on_ready: Callable[[], None], on_alive: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._on_alive = on_alive
        self._follower: Follower | None = None
        self._prober: Prober | Pulse | None = None

    def follow(self, log: Path, offset: int, mark: bytes, then: Probe | None) -> None:
        """Wait for a line with the mark, from an offset of the log on; then probe, if told how."""

        def read(line: bytes) -> None:
            if mark in line:
                self.close()
                if then is not None:
                    self.probe(then)
                self._on_ready()

        self._follower = Follower(log, offset, read)

    def probe(self, probe: Probe) -> None:
        """Ask it again and again."""
        self._prober = Prober(probe, self._on_alive)

    def feel_pulse(self, pid: int) -> None:
        """Look at the process again and again."""
        self._prober = Pulse(pid, self._on_alive)

    def close(self) -> None:
        """Look and wait no longer."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
        if self._prober is not None:
            self._prober.close()
            self._prober = None
