"""What a supervisor reads of what actors publish of themselves in the registry."""

from __future__ import annotations

import msgspec


class Published(msgspec.Struct, frozen=True):
    """Of an actor's `meta`, whatever else it holds."""

    url: str | None = None
    model: str | None = None


def published(meta: msgspec.Raw) -> Published:
    """Nothing where it is something else: an actor may publish what it likes."""
    try:
        return msgspec.json.decode(meta, type=Published)
    except msgspec.MsgspecError:
        return Published()
