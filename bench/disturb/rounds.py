"""Rounds of faults under streams, and load without an end under faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import msgspec

from bench.disturb.kinds import Kind, Strike, heal, strike
from bench.disturb.stage import COUNTERS, Stage, Unsettled
from bench.disturb.stream import Asked, Stream, run

HANG_S = 60.0
"""A stream without an end after this long hangs."""
REST_S = 45.0
"""How long the service may take to come to rest after a fault; blocks of a handoff whose end was
never told are kept for `handoff_ttl_s`."""
LATE_SHARE = 4
"""One in so many streams is sent just after the fault: new requests have to be served too."""
LAG_SAMPLE_S = 0.01
STEP_S = 0.015
"""Of the engine in chaos.yaml: how long a token takes."""


class StreamNote(msgspec.Struct, frozen=True):
    """What is kept of one stream."""

    verdict: str
    excused: bool
    """It was cut with the ingress that held it."""
    silence_s: float
    first_s: float
    lost: int
    repeated: int
    wrong: int
    problem: str
    sent_at: float
    ended_at: float


class Round(msgspec.Struct, frozen=True):
    """One disturbance and the streams that saw it."""

    kinds: tuple[str, ...]
    strikes: list[Strike]
    streams: list[StreamNote]
    counters: dict[str, float]
    settled_s: float
    """From the strike until everything was up and nothing was left of any request."""
    unsettled: str = ""


def note(stream: Stream, strikes: Sequence[Strike]) -> StreamNote:
    """What is kept of a stream, once it is judged."""
    return StreamNote(
        stream.verdict or "hung",
        stream.verdict == "cut" and _was_held_by_a_victim(stream, strikes),
        stream.silence_s,
        (stream.times[0] if stream.times else stream.ended_at) - stream.sent_at,
        stream.damage.lost,
        stream.damage.repeated,
        stream.damage.wrong,
        stream.problem,
        stream.sent_at,
        stream.ended_at,
    )


def _was_held_by_a_victim(stream: Stream, strikes: Sequence[Strike]) -> bool:
    for one in strikes:
        if not one.kind.startswith("ingress"):
            continue
        if stream.local_port in one.cut_ports:
            return True
        # Connected, but not accepted yet: it waited in the queue of the victim's listener.
        if not stream.begun and abs(stream.sent_at - one.at) < 0.25:
            return True
    return False


class Lag:
    """How late the client's own loop is: what it measures cannot be finer."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._task = asyncio.get_running_loop().create_task(self._sample(), name="lag")

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SAMPLE_S
            await asyncio.sleep(LAG_SAMPLE_S)
            self.samples.append(max(0.0, loop.time() - due))

    def p99_s(self) -> float:
        ordered = sorted(self.samples)
        return ordered[int(0.99 * (len(ordered) - 1))] if ordered else 0.0

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Counts:
    """Sums the ingresses' counters over their lives, each of which begins at zero."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._last: dict[str, dict[str, float]] = {}

    async def look(self) -> dict[str, float]:
        """How much was counted since the last look."""
        grown = dict.fromkeys(COUNTERS, 0.0)
        for name, gauges in (await self._stage.gauges()).items():
            if not name.startswith("ingress"):
                continue
            before = self._last.get(name, {})
            for counter in COUNTERS:
                now, then = gauges.get(counter, 0.0), before.get(counter, 0.0)
                grown[counter] += now - then if now >= then else now
            self._last[name] = gauges
        return grown


async def one_round(
    stage: Stage,
    kinds: Sequence[Kind],
    dice: random.Random,
    counts: Counts,
    *,
    streams: int,
    tokens: int,
) -> Round:
    """Streams, and in the middle of them the faults, up to 0.3 s apart; then back to rest."""
    loop = asyncio.get_running_loop()
    made = [Stream(Asked.random(dice, tokens), "chaos", n) for n in range(streams)]
    late = streams // LATE_SHARE if kinds else 0
    first, then = made[late:], made[:late]

    async def send(stream: Stream, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await run(stream, stage.address, timeout_s=HANG_S)

    strikes: list[Strike] = []
    async with asyncio.TaskGroup() as group:
        for stream in first:
            group.create_task(send(stream, dice.uniform(0.0, 0.2)))
        await asyncio.sleep(0.2 + dice.uniform(0.15, 0.75) * tokens * STEP_S)
        for kind in kinds:
            if strikes:
                await asyncio.sleep(dice.uniform(0.0, 0.3))
            strikes.append(await strike(stage, kind, dice, lambda: sum(s.live for s in made)))
        for stream in then:
            group.create_task(send(stream, dice.uniform(0.0, 0.3)))
        await heal(stage, strikes)
    began = strikes[0].at if strikes else loop.time()
    unsettled = ""
    try:
        await stage.at_rest(deadline_s=REST_S)
    except Unsettled as error:
        unsettled = str(error)
    return Round(
        tuple(kind.name for kind in kinds),
        strikes,
        [note(stream, strikes) for stream in made],
        await counts.look(),
        loop.time() - began,
        unsettled,
    )


class Endless:
    """Streams without an end, each judged as it ends, under faults at random times."""

    def __init__(self, stage: Stage, dice: random.Random, *, streams: int) -> None:
        self.strikes: list[Strike] = []
        self.notes: list[StreamNote] = []
        self.tokens: list[tuple[float, int]] = []
        """(time, tokens delivered so far), every second."""
        self._stage = stage
        self._dice = dice
        self._number = streams
        self._live: set[Stream] = set()
        self._delivered = 0
        self._over = False

    async def run(
        self, kinds: Sequence[Kind], duration_s: float, tell: Callable[[str], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + duration_s
        async with asyncio.TaskGroup() as group:
            for _ in range(self._number):
                group.create_task(self._client())
            counting = group.create_task(self._count())
            while loop.time() < until:
                await asyncio.sleep(min(self._dice.expovariate(1 / 4.0) + 0.5, 15.0))
                kind = self._dice.choice(list(kinds))
                with_another = self._dice.random() < 0.1
                await self._strike(kind, tell)
                if with_another:
                    await self._strike(self._dice.choice(list(kinds)), tell)
                await heal(self._stage, self.strikes[-2:])
                await self._stage.all_running()
            self._over = True
            counting.cancel()

    async def _strike(self, kind: Kind, tell: Callable[[str], None]) -> None:
        if kind.role == "supervisor" and not self._stage.supervised:
            return
        done = await strike(self._stage, kind, self._dice, lambda: len(self._live))
        self.strikes.append(done)
        tell(f"{kind.name} {done.victim}, {done.live} streams live, {len(self.notes)} judged")

    async def _client(self) -> None:
        number = 0
        while not self._over:
            number += 1
            asked = Asked.random(self._dice, self._dice.randrange(32, 257))
            stream = Stream(asked, "chaos", number)
            self._live.add(stream)
            await run(stream, self._stage.address, timeout_s=HANG_S)
            self._live.discard(stream)
            self._delivered += len(stream.times)
            near = [one for one in self.strikes if one.at > stream.sent_at - 1.0]
            self.notes.append(note(stream, near))
            if stream.verdict in {"refused", "cut"}:
                await asyncio.sleep(0.2)

    async def _count(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            live = sum(len(stream.times) for stream in self._live)
            self.tokens.append((loop.time(), self._delivered + live))
            await asyncio.sleep(1.0)
