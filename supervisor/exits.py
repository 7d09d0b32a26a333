"""From how a process ended to why: the reason the tree decides by and people read."""

from __future__ import annotations

import enum
import signal
from collections.abc import Sequence
from types import MappingProxyType

from supervisor.launchers.local import Exit
from supervisor.tree import KILLED, SHUTDOWN, Kind, Reason

_NODE_CODES = MappingProxyType(
    {
        69: "NATS or etcd out of reach",
        70: "an actor failed",
        73: "the name is taken",
        75: "the name was lost to a successor",
        77: "NATS or etcd does not let it in",
        78: "the specification is wrong",
    }
)
"""What `actors.runtime.process` means by its exit codes."""
_KINDS = MappingProxyType({69: Kind.UNAVAILABLE, 77: Kind.REFUSED})
"""Those that say more than that it failed."""
_POLITE = frozenset({signal.SIGTERM, signal.SIGINT})
_SHOWN_CHARACTERS = 300


class Asked(enum.IntEnum):
    """What the process had been told by its supervisor when it ended, the strongest of it."""

    NOTHING = 0
    TO_LEAVE = 1
    """A drain or a polite stop."""
    NO_MORE = 2
    """SIGKILL."""


def reason_of(
    ending: Exit,
    *,
    asked: Asked,
    condemned: str = "",
    said: str = "",
    tail: Sequence[str] = (),
    node: bool,
) -> Reason:
    """Why a process ended.

    `condemned` is why the watchdog killed it, if it did: that is then the reason, whatever else it
    was told. `said` is what a node announced over its link before it failed, the best text there
    is; the last line of the log comes next. `node`: its exit codes are those of
    `actors.runtime.process`.
    """
    if condemned and ending.code is None:
        return Reason(Kind.ABNORMAL, condemned)
    if ending.signal is not None:
        if asked is Asked.NO_MORE and ending.signal == signal.SIGKILL:
            return KILLED
        if asked is not Asked.NOTHING and ending.signal in _POLITE:
            return SHUTDOWN
        kind = Kind.KILLED if ending.signal == signal.SIGKILL else Kind.ABNORMAL
        return Reason(kind, _with(f"killed by {_signal_name(ending.signal)}", said))
    if ending.code is None:
        if asked is not Asked.NOTHING:
            return SHUTDOWN
        return Reason(Kind.ABNORMAL, _with("ended, unseen how", said or (tail[-1] if tail else "")))
    if ending.code == 0:
        return Reason(Kind.NORMAL) if asked is Asked.NOTHING else SHUTDOWN
    meaning = _NODE_CODES.get(ending.code) if node else None
    text = f"exit code {ending.code}" + (f", {meaning}" if meaning else "")
    kind = _KINDS.get(ending.code, Kind.ABNORMAL) if node else Kind.ABNORMAL
    return Reason(kind, _with(text, said or (tail[-1] if tail else "")))


def _with(text: str, detail: str) -> str:
    detail = " ".join(detail.split())
    if len(detail) > _SHOWN_CHARACTERS:
        detail = f"{detail[:_SHOWN_CHARACTERS]}..."
    return f"{text}: {detail}" if detail else text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
