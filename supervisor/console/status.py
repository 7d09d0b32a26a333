"""`supervise status` as a drawing of the tree."""

from __future__ import annotations

from collections import defaultdict

from supervisor.calls import ChildRow, Status
from supervisor.console.paint import Paint, shown_duration

_COLOURS = {
    "running": "green",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "restarting": "yellow",
    "waiting": "dim",
    "stopped": "dim",
    "failed": "red",
}
_SHOWN_REASON_CHARACTERS = 100
_SILENCE_S = 3.0
"""A node's heart beats twice a second; this long without is worth a word."""


def render_status(status: Status, paint: Paint, now: float) -> str:
    """Head, tree and a line of addresses; `now` in seconds since 1970."""
    up = shown_duration(max(0.0, now - status.since))
    lines = [
        "  ".join(
            (
                paint("bold", status.namespace),
                _state(status.state, paint),
                f"up {up}",
                f"pid {status.pid}",
                status.topology,
            )
        ),
        *_tree(status.children, paint),
        f"nats {', '.join(status.nats)}   etcd {', '.join(status.etcd)}",
    ]
    lines += [f"listening on {url}" for url in status.urls]
    lines += [f"serving model {model}" for model in status.models]
    return "\n".join(lines)


def _tree(rows: tuple[ChildRow, ...], paint: Paint) -> list[str]:
    below: defaultdict[str, list[ChildRow]] = defaultdict(list)
    for row in rows:
        below[row.supervisor].append(row)
    drawn: list[tuple[str, ChildRow]] = []

    def draw(row: ChildRow, before: str) -> None:
        children = below[row.id]
        for child in children:
            last = child is children[-1]
            drawn.append((f"{before}{'└─' if last else '├─'} {_name(child)}", child))
            draw(child, f"{before}{'   ' if last else '│  '}")

    for root in below[""]:
        draw(root, "")
    width = max((len(name) for name, _ in drawn), default=0)
    return [f"{name:<{width}}  {_facts(row, paint)}".rstrip() for name, row in drawn]


def _name(row: ChildRow) -> str:
    return row.id.removeprefix(f"{row.supervisor}/")


def _facts(row: ChildRow, paint: Paint) -> str:
    facts = [_state(row.state, paint)]
    if row.pid is not None:
        facts.append(f"pid {row.pid}")
    if row.uptime_s is not None and not row.is_supervisor:
        facts.append(f"up {shown_duration(row.uptime_s)}")
    if row.beat_age_s is not None and row.beat_age_s > _SILENCE_S:
        facts.append(paint("yellow", f"silent for {shown_duration(row.beat_age_s)}"))
    if row.next_retry_s is not None:
        facts.append(f"next try in {shown_duration(row.next_retry_s)}")
    if row.restarts:
        facts.append(f"{row.restarts} restart{'s' if row.restarts > 1 else ''}")
    for actor in row.actors:
        life = "" if actor.incarnation is None else f"#{actor.incarnation}"
        # An actor with the name of its node needs to be told by its incarnation alone.
        facts.append(f"{'' if actor.name == row.id else actor.name}{life}")
    if row.last_exit is not None and not row.is_supervisor:
        reason = row.last_exit
        if len(reason) > _SHOWN_REASON_CHARACTERS:
            reason = f"{reason[:_SHOWN_REASON_CHARACTERS]}..."
        facts.append(paint("dim", f"last exit: {reason}"))
    return "  ".join(fact for fact in facts if fact)


def _state(state: str, paint: Paint) -> str:
    return paint(_COLOURS.get(state, "bold"), state)
