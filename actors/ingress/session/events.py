"""What happens to a session."""

from __future__ import annotations

import msgspec

from actors.messages.assign import Why
from actors.messages.frame import Chunk
from actors.runtime.address import Address


class Assigned(msgspec.Struct, frozen=True, tag=True):
    epoch: int
    context: Address | None
    generation: Address
    prompt_tokens: int
    usual_s: float = 0.0
    """From here to a first token, as others fared lately."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    epoch: int
    why: Why
    text: str
    param: str = ""
    retry_after_s: float = 0.0
    recovering: bool = False
    """Something fell within `Policy.restart_s`."""


class Arrived(msgspec.Struct, frozen=True, tag=True):
    chunk: Chunk


class Fell(msgspec.Struct, frozen=True, tag=True):
    """A life ended, or a message to it came back."""

    address: Address
    reason: str
    on_the_way: bool = False
    """It takes part in routing; matters only before the sequence is assigned."""


class Unheard(msgspec.Struct, frozen=True, tag=True):
    """Nobody was there to take an `Ask`."""

    worker: Address
    epoch: int


class Opening(msgspec.Struct, frozen=True, tag=True):
    """Somebody has become ready: what waits may try again."""


class Regained(msgspec.Struct, frozen=True, tag=True):
    """The connection to the others was lost and is back: what was under way may be lost."""


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Time has passed. Due at `Session.wake_at`."""

    away: bool = False
    """The connection to the others is lost: nobody is to blame for being silent."""


class Abandon(msgspec.Struct, frozen=True, tag=True):
    """The client has gone, or has all it wants (a stop string)."""


Event = Assigned | Rejected | Arrived | Fell | Unheard | Opening | Regained | Tick | Abandon
