"""Faults under load, with a checker that recomputes every token.

    python -m bench.chaos                       an hour of random faults under 32 streams
    python -m bench.chaos --minutes 5
    python -m bench.chaos --table               each kind of fault 30 times, a table (30 minutes)
    python -m bench.chaos --table --rounds 3 --kinds generation-killed,nats-killed
    python -m bench.chaos --pairs               every two kinds at once, once each

Starts a service of its own (bench/disturb/chaos.yaml), kills and freezes its processes, and
compares what every client received with what the simulated engine must have said. The exit code
is 1 for a broken promise and 2 for a run that says nothing: a client that was too slow, a fault
that met no live stream, a state that was never reached.

Silence is the widest gap between two signs of life that a client saw, from its request to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.disturb import leaks, plot
from bench.disturb.judge import (
    CONTROL,
    Row,
    broken,
    invalid,
    percentile,
    problems,
    row,
    rows_of,
    table,
)
from bench.disturb.kinds import KINDS, Kind, Strike
from bench.disturb.rounds import Counts, Endless, Lag, Round, StreamNote, one_round
from bench.disturb.stage import Stage, Unsettled, stage

RESULTS = Path(__file__).parent / "results"
EXIT_BROKEN, EXIT_INVALID = 1, 2
SOMETIMES = {
    "replays": {"generation-killed", "generation-frozen"},
    "asked": {"nats-killed", "nats-paused", "generation-frozen"},
}
"""Counters that must not be zero in the end when these kinds were used."""


class Outcome(msgspec.Struct, kw_only=True):
    """What is written to the JSON file."""

    mode: str
    seed: int
    streams: int
    took_s: float
    rows: list[Row]
    sometimes: dict[str, float]
    lag_p99_ms: float
    before: leaks.Holdings
    after: leaks.Holdings
    broken: list[str]
    invalid: list[str]
    problems: list[str]
    rounds: list[Round] = []
    strikes: list[Strike] = []
    notes: list[StreamNote] = []
    tokens: list[tuple[float, int]] = []


def chosen(text: str) -> list[Kind]:
    """The kinds of a comma-separated list. Raises argparse.ArgumentTypeError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(KINDS))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; of {', '.join(KINDS)}")
    return [KINDS[name] for name in names]


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mode = command.add_mutually_exclusive_group()
    mode.add_argument("--minutes", type=float, default=60.0, metavar="N")
    mode.add_argument("--table", action="store_true", help="each kind by itself")
    mode.add_argument("--pairs", action="store_true", help="every two kinds at once")
    command.add_argument("--rounds", type=int, help="of each; default 30, of pairs 1")
    command.add_argument("--kinds", type=chosen, default=list(KINDS.values()), metavar="A,B")
    command.add_argument("--streams", type=int, default=32)
    command.add_argument("--tokens", type=int, default=128, help="of a stream; not of --minutes")
    command.add_argument("--seed", type=int, default=0, help="0: a new one, which is printed")
    command.add_argument("--no-bars", action="store_true", help="do not judge silences")
    command.add_argument("--json", type=Path, metavar="FILE", help="default: bench/results/")
    command.add_argument("--plot", type=Path, metavar="FILE.svg", help="default: bench/results/")
    return command


async def in_rounds(
    service: Stage, plan: Sequence[tuple[Kind, ...]], options: argparse.Namespace, seed: int
) -> tuple[list[Round], Counter[str]]:
    """The rounds of the plan, in an order that spreads each kind over the whole run."""
    dice = random.Random(seed)
    counts = Counts(service)
    await counts.look()
    rounds: list[Round] = []
    sums: Counter[str] = Counter()
    for number, kinds in enumerate(plan, 1):
        done = await one_round(
            service, kinds, dice, counts, streams=options.streams, tokens=options.tokens
        )
        rounds.append(done)
        sums.update(done.counters)
        _tell(f"{number}/{len(plan)} {_sentence(done)}")
        if done.unsettled and not await _came_round(service):
            break
    return rounds, sums


async def _came_round(service: Stage) -> bool:
    """Whether a service that did not settle in time does so later. It is broken either way."""
    try:
        await service.at_rest()
    except Unsettled:
        return False
    return True


