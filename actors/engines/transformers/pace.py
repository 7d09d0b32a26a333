"""How long a step of this engine on this machine may honestly take. Pure."""

from __future__ import annotations

FIRST_STEP_S = 60.0
"""Nothing is known of the first one; it may also have to compile or to allocate."""
MARGIN = 4.0
"""Steps are allowed this many times what was measured."""
DECAY = 0.999
"""Of what was measured, with each step: one slow step is forgotten after some thousands."""


class Pace:
    """Learns from steps; `patience_s` asks for time for the next one.

    Two measures, and the longer counts. The longest step so far is not enough: an engine that has
    only decoded for an hour knows nothing of a long prompt's step. But a token hardly takes longer
    in company than alone, so the most that a token has taken bounds any step, with the margin.
    """

    def __init__(self) -> None:
        self._step_s = 0.0
        self._token_s = 0.0
        self._measured = False

    def patience_s(self, tokens: int) -> float:
        """For a step over so many tokens."""
        if not self._measured:
            return FIRST_STEP_S
        return MARGIN * max(self._step_s, self._token_s * tokens)

    def learn(self, tokens: int, took_s: float) -> None:
        """A step over so many tokens (at least one) has ended."""
        self._measured = True
        self._step_s = max(took_s, self._step_s * DECAY)
        self._token_s = max(took_s / tokens, self._token_s * DECAY)
