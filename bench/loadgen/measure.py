"""What was seen, and what it comes to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np


class Record(msgspec.Struct, array_like=True):
    """One request, in seconds from the start of the run."""

    number: int
    due_s: float
    """When it ought to have been sent. Latencies count from here, so that a client or a server
    that falls behind does not make the numbers look better."""
    sent_s: float = 0.0
    first_s: float = 0.0
    """The first text; 0 when none came."""
    end_s: float = 0.0
    tokens: int = 0
    """Of the answer's usage; without one, the events that had text."""
    prompt_tokens: int = 0
    error: str = ""
    """Its kind; empty when the answer is whole."""


class Tally(msgspec.Struct):
    """All that one client process saw."""

    records: list[Record] = []
    gaps_s: list[float] = []
    """Between two events with text of one stream."""
    lags_s: list[float] = []
    """How late the client's own timer was, each 10 ms."""
    cpu_s: float = 0.0
    """CPU the client itself used."""


class Spread(msgspec.Struct, frozen=True):
    """A distribution in milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread | None:
        """None when there is nothing to speak of."""
        if not seconds:
            return None
        values = np.asarray(seconds, dtype=np.float64) * 1000
        p50, p95, p99 = np.percentile(values, (50, 95, 99))
        return cls(
            len(seconds),
            float(values.mean()),
            float(p50),
            float(p95),
            float(p99),
            float(values.max()),
        )


class Summary(msgspec.Struct, frozen=True):
    """The numbers of a run. Rates count whole answers, from the start to the last end."""

    requests: int
    succeeded: int
    errors: dict[str, int]
    elapsed_s: float
    requests_per_s: float
    output_tokens: int
    tokens_per_s: float
    prompt_tokens: int
    ttft_ms: Spread | None
    itl_ms: Spread | None
    latency_ms: Spread | None
    send_delay_ms: Spread | None
    """From when a request was due to when it was sent."""
    loop_lag_ms: Spread | None
    client_cpu: float
    """Cores' worth of CPU that each client process used; near 1 it was the bottleneck."""


def summarise(tallies: Sequence[Tally]) -> Summary:
    """Put the processes' tallies together."""
    records = [record for tally in tallies for record in tally.records]
    whole = [record for record in records if not record.error]
    elapsed_s = max((record.end_s for record in records), default=0.0)
    per_second = 1 / elapsed_s if elapsed_s else 0.0
    tokens = sum(record.tokens for record in whole)
    return Summary(
        requests=len(records),
        succeeded=len(whole),
        errors=dict(Counter(r.error for r in records if r.error).most_common()),
        elapsed_s=elapsed_s,
        requests_per_s=len(whole) * per_second,
        output_tokens=tokens,
        tokens_per_s=tokens * per_second,
        prompt_tokens=sum(record.prompt_tokens for record in whole),
        ttft_ms=Spread.of([r.first_s - r.due_s for r in whole if r.first_s]),
        itl_ms=Spread.of([gap for tally in tallies for gap in tally.gaps_s]),
        latency_ms=Spread.of([r.end_s - r.due_s for r in whole]),
        send_delay_ms=Spread.of([r.sent_s - r.due_s for r in records if r.sent_s]),
        loop_lag_ms=Spread.of([lag for tally in tallies for lag in tally.lags_s]),
        client_cpu=sum(t.cpu_s for t in tallies) * per_second / max(1, len(tallies)),
    )
