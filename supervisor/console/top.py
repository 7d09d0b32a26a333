"""One frame of `supervise top`: a pure function of two looks, the newest events and the size.

    blue  running  up 3 min 5 s  7/7 up  2 restarts  34% cpu  1.2 GB  312 tok/s  4 req/s

    NAME           STATE     RST  CPU%     MEM  RUN  WAIT  KV USED        TOK/S  REQ/S  LAG
    ├─ context/0   running     1    34  340 MB    3     0  ███▌····  44%    120         2ms

    12:30:01  context/0       ended: killed by SIGKILL

What does not fit is left out where it hurts least: columns in the order of `Column.loss`, then
rows from the bottom, and a line says how many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from supervisor import events
from supervisor.calls import Status
from supervisor.console.columns import COLUMNS, Column, Row, show_name
from supervisor.console.happenings import shown_event
from supervisor.console.paint import Paint, shown_duration
from supervisor.console.status import COLOURS
from supervisor.console.text import (
    Line,
    Span,
    cells,
    clip,
    fit,
    painted,
    printable,
    shown_number,
    shown_size,
)
from supervisor.overview import NodeOverview, Overview, overview

MIN_NAME_WIDTH = 12
EVENTS_SHOWN = 8
"""At most, and never more than a third of the screen."""
KEYS = "q leaves  ↑↓ scrolls"
_GAP = "  "


def render_top(
    previous: Status | None,
    current: Status,
    happened: Sequence[events.Event],
    *,
    now: float,
    width: int,
    height: int | None,
    paint: Paint,
    skip: int = 0,
) -> list[str]:
    """The lines of a frame, none wider than `width`, at most `height` of them (None: all).

    `now` in seconds since 1970; `happened`: oldest first; `skip`: rows scrolled past.
    """
    seen = overview(previous, current)
    rows = _rows(seen)
    # A worker that is down for a moment must not take its columns with it.
    gauges = _gauges(current) | (set() if previous is None else _gauges(previous))
    columns = _columns(width, rows, gauges)
    lines = [*_head(seen, current, now), (), _titles(columns)]
    news = happened[-_room_for_events(height) :] if _room_for_events(height) else ()
    below: list[Line] = [(), *(shown_event(event) for event in news)] if news else []
    room = None if height is None else max(0, height - len(lines) - len(below))
    lines += _table(rows, columns, width, room, skip)
    lines += below
    return [painted(fit(line, width), paint) for line in lines[:height]]


def last_skip(current: Status, happened: int, height: int) -> int:
    """How far it makes sense to scroll on a screen of this height."""
    rows = len(_rows(overview(None, current)))
    news = min(happened, _room_for_events(height))
    head = len(_head(overview(None, current), current, current.since)) + 2
    room = height - head - (news + 1 if news else 0)
    # The line that says how many are left out takes the place of one.
    return 0 if rows <= room else max(0, rows - max(1, room - 1))


def _room_for_events(height: int | None) -> int:
    return EVENTS_SHOWN if height is None else min(EVENTS_SHOWN, height // 3)


# -- the head ------------------------------------------------------------------------------------


def _head(seen: Overview, current: Status, now: float) -> list[Line]:
    totals = seen.totals
    down = totals.processes - totals.running
    facts: list[Span] = [
        ("bold", printable(seen.namespace)),
        (COLOURS.get(seen.state, "bold"), seen.state),
        ("", f"up {shown_duration(max(0.0, now - current.since))}"),
        ("red" if down else "green", f"{totals.running}/{totals.processes} up"),
        ("yellow" if totals.restarts else "dim", _counted(totals.restarts, "restart")),
    ]
    if totals.understudies:
        ready = totals.standing_by == totals.understudies
        shown = f"{totals.standing_by}/{totals.understudies} standby"
        facts.insert(4, ("cyan" if ready else "yellow", shown))
    if totals.cpu_percent is not None:
        facts.append(("", f"{totals.cpu_percent:.0f}% cpu"))
    facts.append(("", shown_size(totals.memory_bytes)))
    if totals.tokens_per_s is not None:
        facts.append(("bold", f"{shown_number(totals.tokens_per_s)} tok/s"))
    if totals.requests_per_s is not None:
        facts.append(("bold", f"{shown_number(totals.requests_per_s)} req/s"))
        facts.append(("", f"{shown_number(totals.open)} open"))
    line: list[Span] = []
    for colour, text in facts:
        line += [("", _GAP), (colour, text)] if line else [(colour, text)]
    where = [*current.urls, *([f"page {current.web}"] if current.web else [])]
    addresses: Line = (("dim", printable(_GAP.join([*where, *current.models]))),)
    return [tuple(line), addresses] if where or current.models else [tuple(line)]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# -- the table -----------------------------------------------------------------------------------


def _rows(seen: Overview) -> list[Row]:
    below: defaultdict[str, list[NodeOverview]] = defaultdict(list)
    for node in seen.nodes:
        below[node.supervisor].append(node)
    rows: list[Row] = []

    def draw(node: NodeOverview, before: str) -> None:
        children = below[node.id]
        for child in children:
            last = child is children[-1]
            alone = child.actors[0] if _is_one(child) else None
            name = printable(child.id.removeprefix(f"{child.supervisor}/"))
            rows.append(Row(f"{before}{'└─' if last else '├─'} {name}", child, alone))
            inside = f"{before}{'   ' if last else '│  '}"
            actors = () if alone is not None else child.actors
            rows.extend(Row(f"{inside} · {printable(each.name)}", None, each) for each in actors)
            draw(child, inside)

    for root in below[""]:
        rows.append(Row(printable(root.id), root, None))
        draw(root, "")
    return rows


def _is_one(node: NodeOverview) -> bool:
    """Whether a node is its only actor, to the eye."""
    return len(node.actors) == 1


def _gauges(status: Status) -> set[str]:
    return {name for row in status.children for actor in row.actors for name in actor.gauges}


def _columns(width: int, rows: Sequence[Row], gauges: set[str]) -> list[Column]:
    """What somebody needs and fits beside the names, which are the last to be shortened."""
    names = max([MIN_NAME_WIDTH, *(cells(row.name) for row in rows)])
    columns = [column for column in COLUMNS if not column.of or column.of in gauges]
    while columns and _width_of(names, columns) > width:
        at = min(range(len(columns)), key=lambda at: columns[at].loss)
        narrow = columns[at].narrow
        columns[at : at + 1] = [] if narrow is None else [narrow]
    room = max(1, min(names, width - _width_of(0, columns)))
    return [Column("NAME", room, 0, show_name, left=True), *columns]


def _width_of(names: int, columns: Sequence[Column]) -> int:
    return names + sum(len(_GAP) + column.width for column in columns)


def _titles(columns: Sequence[Column]) -> Line:
    return _line(columns, [("dim", column.title) for column in columns])


def _table(
    rows: Sequence[Row], columns: Sequence[Column], width: int, room: int | None, skip: int
) -> list[Line]:
    shown = rows[min(skip, max(0, len(rows) - 1)) :]
    if room is None or len(shown) <= room:
        return [*(_shown_row(columns, row, width) for row in shown)]
    if room == 0:
        return []
    left_out = len(shown) - (room - 1)
    more: Line = (("dim", f"{left_out} more below; {KEYS}"),)
    return [*(_shown_row(columns, row, width) for row in shown[: room - 1]), more]


def _shown_row(columns: Sequence[Column], row: Row, width: int) -> Line:
    contents = [column.show(row) for column in columns]
    if row.actor is None or not row.actor.other:
        return _line(columns, contents)
    # What actors of one's own tell goes where room is left, behind the last cell with something.
    used = max(at + 1 for at, (_, text) in enumerate(contents) if text)
    line = _line(columns[:used], contents[:used])
    room = width - sum(cells(text) for _, text in line)
    other = ""
    told = [(name, value) for name, value in row.actor.other.items() if value]
    for name, value in told:
        more = printable(f"{_GAP}{name} {shown_number(value)}")
        # What does not fit whole would only be a riddle.
        other += more if cells(other) + cells(more) <= room else ""
    return (*line, ("dim", other))


def _line(columns: Sequence[Column], contents: Sequence[Span]) -> Line:
    spans: list[Span] = []
    for column, (colour, text) in zip(columns, contents, strict=True):
        text = clip(text, column.width)  # noqa: PLW2901 - the same cell, cut to its width
        padding = " " * (column.width - cells(text))
        spans.append(("", _GAP if spans else ""))
        spans += [(colour, text), ("", padding)] if column.left else [("", padding), (colour, text)]
    return tuple(spans)
