"""Load for an OpenAI endpoint: open loop (--rate) or closed loop (--concurrency)."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.loadgen.cpu import CpuUse, Process, all_processes, select, used
from bench.loadgen.drive import FromClient, Go, Plan, Progress, Ready, Result, client_process
from bench.loadgen.measure import Summary, Tally, summarise
from bench.loadgen.report import bar, table
from bench.loadgen.workload import Span, Workload

EXAMPLES = """\
examples:
  # 64 streams at a time, 1000 chats of 64 words in and 64 tokens out
  python -m bench.load --concurrency 64 --requests 1000

  # 20 arrivals a second for a minute, as independent users come
  python -m bench.load --rate 20 --duration 60 --input-tokens 50-200 --output-tokens 16-128

  # prompts of ten groups that share their first 80 percent: what a prefix cache gains
  python -m bench.load --concurrency 32 --requests 500 --shared-prefix-fraction 0.8 \\
      --prefix-groups 10

  # CPU that the service and its children spend on a token; everything into a file
  python -m bench.load --concurrency 128 --requests 2000 --ignore-eos --processes 2 \\
      --cpu-of supervise --json run.json

Latencies of an open loop count from when a request was due, not from when it was sent.
An input length is in words, close to tokens for most tokenizers. Only http:// is spoken.
The exit code is 1 when any request failed. Ctrl-C ends the run and reports what there is.
"""
_START_DELAY_S = 0.05  # from Go to the first request, so that all processes begin together


class ClientDiedError(Exception):
    """A client process ended without a result; what it said of why is on stderr."""

    def __init__(self) -> None:
        super().__init__("a client process ended without a result (see above)")


class Run(msgspec.Struct, frozen=True):
    """What --json writes."""

    plan: Plan
    summary: Summary
    cpu: list[CpuUse]
    tallies: list[Tally]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="default: %(default)s")
    parser.add_argument("--api", choices=("chat", "completions"), default="chat")
    parser.add_argument("--model", default="", help="as the service calls it")
    parser.add_argument("--api-key", default="", help="sent as a bearer token")
    parser.add_argument("--no-stream", action="store_true", help="ask for whole answers")

    how = parser.add_argument_group("how many, and when")
    loop = how.add_mutually_exclusive_group()
    loop.add_argument("--rate", type=float, metavar="PER_S", help="open loop: Poisson arrivals")
    loop.add_argument("--concurrency", type=int, default=1, help="closed loop: always so many")
    how.add_argument("--requests", type=int, help="default: 100, unless there is a --duration")
    how.add_argument("--duration", type=float, metavar="S", help="begin no request after this")
    how.add_argument("--max-in-flight", type=int, default=4096, help="open loop; %(default)s")
    how.add_argument("--timeout", type=float, default=120.0, metavar="S", help="of a request")
    how.add_argument("--processes", type=int, default=1, help="client processes")

    what = parser.add_argument_group("what is asked")
    what.add_argument("--input-tokens", type=_span, default=Span(64, 64), metavar="N|LOW-HIGH")
    what.add_argument("--output-tokens", type=_span, default=Span(64, 64), metavar="N|LOW-HIGH")
    what.add_argument("--shared-prefix-fraction", type=float, default=0.0, metavar="0-1")
    what.add_argument("--prefix-groups", type=int, default=1, help="different shared prefixes")
    what.add_argument("--ignore-eos", action="store_true", help="answers of full length")
    what.add_argument("--temperature", type=float, default=1.0)
    what.add_argument("--seed", type=int, default=0, help="same seed, same requests")

    seen = parser.add_argument_group("what is reported")
    seen.add_argument("--json", type=Path, metavar="FILE", help="write everything, each request")
    seen.add_argument(
        "--cpu-of",
        action="append",
        default=[],
        metavar="NAME|PID",
        help="count CPU of these processes and their descendants; may be repeated",
    )
    return parser


def _span(text: str) -> Span:
    try:
        return Span.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that a command line asks for. Raises ValueError."""
    url = urlsplit(arguments.url if "//" in arguments.url else f"http://{arguments.url}")
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"--url: expected http://host:port, got {arguments.url!r}")
    if not 0 <= arguments.shared_prefix_fraction <= 1:
        raise ValueError("--shared-prefix-fraction: expected 0 to 1")
    for name in ("rate", "concurrency", "processes", "prefix_groups", "duration", "timeout"):
        value = getattr(arguments, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name.replace('_', '-')}: must be positive")
    requests = arguments.requests
    if requests is None and arguments.duration is None:
        requests = 100
    return Plan(
        workload=Workload(
            api=arguments.api,
            model=arguments.model,
            stream=not arguments.no_stream,
            input_tokens=arguments.input_tokens,
            output_tokens=arguments.output_tokens,
            shared_prefix_fraction=arguments.shared_prefix_fraction,
            prefix_groups=arguments.prefix_groups,
            ignore_eos=arguments.ignore_eos,
            temperature=arguments.temperature,
            seed=arguments.seed,
        ),
        host=url.hostname,
        port=url.port or 80,
        api_key=arguments.api_key,
        timeout_s=arguments.timeout,
        requests=requests,
        duration_s=arguments.duration,
        rate=arguments.rate,
        concurrency=arguments.concurrency,
        max_in_flight=arguments.max_in_flight,
        processes=arguments.processes,
    )


