"""A run as text: the bar while it goes on, and the table at its end."""

from __future__ import annotations

from bench.loadgen.cpu import CpuUse
from bench.loadgen.drive import Progress
from bench.loadgen.measure import Spread, Summary

_BAR_CELLS = 30
_BUSY_CORES = 0.85
_LATE_MS = 20.0


def bar(progress: list[Progress], share: float, elapsed_s: float) -> str:
    """One line; `share` of the run is over, 0 to 1."""
    sent = sum(one.sent for one in progress)
    ended = sum(one.ended for one in progress)
    failed = sum(one.failed for one in progress)
    full = round(min(1.0, share) * _BAR_CELLS)
    cells = "█" * full + "·" * (_BAR_CELLS - full)
    errors = f", {failed} failed" if failed else ""
    return f"{cells} {elapsed_s:5.1f} s  {ended} done, {sent - ended} in flight{errors}"


def table(summary: Summary, cpu: list[CpuUse]) -> str:
    """What a person reads after a run."""
    outcome = f"{summary.succeeded} of {summary.requests} succeeded in {summary.elapsed_s:.2f} s"
    rates = f"{summary.requests_per_s:.1f} requests/s, {summary.tokens_per_s:.0f} tokens/s"
    amounts = f"{summary.output_tokens} tokens out, {summary.prompt_tokens} in"
    lines = [f"requests    {outcome}", f"throughput  {rates} ({amounts})"]
    lines += [f"error       {count} x {kind}" for kind, count in summary.errors.items()]
    lines += ["", f"{'ms':<18}{'mean':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}"]
    lines += [
        _row(name, spread)
        for name, spread in (
            ("time to first", summary.ttft_ms),
            ("between tokens", summary.itl_ms),
            ("latency", summary.latency_ms),
            ("client: send delay", summary.send_delay_ms),
            ("client: loop lag", summary.loop_lag_ms),
        )
        if spread is not None
    ]
    lines.append(f"client: {summary.client_cpu:.2f} cores for each process")
    if _client_was_slow(summary):
        lines.append("The client was a bottleneck: more --processes, or read these with care.")
    if cpu:
        lines += ["", f"{'CPU of':<28}{'n':>4}{'s':>10}{'us/token':>12}{'us/request':>12}"]
        lines += [
            f"{use.name[:27]:<28}{use.processes:>4}{use.cpu_s:>10.2f}"
            f"{use.us_per_token:>12.1f}{use.us_per_request:>12.0f}"
            for use in [*cpu, _total(cpu)]
        ]
    return "\n".join(lines)


def _row(name: str, spread: Spread) -> str:
    numbers = (spread.mean, spread.p50, spread.p95, spread.p99, spread.max)
    return f"{name:<18}" + "".join(f"{number:>10.2f}" for number in numbers)


def _client_was_slow(summary: Summary) -> bool:
    lag = summary.loop_lag_ms
    return summary.client_cpu > _BUSY_CORES or (lag is not None and lag.p99 > _LATE_MS)


def _total(cpu: list[CpuUse]) -> CpuUse:
    return CpuUse(
        "total",
        sum(use.processes for use in cpu),
        sum(use.cpu_s for use in cpu),
        sum(use.us_per_token for use in cpu),
        sum(use.us_per_request for use in cpu),
    )
