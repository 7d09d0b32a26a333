"""How long a session waits, and how often it tries."""

from __future__ import annotations

import msgspec


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long to wait, and how often to try."""

    attempts: int = 6
    """Replays in a row without a token between them; the next loss is an error."""
    assign_timeout_s: float = 2.0
    """From submitting to being assigned; doubled each time in a row that it was not enough."""
    progress_timeout_s: float = 60.0
    """From being assigned to the first token, and between tokens."""
    gap_s: float = 0.03
    """How long a missing chunk may take, when later ones are here, before it is asked for."""
    gap_timeout_s: float = 1.0
    """How long it may take altogether."""
    silence_s: float = 0.5
    """Without a token for this long the worker is asked, and then at this interval. Where tokens,
    or lately first tokens, come more slowly than twice in this time, or the worker said that there
    is none yet, it is asked later: after twice the usual time, and at most eight times this."""
    deaf_s: float = 3.0
    """How long a worker may leave such questions unanswered."""
    restart_s: float = 3.0
    """How long a new request that nobody can take waits when something has just fallen, whose
    successor is likely on its way. Otherwise it fails at once."""
    recovery_s: float = 30.0
    """How long a sequence that had begun waits for a worker to come back."""
    retry_s: float = 0.2
    """Between two tries while waiting."""
