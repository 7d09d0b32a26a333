"""What one sequence contributes to a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Work(NamedTuple):
    """Tokens of one sequence to compute, the first of them at position `start`."""

    tokens: Sequence[int]
    start: int
    blocks: Sequence[int]
    """The sequence's blocks, covering at least `start + len(tokens)` tokens."""
