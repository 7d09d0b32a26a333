"""From notes to a table and a verdict on the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from bench.disturb.kinds import KINDS
from bench.disturb.rounds import Round, StreamNote

MAX_LAG_P99_S = 0.05
"""A client that is later than this measures itself."""
CONTROL = "nothing"
"""Rounds without a fault, to compare with."""


class Row(msgspec.Struct, frozen=True):
    """All rounds of one kind together."""

    kind: str
    rounds: int
    streams: int
    cut: int
    """Connections of a killed ingress itself."""
    errors: int
    """Every other end that is no proper one."""
    lost: int
    repeated: int
    wrong: int
    hung: int
    p50_s: float
    p99_s: float
    max_s: float
    settled_s: float
    """The longest time until the service was whole and empty again."""


def row(kind: str, rounds: int, notes: Sequence[StreamNote], settled_s: float) -> Row:
    """Silences are those of streams that were served to the end."""
    silences = sorted(one.silence_s for one in notes if one.verdict in {"right", "wrong"})
    return Row(
        kind,
        rounds,
        len(notes),
        sum(one.excused for one in notes),
        sum(one.verdict in {"refused", "error", "cut"} and not one.excused for one in notes),
        sum(one.lost for one in notes),
        sum(one.repeated for one in notes),
        sum(one.wrong for one in notes),
        sum(one.verdict == "hung" for one in notes),
        percentile(silences, 0.5),
        percentile(silences, 0.99),
        silences[-1] if silences else 0.0,
        settled_s,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed; 0 of none."""
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))] if ordered else 0.0


def rows_of(rounds: Iterable[Round]) -> list[Row]:
    """One row a kind (or pair of kinds), in the order in which they were first seen."""
    by_kind: dict[str, list[Round]] = {}
    for one in rounds:
        by_kind.setdefault(" + ".join(one.kinds) or CONTROL, []).append(one)
    return [
        row(
            kind,
            len(group),
            [note for one in group for note in one.streams],
            max(one.settled_s for one in group),
        )
        for kind, group in by_kind.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """For people; silences in milliseconds."""
    width = max((len(one.kind) for one in rows), default=0) + 2
    head = (
        f"{'fault':<{width}}{'rounds':>7}{'streams':>9}{'own cut':>9}{'errors':>8}{'lost':>6}"
        f"{'repeated':>10}{'wrong':>7}{'hung':>6}   {'silence p50':>11}{'p99':>7}{'max':>7} ms"
        f"{'whole again':>13} s"
    )
    lines = [
        f"{one.kind:<{width}}{one.rounds:>7}{one.streams:>9}{one.cut:>9}{one.errors:>8}"
        f"{one.lost:>6}{one.repeated:>10}{one.wrong:>7}{one.hung:>6}   "
        f"{one.p50_s * 1000:>11.0f}{one.p99_s * 1000:>7.0f}{one.max_s * 1000:>7.0f}   "
        f"{one.settled_s:>13.1f}"
        for one in rows
    ]
    return "\n".join([head, *lines])


def broken(rows: Sequence[Row], *, bars: bool, may_fail: bool = False) -> list[str]:
    """Promises that were not kept, one sentence each. `may_fail`: explicit errors are allowed, as
    where two things fall at once."""
    found = []
    for one in rows:
        found += [
            f"{one.kind}: {count} tokens {what}"
            for what in ("lost", "repeated", "wrong")
            if (count := getattr(one, what))
        ]
        if one.hung:
            found.append(f"{one.kind}: {one.hung} streams without an end")
        if one.errors and not may_fail:
            found.append(f"{one.kind}: {one.errors} streams failed")
        bar_s = KINDS[one.kind].bar_s if one.kind in KINDS else None
        if bars and bar_s is not None and one.p99_s > bar_s:
            found.append(f"{one.kind}: silence p99 {one.p99_s:.2f} s is over {bar_s} s")
    return found


def invalid(rounds: Sequence[Round], *, lag_p99_s: float, minimum: int) -> list[str]:
    """Why a run says nothing, one sentence each; empty when it does say something."""
    found = []
    served = sum(note.verdict == "right" for one in rounds for note in one.streams)
    if served < minimum:
        found.append(f"only {served} streams were served, at least {minimum} are needed")
    if lag_p99_s > MAX_LAG_P99_S:
        found.append(f"the client was too slow: its loop was {lag_p99_s * 1000:.0f} ms late at p99")
    missed = Counter(strike.kind for one in rounds for strike in one.strikes if not strike.live)
    found += [f"{count} of {kind} hit no live stream" for kind, count in missed.items()]
    return found


def problems(notes: Iterable[StreamNote], limit: int = 12) -> list[str]:
    """What failed streams said, the most frequent first."""
    said = Counter(
        f"{note.verdict}: {note.problem}"
        for note in notes
        if note.verdict != "right" and not note.excused
    )
    return [f"{count} x {text}" for text, count in said.most_common(limit)]
