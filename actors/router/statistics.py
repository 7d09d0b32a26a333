"""What the router counts. Plain numbers, by name, for `supervise top` and the metrics."""

from __future__ import annotations

from actors.router.placement import Ask, Decision

_SMOOTHING = 0.02
"""Weight of the newest value in a moving average: about the last fifty."""


class Statistics:
    """Counters since the start, and moving averages."""

    def __init__(self) -> None:
        self.decisions = 0
        self.prompt_tokens = 0
        self.matched_tokens = 0
        """Of the prompts, believed to be in the cache of who computes them."""
        self.local = 0
        """Prompts that a generation worker computes because little of them is left."""
        self.fallback_no_context = 0
        """Prompts that a generation worker computes because no context worker is there."""
        self.overridden = 0
        """Placed by a strategy that a header asked for."""
        self.unplaced = 0
        """Answered that no worker is ready."""
        self.lost = 0
        """Work that a worker did not take."""
        self.queued = 0
        self.refused = 0
        """Answered with 429."""
        self.decision_us = 0.0
        self.event_lag_ms = 0.0
        self.queued_ms = 0.0

    def decided(self, decision: Decision, ask: Ask, took_s: float) -> None:
        """Count a placement."""
        self.decisions += 1
        self.prompt_tokens += ask.tokens
        self.matched_tokens += decision.computing.matched * ask.block_tokens
        if decision.how == "local":
            self.local += 1
        elif decision.how == "no_context":
            self.fallback_no_context += 1
        self.decision_us = _smooth(self.decision_us, took_s * 1e6)

    def waited(self, seconds: float) -> None:
        """Count a request that leaves the queue to be placed."""
        self.queued_ms = _smooth(self.queued_ms, seconds * 1000)

    def lagged(self, seconds: float) -> None:
        """Count a report that is so old."""
        self.event_lag_ms = _smooth(self.event_lag_ms, max(0.0, seconds) * 1000)

    def gauges(self) -> dict[str, float]:
        """By name."""
        return {name: float(value) for name, value in vars(self).items()}


def _smooth(average: float, value: float) -> float:
    return value if not average else average + _SMOOTHING * (value - average)
