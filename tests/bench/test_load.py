"""The load generator: its pure parts, and its whole against a small real server."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import socket
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import parser, plan_of, run
from bench.loadgen.cpu import Process, all_processes, parse_stat, select, used
from bench.loadgen.drive import Driver, Plan, Progress
from bench.loadgen.measure import Record, Spread, Tally, summarise
from bench.loadgen.report import bar, table
from bench.loadgen.workload import Span, Workload, poisson_times, share
from tests.bench.server import Server, serving


def planned(line: str) -> Plan:
    return plan_of(parser().parse_args(line.split()))


def drive(line: str) -> tuple[Tally, Server]:
    """Run one client against the server in one process."""

    async def test() -> tuple[Tally, Server]:
        async with serving() as server:
            plan = planned(f"--url http://127.0.0.1:{server.port} {line}")
            driver = Driver(plan, time.monotonic())
            await driver.run()
            assert driver.progress.ended == len(driver.tally.records)
        return driver.tally, server

    return asyncio.run(test())


# --- workload ---


@pytest.mark.parametrize(("text", "span"), [("64", Span(64, 64)), ("50-200", Span(50, 200))])
def test_length_is_read_as_written(text: str, span: Span) -> None:
    assert Span.parse(text) == span


@pytest.mark.parametrize("text", ["", "x", "0", "9-3", "-4", "3-"])
def test_senseless_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a length"):
        Span.parse(text)


@given(number=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_request_is_a_function_of_seed_and_number(number: int, seed: int) -> None:
    workload = Workload(seed=seed, input_tokens=Span(5, 50), output_tokens=Span(3, 9))
    assert workload.body(number) == workload.body(number)
    assert 5 <= len(workload.prompt(number).split()) <= 50
    assert 3 <= msgspec.json.decode(workload.body(number))["max_tokens"] <= 9
    assert workload.body(number) != workload.body(number + 1)


def test_prompts_of_a_group_begin_alike_and_end_apart() -> None:
    workload = Workload(shared_prefix_fraction=0.75, prefix_groups=3, input_tokens=Span(40, 40))
    prompts = [workload.prompt(number).split() for number in range(30)]
    assert len({tuple(words[:30]) for words in prompts}) == 3
    assert len({tuple(words[30:]) for words in prompts}) == 30


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    times = list(itertools.islice(poisson_times(50.0, "seed"), 5000))
    assert times == sorted(times)
    assert 0.9 < times[-1] / (5000 / 50) < 1.1


@given(total=st.integers(0, 1000), parts=st.integers(1, 17))
def test_shares_add_up_and_differ_by_one_at_most(total: int, parts: int) -> None:
    shares = [share(total, parts, index) for index in range(parts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_processes_send_each_request_once() -> None:
    plan = planned("--requests 11 --processes 3")
    numbers = [n for index in range(3) for n in msgspec.structs.replace(plan, index=index).numbers]
    assert sorted(numbers) == list(range(11))


# --- measuring and reporting ---


def test_percentiles_are_in_milliseconds() -> None:
    spread = Spread.of([number / 1000 for number in range(101)])
    assert spread is not None
    assert spread.count == 101
    measured = (spread.mean, spread.p50, spread.p95, spread.p99, spread.max)
    assert measured == pytest.approx((50.0, 50.0, 95.0, 99.0, 100.0))
    assert Spread.of([]) is None


def test_latency_counts_from_when_a_request_was_due() -> None:
    late = Record(0, due_s=1.0, sent_s=3.0, first_s=4.0, end_s=5.0, tokens=10)
    failed = Record(1, due_s=1.0, end_s=9.0, error="timeout")
    summary = summarise([Tally([late]), Tally([failed])])
    assert summary.latency_ms is not None
    assert summary.ttft_ms is not None
    assert summary.send_delay_ms is not None
    assert summary.latency_ms.max == pytest.approx(4000)
    assert summary.ttft_ms.max == pytest.approx(3000)
    assert summary.send_delay_ms.max == pytest.approx(2000)
    assert (summary.requests, summary.succeeded, summary.errors) == (2, 1, {"timeout": 1})
    assert summary.tokens_per_s == pytest.approx(10 / 9)


def test_table_warns_of_a_client_that_was_the_bottleneck() -> None:
    record = Record(0, due_s=0.0, sent_s=0.1, first_s=0.5, end_s=1.0, tokens=10)
    fresh = table(summarise([Tally([record], [0.1], [0.001], cpu_s=0.1)]), [])
    tired = table(summarise([Tally([record], [0.1], [0.001], cpu_s=0.99)]), [])
    late = table(summarise([Tally([record], [0.1], [0.5], cpu_s=0.1)]), [])
    assert "bottleneck" not in fresh
    assert "bottleneck" in tired
    assert "bottleneck" in late


def test_bar_shows_how_far_all_processes_are() -> None:
    line = bar([Progress(10, 8, 1), Progress(5, 5, 0)], 0.5, 3.0)
    assert "13 done, 2 in flight, 1 failed" in line
    assert line.count("█") == line.count("·")


# --- CPU ---


def test_process_is_read_from_its_stat_line() -> None:
    line = "42 (a) b (c) S 7 " + " ".join(str(number) for number in range(5, 30))
    ticks = os.sysconf("SC_CLK_TCK")
    seconds = (14 + 15) / ticks, 15 / ticks
    assert parse_stat(line, ["x"]) == Process(42, 7, 22, "a) b (c", *seconds)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "-m", "actors.node", "x"], "actors.node"),
        (["python", "-u", "/bin/supervise"], "supervise"),
        (["python"], "python3"),
    ],
)
def test_python_process_is_named_after_what_it_runs(command: list[str], name: str) -> None:
    line = "42 (python3) S 7 " + " ".join("0" for _ in range(30))
    assert parse_stat(line, command).name == name


def test_descendants_count_and_strangers_do_not() -> None:
    processes = [
        Process(10, 1, 0, "supervise", 1.0),
        Process(11, 10, 0, "nats-server", 2.0),
        Process(12, 11, 0, "deep", 3.0),
        Process(13, 1, 0, "stranger", 4.0),
    ]
    assert {process.pid for process in select(processes, ["superv"])} == {10, 11, 12}
    assert {process.pid for process in select(processes, ["11", "13"])} == {11, 12, 13}


def test_cpu_is_the_difference_and_a_reused_pid_starts_at_zero() -> None:
    before = [Process(10, 1, 5, "a", 1.0), Process(11, 1, 5, "b", 9.0)]
    after = [Process(10, 1, 5, "a", 1.5), Process(11, 1, 80, "b", 0.25)]
    first, second = used(before, after, tokens=1000, requests=10)
    assert (first.name, first.cpu_s, first.us_per_token) == ("a", 0.5, 500.0)
    assert (second.name, second.cpu_s, second.us_per_request) == ("b", 0.25, 25_000.0)


def test_own_process_is_among_those_of_this_host() -> None:
    assert os.getpid() in {process.pid for process in all_processes()}


# --- the whole ---


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("stream", ["", "--no-stream"])
def test_closed_loop_counts_requests_and_tokens(api: str, stream: str) -> None:
    tally, server = drive(
        f"--api {api} --requests 9 --concurrency 3 --output-tokens 5 --model three {stream}"
    )
    summary = summarise([tally])
    assert (summary.requests, summary.succeeded) == (9, 9)
    assert (summary.output_tokens, summary.prompt_tokens) == (45, 63)
    assert server.most_at_once == 3
    assert ("messages" in server.asked[0]) == (api == "chat")
    assert len(tally.gaps_s) == (0 if stream else 9 * 4)
    assert all(record.first_s <= record.end_s for record in tally.records)


def test_open_loop_sends_at_the_drawn_times() -> None:
    tally, _ = drive("--rate 400 --requests 20 --output-tokens 2 --model m --seed 3")
    times = list(itertools.islice(poisson_times(400.0, "3/0"), 20))
    assert [record.due_s for record in tally.records] == times
    assert all(record.sent_s >= record.due_s for record in tally.records)


def test_duration_ends_a_run_without_a_count() -> None:
    tally, _ = drive("--concurrency 2 --duration 0.1 --output-tokens 2 --model m")
    assert tally.records
    assert all(record.due_s < 0.1 and not record.error for record in tally.records)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("busy", "http 503"),
        ("silent", "timeout"),
        ("garbage", "bad response"),
        ("cuts", "cut short"),
        ("dies", "disconnected"),
        ("fails", "error event"),
    ],
)
def test_error_is_counted_by_its_kind(model: str, error: str) -> None:
    tally, _ = drive(f"--requests 2 --output-tokens 4 --timeout 0.5 --model {model}")
    assert summarise([tally]).errors == {error: 2}


def test_endpoint_that_is_not_there_is_an_error_of_connecting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        plan = planned(f"--url 127.0.0.1:{taken.getsockname()[1]} --requests 3")
        driver = Driver(plan, time.monotonic())
        asyncio.run(driver.run())
    assert summarise([driver.tally]).errors == {"connect": 3}


@pytest.mark.process
def test_processes_run_one_plan_together() -> None:
    """Two real client processes, and the CPU of this one, which serves them."""

    async def test() -> Any:
        async with serving() as server:
            plan = planned(
                f"--url http://127.0.0.1:{server.port} --model m --requests 40 --concurrency 4 "
                "--processes 2 --output-tokens 8"
            )
            done = await asyncio.to_thread(run, plan, [str(os.getppid())], show_bar=False)
            return done, server

    done, server = asyncio.run(test())
    assert (done.summary.requests, done.summary.succeeded) == (40, 40)
    assert len(server.asked) == 40
    assert sorted(r.number for tally in done.tallies for r in tally.records) == list(range(40))
    assert [len(tally.records) for tally in done.tallies] == [20, 20]
    assert "CPU of" in table(done.summary, done.cpu)
    assert msgspec.json.decode(msgspec.json.encode(done), type=type(done)) == done


@pytest.mark.parametrize(
    "line", ["--url ftp://x", "--rate 0", "--shared-prefix-fraction 2", "--processes 0"]
)
def test_senseless_command_line_is_refused(line: str) -> None:
    arguments: argparse.Namespace = parser().parse_args(line.split())
    with pytest.raises(ValueError, match="--"):
        plan_of(arguments)
