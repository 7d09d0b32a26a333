"""What is asked of each service, and what is made of the answers. Pure but for the table's text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from bench.load import Run
from bench.loadgen.drive import Plan
from bench.loadgen.workload import Span, Workload

PACED = 1.0
"""Speed-up of an engine that takes its time: about 6 ms a step."""
INSTANT = 0.0
WORDS = 64


class Case(msgspec.Struct, frozen=True):
    """One load."""

    name: str
    concurrency: int
    requests: int
    output_tokens: int
    stream: bool
    speedup: float
    processes: int = 1
    """Of the client."""

    def plan(self, url_host: str, port: int, model: str, seed: int) -> Plan:
        return Plan(
            workload=Workload(
                model=model,
                stream=self.stream,
                input_tokens=Span(WORDS, WORDS),
                output_tokens=Span(self.output_tokens, self.output_tokens),
                ignore_eos=True,
                seed=seed,
            ),
            host=url_host,
            port=port,
            api_key="",
            timeout_s=120.0,
            requests=self.requests,
            duration_s=None,
            rate=None,
            concurrency=self.concurrency,
            max_in_flight=4096,
            processes=self.processes,
        )


CASES = (
    Case("whole answers of 1 token, 1 connection", 1, 400, 1, stream=False, speedup=INSTANT),
    Case("whole answers of 1 token, 32 connections", 32, 3000, 1, stream=False, speedup=INSTANT),
    Case("whole answers of 1 token, 128 connections", 128, 3000, 1, stream=False, speedup=INSTANT),
    Case("streams of 128 tokens, instant, 1", 1, 60, 128, stream=True, speedup=INSTANT),
    Case("streams of 128 tokens, instant, 128", 128, 1024, 128, stream=True, speedup=INSTANT),
    Case("streams of 128 tokens, paced, 32", 32, 256, 128, stream=True, speedup=PACED),
    Case("streams of 128 tokens, paced, 128", 128, 768, 128, stream=True, speedup=PACED),
    Case("streams of 128 tokens, paced, 512", 512, 2048, 128, stream=True, speedup=PACED),
)


class Figures(msgspec.Struct, frozen=True):
    """One run of one case against one service."""

    service: str
    case: str
    round: int
    failed: int
    us_per_token: float
    us_per_request: float
    requests_per_s: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    latency_p50_ms: float
    latency_p99_ms: float
    itl_p99_ms: float
    itl_max_ms: float
    peak_rss_mb: float
    """Of the largest process."""
    rss_mb: dict[str, float]
    """The peak of each, by name of process."""
    cpu: dict[str, float]
    """Seconds, by name of process."""
    client_cores: float


def figures(service: str, case: Case, number: int, run: Run, rss_mb: dict[str, float]) -> Figures:
    summary = run.summary
    seconds = {use.name: use.cpu_s for use in run.cpu}
    spent = sum(seconds.values()) * 1e6
    ttft, itl, latency = summary.ttft_ms, summary.itl_ms, summary.latency_ms
    return Figures(
        service,
        case.name,
        number,
        summary.requests - summary.succeeded,
        spent / max(1, summary.output_tokens),
        spent / max(1, summary.succeeded),
        summary.requests_per_s,
        summary.tokens_per_s,
        0.0 if ttft is None else ttft.p50,
        0.0 if ttft is None else ttft.p99,
        0.0 if latency is None else latency.p50,
        0.0 if latency is None else latency.p99,
        0.0 if itl is None else itl.p99,
        0.0 if itl is None else itl.max,
        max(rss_mb.values(), default=0.0),
        rss_mb,
        seconds,
        summary.client_cpu,
    )


def table(found: Sequence[Figures], services: Sequence[str], baseline: str) -> str:
    """Medians over the rounds, and the CPU as a share of the baseline's in the same run."""
    columns = ("us/token", "us/request", "requests/s", "tokens/s", "p50 ms", "p99 ms", "gap max")
    head = (
        f"{'':<12}"
        + "".join(f"{name:>12}" for name in columns)
        + f"{'RSS MB':>8}{'CPU':>7}  spread"
    )
    lines = []
    for case in dict.fromkeys(one.case for one in found):
        lines += ["", case, head]
        rows = {
            name: [f for f in found if (f.service, f.case) == (name, case)] for name in services
        }
        base = _median([f.us_per_request for f in rows.get(baseline, [])])
        for name in services:
            runs = rows[name]
            if not runs:
                continue
            values = (
                _median([f.us_per_token for f in runs]),
                _median([f.us_per_request for f in runs]),
                _median([f.requests_per_s for f in runs]),
                _median([f.tokens_per_s for f in runs]),
                _median([f.ttft_p50_ms or f.latency_p50_ms for f in runs]),
                _median([f.ttft_p99_ms or f.latency_p99_ms for f in runs]),
                _median([f.itl_max_ms for f in runs]),
            )
            share = f"{values[1] / base:.2f}" if base else ""
            costs = [f.us_per_request / base for f in runs] if base else [0.0]
            spread = f"{min(costs):.2f} to {max(costs):.2f}"
            failed = sum(f.failed for f in runs)
            lines.append(
                f"{name:<12}"
                + "".join(f"{value:>12.1f}" for value in values)
                + f"{max(f.peak_rss_mb for f in runs):>8.0f}{share:>7}  {spread}"
                + (f"   {failed} FAILED" if failed else "")
            )
    lines += ["", "p50, p99: time to the first token of a stream, else the whole answer's latency."]
    lines += [
        f"CPU: of a request, divided by that of {baseline} in the same run. Medians of rounds."
    ]
    return "\n".join(lines)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
