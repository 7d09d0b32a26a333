"""Whole services in real processes: `supervise` with the topologies that ship."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from tests.plane import free_port
from tests.supervisor.live import Live, running

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
MODEL = "understudy/capitals"
SLOW_S = 120.0
"""For processes that import all they need by themselves, on a busy machine."""


class Service:
    """A running topology, and the official client to it."""

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def ask(self, question: str) -> str:
        """One answer, greedy."""
        answer = self.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            temperature=0,
        )
        return answer.choices[0].message.content or ""


@contextmanager
def serving(
    base: Path, topology: str, *arguments: str, slow: Sequence[str] = ()
) -> Iterator[Service]:
    """A shipped topology, ready; stopped at the end. `slow`: children each of which may take as
    long to start as others do together."""
    port = free_port()
    with running(base, str(TOPOLOGIES / topology), "--port", str(port), *arguments) as live:
        for child in slow:
            live.until("child_ready", within_s=SLOW_S, child=child)
        live.until("ready")
        service = Service(live, port)
        try:
            yield service
        finally:
            service.client.close()


@pytest.fixture(scope="module")
def disagg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`topologies/disagg.yaml`, with room for the kills of a whole module."""
    base = tmp_path_factory.mktemp("disagg")
    with serving(base, "disagg.yaml", "--set", "supervision.intensity=1000") as service:
        yield service
