"""`supervise route explain`, through a running service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.messages.explain import Candidate, Explained
from actors.messages.key import RequestKey
from actors.runtime.address import Address
from supervisor.cli.route import render
from tests.serving.conftest import serving
from tests.supervisor.live import supervise

CANDIDATES = tuple(
    Candidate(f"aggregated/{n}", "alone", 32 * n, 16 * n, 5, 7, 1, 2.5, chosen=n == 1)
    for n in range(2)
)


def test_the_table_has_a_row_for_each_worker_and_marks_the_choice() -> None:
    key = RequestKey(Address("ingress"), 1, 0)
    explained = Explained(key, "kv", 40, 16, CANDIDATES, "aggregated/1 does it all", queue=3)

    lines = render(explained)

    assert "3 waiting" in lines[0]
    assert lines[2].split()[:3] == ["WORKER", "FOR", "CACHED"]
    assert lines[4].startswith("aggregated/1")
    assert lines[4].endswith("<- chosen")
    assert "32 (16 expected)" in lines[4]
    assert lines[-1] == "aggregated/1 does it all; at once."


@pytest.mark.process
def test_a_running_service_explains_where_a_prompt_would_go(tmp_path: Path) -> None:
    with serving(tmp_path, "simulated.yaml"):
        done = supervise(tmp_path, "route", "explain", "--prompt", "Hello " * 40, "--json")

        told = json.loads(done.stdout)
        assert {one["leg"] for one in told["candidates"]} == {"context", "generation"}
        assert sum(one["chosen"] for one in told["candidates"]) == 2
        assert told["prompt_tokens"] > 16

        refused = supervise(tmp_path, "route", "explain", "--prompt", "x", "--model", "none")
        assert refused.returncode == 1
        assert "none" in refused.stderr