def run(plan: Plan, cpu_of: list[str], *, show_bar: bool) -> Run:
    """Start the client processes, run the plan in them, and put together what they saw."""
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for index in range(plan.processes):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(
            target=client_process,
            args=(theirs, msgspec.structs.replace(plan, index=index)),
            daemon=True,
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        assert isinstance(_receive(pipe), Ready)
    before = _cpu(cpu_of)
    tallies = _gather(plan, pipes, show_bar=show_bar)
    after = _cpu(cpu_of)
    for process in processes:
        process.join()
    summary = summarise(tallies)
    tokens, requests = summary.output_tokens, summary.succeeded
    return Run(plan, summary, used(before, after, tokens=tokens, requests=requests), tallies)


def _gather(plan: Plan, pipes: list[Connection], *, show_bar: bool) -> list[Tally]:
    began = time.monotonic() + _START_DELAY_S
    go = msgspec.msgpack.encode(Go(began))
    for pipe in pipes:
        pipe.send_bytes(go)
    progress = dict.fromkeys(pipes, Progress(0, 0, 0))
    tallies: dict[Connection, Tally] = {}
    while len(tallies) < len(pipes):
        open_pipes = [pipe for pipe in pipes if pipe not in tallies]
        try:
            readable = wait(open_pipes)
            for pipe in (pipe for pipe in open_pipes if pipe in readable):
                message = _receive(pipe)
                if isinstance(message, Result):
                    tallies[pipe] = message.tally
                elif isinstance(message, Progress):
                    progress[pipe] = message
        except KeyboardInterrupt:
            for pipe in open_pipes:
                pipe.send_bytes(b"stop")
        if show_bar:
            elapsed_s = max(0.0, time.monotonic() - began)
            seen = list(progress.values())
            _draw(bar(seen, _share(plan, seen, elapsed_s), elapsed_s))
    if show_bar:
        _draw("")
    return [tallies[pipe] for pipe in pipes]


def _draw(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _share(plan: Plan, progress: list[Progress], elapsed_s: float) -> float:
    """How much of the run is over, by whichever of its two limits is nearer."""
    ended = sum(one.ended for one in progress)
    by_count = ended / plan.requests if plan.requests else 0.0
    return max(by_count, elapsed_s / plan.duration_s if plan.duration_s else 0.0)


def _receive(pipe: Connection) -> FromClient:
    try:
        data = pipe.recv_bytes()
    except EOFError:
        raise ClientDiedError from None
    message: FromClient = msgspec.msgpack.decode(data, type=FromClient)
    return message


def _cpu(wanted: list[str]) -> list[Process]:
    return select(all_processes(), wanted) if wanted else []


def main() -> int:
    command = parser()
    arguments = command.parse_args()
    try:
        plan = plan_of(arguments)
    except ValueError as error:
        command.error(str(error))
    try:
        done = run(plan, arguments.cpu_of, show_bar=sys.stderr.isatty())
    except ClientDiedError as error:
        sys.exit(f"error: {error}")
    print(table(done.summary, done.cpu))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.encode(done))
    return int(done.summary.succeeded < done.summary.requests or not done.summary.requests)


if __name__ == "__main__":
    sys.exit(main())
