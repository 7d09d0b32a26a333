"""One fault at a time, of every kind, under streams whose every token is checked."""

from __future__ import annotations

import pytest

from bench.disturb.kinds import KINDS
from tests.faults.conftest import Hurt, verdict

pytestmark = pytest.mark.process

PAIRS = [
    ("nats-killed", "generation-killed"),
    ("supervisor-killed", "generation-killed"),
    ("supervisor-killed", "context-frozen"),
    ("etcd-killed", "router-killed"),
    ("etcd-killed", "nats-killed"),
    ("context-killed", "generation-killed"),
    ("ingress-killed", "generation-frozen"),
]


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_client_loses_a_token_to_one_fault(hurt: Hurt, kind: str) -> None:
    assert verdict(hurt.round(kind)) == []


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_two_faults_at_once_leave_no_wrong_token_and_no_stream_without_an_end(
    hurt: Hurt, pair: tuple[str, str]
) -> None:
    assert verdict(hurt.round(*pair), may_fail=True) == []
