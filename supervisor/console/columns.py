"""The columns of `supervise top`, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from supervisor.console.status import COLOURS, shown_state
from supervisor.console.text import Span, shown_number, shown_size
from supervisor.overview import REQUESTS, TOKENS, ActorOverview, NodeOverview

BAR_CELLS = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LATE_S = 0.1
"""A loop this late is worth a colour."""
_VERY_LATE_S = 1.0


class Row(NamedTuple):
    """One line of the table: a node, an actor of it, or both when they are one."""

    name: str
    node: NodeOverview | None
    actor: ActorOverview | None


class Column(NamedTuple):
    title: str
    width: int
    loss: int
    """What its absence costs: the lowest go first on a narrow screen."""
    show: Callable[[Row], Span]
    left: bool = False
    of: str = ""
    """The gauge without which nobody needs the column; empty: always needed."""
    narrow: Column | None = None
    """What stands in for it when it is lost, to be lost later itself."""


def show_name(row: Row) -> Span:
    return ("" if row.node is not None else "dim", row.name)


def _state(row: Row) -> Span:
    if row.node is None:
        return ("", "")
    state = shown_state(row.node.state, standby=row.node.standby)
    return (COLOURS.get(state, "bold"), state)


def _restarts(row: Row) -> Span:
    if row.node is None:
        return ("", "")
    return ("yellow" if row.node.restarts else "dim", str(row.node.restarts))


def _cpu(row: Row) -> Span:
    percent = None if row.node is None else row.node.cpu_percent
    return ("", "") if percent is None else ("", f"{percent:.0f}")


def _memory(row: Row) -> Span:
    size = None if row.node is None else row.node.memory_bytes
    return ("", "") if size is None else ("", shown_size(size))


def _lag(row: Row) -> Span:
    lag_s = None if row.node is None else row.node.lag_s
    if lag_s is None:
        return ("", "")
    colour = "red" if lag_s > _VERY_LATE_S else "yellow" if lag_s > _LATE_S else ""
    return (colour, f"{1000 * lag_s:.0f}ms" if lag_s < 9.9995 else f"{lag_s:.0f}s")


def _bar(row: Row) -> Span:
    used = None if row.actor is None else row.actor.kv_used
    if used is None:
        return ("", "")
    return (_fill_colour(used), f"{bar(used, BAR_CELLS)} {100 * used:3.0f}%")


def _share(row: Row) -> Span:
    used = None if row.actor is None else row.actor.kv_used
    return ("", "") if used is None else (_fill_colour(used), f"{100 * used:.0f}%")


def _fill_colour(used: float) -> str:
    return "red" if used >= 0.95 else "yellow" if used >= 0.8 else "green"


def bar(share: float, width: int) -> str:
    """A share of 0 to 1 in eighths of a column; what is outside is drawn as the nearest."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return f"{'█' * full}{_EIGHTHS[rest] if rest else ''}".ljust(width, "·")


def _number(value: float | None, colour: str = "") -> Span:
    if value is None:
        return ("", "")
    return ("dim" if value == 0 else colour, shown_number(value))


def _of_actor(
    read: Callable[[ActorOverview], float | None], colour: str = ""
) -> Callable[[Row], Span]:
    def show(row: Row) -> Span:
        return ("", "") if row.actor is None else _number(read(row.actor), colour)

    return show


COLUMNS = (
    Column("STATE", 10, 100, _state, left=True),
    Column("RST", 3, 90, _restarts),
    Column("CPU%", 5, 60, _cpu),
    Column("MEM", 6, 50, _memory),
    Column("MBOX", 5, 30, _of_actor(lambda actor: actor.mailbox)),
    Column("OPEN", 5, 20, _of_actor(lambda actor: actor.open), of="open"),
    Column("RUN", 5, 70, _of_actor(lambda actor: actor.running), of="running"),
    Column("WAIT", 5, 65, _of_actor(lambda actor: actor.waiting, "yellow"), of="waiting"),
    Column(
        *("KV USED", BAR_CELLS + 5, 40, _bar),
        left=True,
        of="kv_used",
        narrow=Column("KV", 4, 68, _share),
    ),
    Column("TOK/S", 5, 80, _of_actor(lambda actor: actor.tokens_per_s, "bold"), of=TOKENS),
    Column("REQ/S", 5, 75, _of_actor(lambda actor: actor.requests_per_s, "bold"), of=REQUESTS),
    Column("LAG", 6, 35, _lag),
)
