"""`supervise status` as a drawing of the tree."""

from __future__ import annotations

from collections import defaultdict

from supervisor.calls import ChildRow, Status
from supervisor.console.paint import Paint, shown_duration
from supervisor.console.text import clip, printable, shown_size
from supervisor.overview import cpu_percent

COLOURS = {
    "running": "green",
    "standby": "cyan",
    "starting": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "restarting": "yellow",
    "waiting": "dim",
    "stopped": "dim",
    "failed": "red",
}
_DOWN = frozenset({"restarting", "failed"})
_SHOWN_REASON_CHARACTERS = 100
_SILENCE_S = 3.0
"""A node's heart beats twice a second; this long without is worth a word."""
_RECENT_S = 60.0
"""What a child that fell this short ago wrote last is shown, though it is up again."""
_TAIL_LINES = 5
_TAIL_CHARACTERS = 200
_ROUTINE = ('"level": "info"', '"level": "debug"')
_TROUBLES = 10
"""Shown of one actor."""
_TROUBLE_CHARACTERS = 200


def render_status(
    status: Status, paint: Paint, now: float, *, before: Status | None = None, verbose: bool = False
) -> str:
    """Head, tree and a line of addresses; `now` in seconds since 1970.

    With a look taken `before`, the use of CPU in between; `verbose`: also what children wrote
    last that fell long ago.
    """
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
        *_tree(status, before, paint, verbose=verbose),
        *_elsewhere(status, paint),
        f"nats {', '.join(status.nats)}   etcd {', '.join(status.etcd)}",
    ]
    lines += [f"listening on {url}" for url in status.urls]
    lines += [f"serving model {model}" for model in status.models]
    lines += [f"page at {status.web}"] if status.web else []
    return "\n".join(lines)


def _elsewhere(status: Status, paint: Paint) -> list[str]:
    """The actors of other nodes, as the registry has them."""
    if status.node is None:
        return []
    others = [actor for actor in status.registered if actor.host != status.node]
    if status.registry == "unreached":
        return [f"node {status.node}; {paint('yellow', 'the registry was not reached yet')}"]
    stale = "" if status.registry == "current" else paint("yellow", "  registry lost; as last seen")
    lines = [f"node {status.node}; on other nodes:{stale}"]
    width = max((len(f"{actor.role}/{actor.instance}") for actor in others), default=0)
    hosts = dict.fromkeys(actor.host for actor in others)
    for host in sorted(hosts | dict.fromkeys(status.nodes)):
        if host == status.node:
            continue
        notes = [] if host in hosts else ["no actor"]
        notes += ["not heard"] if host in status.silent else []
        lines.append("  ".join(("", paint("bold", host), *(paint("yellow", n) for n in notes))))
        lines += (
            f"    {f'{actor.role}/{actor.instance}':<{width}}  {actor.state}  "
            f"#{actor.incarnation}  {actor.process}  pid {actor.pid}"
            for actor in others
            if actor.host == host
        )
    return lines


def _tree(status: Status, before: Status | None, paint: Paint, *, verbose: bool) -> list[str]:
    below: defaultdict[str, list[ChildRow]] = defaultdict(list)
    for row in status.children:
        below[row.supervisor].append(row)
    drawn: list[tuple[str, str, ChildRow]] = []

    def draw(row: ChildRow, margin: str) -> None:
        children = below[row.id]
        for child in children:
            last = child is children[-1]
            inside = f"{margin}{'   ' if last else '│  '}"
            drawn.append((f"{margin}{'└─' if last else '├─'} {_name(child)}", inside, child))
            draw(child, inside)

    for root in below[""]:
        draw(root, "")
    width = max((len(name) for name, _, _ in drawn), default=0)
    earlier = {} if before is None else {row.id: row for row in before.children}
    elapsed_s = 0.0 if before is None else status.clock_s - before.clock_s
    lines: list[str] = []
    for name, inside, row in drawn:
        percent = cpu_percent(earlier.get(row.id), row, elapsed_s)
        lines.append(f"{name:<{width}}  {_facts(row, percent, paint)}".rstrip())
        lines += (
            f"{inside}  " + paint("yellow", f"! {clip(printable(trouble), _TROUBLE_CHARACTERS)}")
            for actor in row.actors
            for trouble in actor.troubles[:_TROUBLES]
        )
        if _wants_tail(row, verbose=verbose):
            telling = [line for line in row.tail if not _is_routine(line)]
            shown = row.tail if verbose else telling[-_TAIL_LINES:]
            margin = f"{inside}  "
            lines += (
                margin + paint("dim", f"| {clip(printable(line), _TAIL_CHARACTERS)}")
                for line in shown
            )
    return lines


def _is_routine(line: str) -> bool:
    """Whether it is a line of our own log that explains no fall."""
    return line.startswith("{") and any(level in line for level in _ROUTINE)


def _wants_tail(row: ChildRow, *, verbose: bool) -> bool:
    if verbose or row.state in _DOWN:
        return True
    return row.ended_ago_s is not None and row.ended_ago_s < _RECENT_S


def _name(row: ChildRow) -> str:
    return row.id.removeprefix(f"{row.supervisor}/")


def _facts(row: ChildRow, percent: float | None, paint: Paint) -> str:
    facts = _process(row, paint)
    if percent is not None:
        facts.append(f"{percent:.0f}% cpu")
    if row.memory_bytes is not None:
        facts.append(shown_size(row.memory_bytes))
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
        reason = clip(printable(row.last_exit), _SHOWN_REASON_CHARACTERS)
        ago = "" if row.ended_ago_s is None else f" {shown_duration(row.ended_ago_s)} ago"
        facts.append(paint("red" if row.state in _DOWN else "dim", f"last exit{ago}: {reason}"))
    return "  ".join(fact for fact in facts if fact)


def _process(row: ChildRow, paint: Paint) -> list[str]:
    facts = [_state(shown_state(row.state, standby=row.standby), paint)]
    if row.pid is not None:
        facts.append(f"pid {row.pid}")
    elif row.waits_for is not None:
        facts.append(paint("dim", f"waits for {row.waits_for}"))
    facts.append(_ranks(row))
    if row.uptime_s is not None and not row.is_supervisor:
        facts.append(f"up {shown_duration(row.uptime_s)}")
    return facts


def _ranks(row: ChildRow) -> str:
    if row.ranks is None:
        return ""
    return f"{row.ranks} rank{'s' if row.ranks > 1 else ''}"


def shown_state(state: str, *, standby: bool) -> str:
    """An understudy that is up does not serve, and must not look as if it did."""
    return "standby" if standby and state == "running" else state


def _state(state: str, paint: Paint) -> str:
    return paint(COLOURS.get(state, "bold"), state)