def _sentence(done: Round) -> str:
    verdicts = Counter("own cut" if n.excused else n.verdict for n in done.streams)
    silence = max(note.silence_s for note in done.streams)
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    victims = " + ".join(strike.victim for strike in done.strikes)
    name = " + ".join(done.kinds) or CONTROL
    trouble = f"; {done.unsettled}" if done.unsettled else ""
    bad = problems(done.streams, 3)
    return (
        f"{name} ({victims}): {said}; widest silence {silence:.2f} s, "
        f"whole after {done.settled_s:.1f} s{trouble}" + "".join(f"\n      {one}" for one in bad)
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def carry_out(options: argparse.Namespace, seed: int) -> Outcome:
    """Run what was asked for, against a service of our own."""
    kinds: list[Kind] = options.kinds
    mode = "table" if options.table else "pairs" if options.pairs else "hour"
    with tempfile.TemporaryDirectory(prefix="chaos-") as base:
        async with stage(Path(base)) as service:
            # What is loaded with the first requests is no leak.
            warm = Counts(service)
            await one_round(service, (), random.Random(1), warm, streams=32, tokens=32)
            before = leaks.look(service)
            lag, began = Lag(), time.monotonic()
            if mode == "hour":
                outcome = await _hour(service, kinds, options, seed)
            else:
                outcome = await _in_rounds(service, kinds, mode, options, seed)
            await lag.end()
            outcome.took_s = time.monotonic() - began
            outcome.before, outcome.after = before, leaks.look(service)
            outcome.lag_p99_ms = lag.p99_s() * 1000
            outcome.sometimes |= _from_the_log(Path(base) / "supervisor.log")
    outcome.invalid = _invalid(outcome, kinds, lag.p99_s(), options.streams)
    outcome.broken += leaks.leaks(outcome.before, outcome.after)
    return outcome


async def _in_rounds(
    service: Stage, kinds: list[Kind], mode: str, options: argparse.Namespace, seed: int
) -> Outcome:
    if mode == "table":
        once: list[tuple[Kind, ...]] = [(), *((kind,) for kind in kinds)]
    else:
        once = list(itertools.combinations(kinds, 2))
    plan = once * (options.rounds or (30 if mode == "table" else 1))
    rounds, sums = await in_rounds(service, plan, options, seed)
    rows = rows_of(rounds)
    found = broken(rows, bars=not options.no_bars, may_fail=mode == "pairs")
    found += [f"{' + '.join(one.kinds)}: {one.unsettled}" for one in rounds if one.unsettled]
    outcome = _outcome(mode, seed, options, rows, found)
    outcome.rounds, outcome.sometimes = rounds, dict(sums)
    outcome.problems = problems(note for one in rounds for note in one.streams)
    return outcome


async def _hour(
    service: Stage, kinds: list[Kind], options: argparse.Namespace, seed: int
) -> Outcome:
    counts = Counts(service)
    await counts.look()
    endless = Endless(service, random.Random(seed), streams=options.streams)
    sums: Counter[str] = Counter()

    async def keep_counting() -> None:
        while True:
            await asyncio.sleep(2.0)
            sums.update(await counts.look())

    counting = asyncio.get_running_loop().create_task(keep_counting(), name="counting")
    unsettled = []
    try:
        await endless.run(kinds, options.minutes * 60, _tell)
        await service.at_rest()
    except* Unsettled as errors:
        unsettled = [str(error) for error in errors.exceptions]
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    rows = _rows_by_time(endless)
    found = broken(rows, bars=False, may_fail=True) + unsettled
    alone = [one for one in rows if " + " not in one.kind]
    found += [f"{one.kind}: {one.errors} streams failed" for one in alone if one.errors]
    outcome = _outcome("hour", seed, options, rows, found)
    outcome.strikes, outcome.notes, outcome.tokens = endless.strikes, endless.notes, endless.tokens
    outcome.sometimes = dict(sums)
    outcome.problems = problems(endless.notes)
    return outcome


def _rows_by_time(endless: Endless) -> list[Row]:
    """Each stream is put to the faults that fell into its time."""
    by_kind: dict[str, list[StreamNote]] = {}
    struck: Counter[str] = Counter(one.kind for one in endless.strikes)
    for note in endless.notes:
        inside = [one for one in endless.strikes if note.sent_at - 3 < one.at < note.ended_at]
        kinds = [one.kind for one in inside if one.at > note.sent_at - 0.5]
        name = kinds[0] if len(inside) == len(kinds) == 1 else "several + at once" if inside else ""
        by_kind.setdefault(name or CONTROL, []).append(note)
    return [row(kind, struck[kind], notes, 0.0) for kind, notes in sorted(by_kind.items())]


def _outcome(
    mode: str, seed: int, options: argparse.Namespace, rows: list[Row], found: list[str]
) -> Outcome:
    nothing = leaks.Holdings({}, [], 0)
    return Outcome(
        mode=mode,
        seed=seed,
        streams=options.streams,
        took_s=0.0,
        rows=rows,
        sometimes={},
        lag_p99_ms=0.0,
        before=nothing,
        after=nothing,
        broken=found,
        invalid=[],
        problems=[],
    )


def _from_the_log(log: Path) -> dict[str, float]:
    """What supervisors did, counted in what they wrote."""
    text = log.read_text(errors="replace")
    return {
        "watchdog kills": text.count("hung: no heartbeat") + text.count("hung: no answer"),
        "children adopted": text.count('"child_adopted"'),
    }


def _invalid(outcome: Outcome, kinds: Sequence[Kind], lag_p99_s: float, streams: int) -> list[str]:
    if outcome.mode == "hour":
        as_one = Round(("hour",), outcome.strikes, outcome.notes, {}, 0.0)
        rounds = [as_one]
    else:
        rounds = outcome.rounds
    found = invalid(rounds, lag_p99_s=lag_p99_s, minimum=streams)
    used = {kind.name for kind in kinds}
    for counter, needs in SOMETIMES.items():
        if needs & used and not outcome.sometimes.get(counter):
            found.append(f"'{counter}' was never reached")
    return found


def show(outcome: Outcome) -> str:
    """The whole run for people."""
    parts = [table(outcome.rows), ""]
    counted = ", ".join(f"{name} {count:.0f}" for name, count in outcome.sometimes.items())
    parts.append(f"reached: {counted}")
    settled = sorted(one.settled_s for one in outcome.rounds)
    if settled:
        parts.append(
            f"whole again after p50 {percentile(settled, 0.5):.1f} s, max {settled[-1]:.1f} s"
        )
    parts.append(
        f"client late {outcome.lag_p99_ms:.1f} ms at p99; {outcome.took_s:.0f} s, "
        f"seed {outcome.seed}"
    )
    names = sorted(outcome.after.by_name)
    memory = ", ".join(
        f"{name} {outcome.before.by_name[name].memory_bytes >> 20}→"
        f"{outcome.after.by_name[name].memory_bytes >> 20} MB "
        f"{outcome.before.by_name[name].fds}→{outcome.after.by_name[name].fds} fds"
        for name in names
        if name in outcome.before.by_name
    )
    parts.append(f"held: {memory}")
    parts += [f"  {text}" for text in outcome.problems]
    parts += [f"BROKEN   {text}" for text in outcome.broken]
    parts += [f"INVALID  {text}" for text in outcome.invalid]
    if not (outcome.broken or outcome.invalid):
        parts.append("every promise was kept")
    return "\n".join(parts)


def main() -> int:
    options = parser().parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 31)
    outcome = uvloop.run(carry_out(options, seed))
    print(show(outcome))
    RESULTS.mkdir(exist_ok=True)
    json = options.json or RESULTS / f"chaos-{outcome.mode}.json"
    # Of tens of thousands of streams those that something befell; the rest is counted in the rows.
    told = [note for note in outcome.notes if note.verdict != "right"]
    json.write_bytes(msgspec.json.encode(msgspec.structs.replace(outcome, notes=told)) + b"\n")
    drawn = plot.of_time(outcome.tokens, outcome.strikes, outcome.notes)
    if outcome.mode != "hour":
        drawn = plot.of_kinds(outcome.rows)
    (options.plot or json.with_suffix(".svg")).write_text(drawn)
    _tell(f"written: {json}")
    if outcome.broken:
        return EXIT_BROKEN
    return EXIT_INVALID if outcome.invalid else 0


if __name__ == "__main__":
    sys.exit(main())
