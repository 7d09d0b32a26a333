"""What a client wishes of the placement of its request; the router weighs it."""

from __future__ import annotations

import msgspec


class Hints(msgspec.Struct, frozen=True, array_like=True):
    """Wishes of one request. Names of clients and sessions travel as hashes only."""

    tenant: int = 0
    """Whose request it is, for fairness in the queue: a hash of the API key or of a header. 0: of
    nobody in particular."""
    session: int = 0
    """Requests of one session prefer the worker of the one before; 0 for none."""
    priority: int = 0
    """Higher ones leave the queue first."""
    strategy: str = ""
    """In place of the router's own, where its operator permits that."""
    wait_s: float = 0.0
    """How long the ingress waits for an assignment; 0 for no limit."""
    explain: bool = False
    """Place nothing: answer with an `Explained`."""
