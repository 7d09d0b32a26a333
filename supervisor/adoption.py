"""Which of the processes that a dead supervisor left are taken over by the next one. Pure.

A process is taken over when it is the very one that was started (its pid and its start time), and
when it would be started just so today (its *identity*). All others are ended; what has died
meanwhile is started like anything that died. So whatever is the difference between two topology
files of one namespace, nothing runs twice and nothing runs as it should not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from supervisor.runstate import RunningChild, RunState


class Adoption(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about a run state. A name is in `taken` at most once."""

    taken: dict[str, RunningChild] = {}
    """By id: alive, and as they should be."""
    refused: tuple[RunningChild, ...] = ()
    """Alive, but unknown or to be started otherwise today: to be ended."""
    lost: tuple[RunningChild, ...] = ()
    """Not alive any more."""
    above: dict[str, int] = {}
    """By actor name: the last incarnation known."""


NOTHING = Adoption()


def identity_of(*parts: object) -> str:
    """A short name for what a process is started with; the parts must be what JSON can hold.

    A hash, as secrets are among the parts.
    """
    content = msgspec.json.encode(parts, order="deterministic")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def choose(
    identities: Mapping[str, str],
    last: RunState | None,
    is_alive: Callable[[RunningChild], bool],
) -> Adoption:
    """Sort what the last supervisor left. `identities`: by id, of what may be taken over today."""
    if last is None:
        return NOTHING
    taken: dict[str, RunningChild] = {}
    refused: list[RunningChild] = []
    lost: list[RunningChild] = []
    above = dict(last.above)
    for child in last.children:
        for name, incarnation in child.incarnations.items():
            above[name] = max(incarnation, above.get(name, 0))
        if not is_alive(child):
            lost.append(child)
        elif child.name not in taken and identities.get(child.name) == child.identity != "":
            taken[child.name] = child
        else:
            refused.append(child)
    return Adoption(taken=taken, refused=tuple(refused), lost=tuple(lost), above=above)
