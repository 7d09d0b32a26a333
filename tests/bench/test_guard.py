"""The guard of costs: what it counts, and when it complains."""

from __future__ import annotations

import asyncio
import os
import sys
from types import FrameType
from typing import Any

from bench.guard import TOKENS, answers, compare, is_whole, streams
from bench.guarding.counting import Counts, counting
from bench.guarding.service import Loop, request, service


def work(turns: int) -> None:
    read, write = os.pipe()
    for _ in range(turns):
        os.write(write, b"x")
    os.close(read)
    os.close(write)


def counts_of(turns: int) -> Counts:
    with counting() as counts:
        before = counts.copy()
        work(turns)
        return counts - before


def test_the_same_work_has_the_same_counts() -> None:
    first, second, more = counts_of(10), counts_of(10), counts_of(11)

    assert first == second
    assert (first.writes, more.writes) == (10, 11)
    assert more.c_calls == first.c_calls + 1
    assert more.instructions > first.instructions > 10


def test_a_count_that_has_grown_by_more_than_is_tolerated_is_named() -> None:
    stored = {"streamed token": {"calls": 10.0, "messages": 2.0, "nothing": 0.0}}
    fine = {"streamed token": {"calls": 11.4, "messages": 1.0, "nothing": 0.0}}
    grown = {"streamed token": {"calls": 12.0, "messages": 2.0, "nothing": 0.0}}

    assert compare(fine, stored)[1] == []
    [complaint] = compare(grown, stored)[1]
    assert complaint == "a streamed token takes 12.00 calls, +20% (10.00 stored)"


def test_an_answer_is_whole_once_its_body_is_there() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"

    assert not is_whole(head[:20])
    assert not is_whole(head + b"ab")
    assert is_whole(head + b"abc")


def test_where_nothing_is_traced_no_code_of_tracing_runs() -> None:
    seen: set[str] = set()

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    async def serve() -> None:
        async with service() as running:
            sys.setprofile(profile)
            try:
                await streams(running, [request(0, TOKENS, stream=True)])
                await answers(running, [request(0, 1, stream=False)])
            finally:
                sys.setprofile(None)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(serve())

    assert any(file.endswith("actors/ingress/http.py") for file in seen)
    assert [file for file in seen if "/tracing" in file or "opentelemetry" in file] == []
