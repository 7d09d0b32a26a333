"""A node whose servers, on another node, do not let it in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plane import free_port
from tests.supervisor.live import Live, processes_of, running

pytestmark = [pytest.mark.process, pytest.mark.long]

CHILDREN = (
    "children: [{actor: router, node: one}, {actor: router, role: far, node: two},"
    " {actor: ingress, node: two, options: {port: 0}}]\n"
)


def topology(path: Path, nats: int, etcd: int, token: str, password: str) -> str:
    path.write_text(
        f"namespace: refused\nnodes: {{one: 127.0.0.2, two: }}\ncertificates: off\n"
        f"nats: {{embedded: true, node: one, port: {nats}, token: {token}}}\n"
        f"etcd: {{embedded: true, node: one, port: {etcd}, password: {password}}}\n{CHILDREN}"
    )
    return str(path)


@pytest.mark.parametrize(
    ("token", "password", "told"),
    [
        ("wrong", "pass-word", "Authorization Violation"),
        ("tok-en", "wrong", "invalid user ID or password"),
    ],
    ids=["NATS", "etcd"],
)
def test_a_first_start_with_a_wrong_secret_ends_and_says_why(
    tmp_path: Path, token: str, password: str, told: str
) -> None:
    ports = free_port(), free_port()
    right = topology(tmp_path / "right.yaml", *ports, "tok-en", "pass-word")
    wrong = topology(tmp_path / "wrong.yaml", *ports, token, password)
    with (
        running(tmp_path / "b", wrong, "--node", "two") as two,
        running(tmp_path / "a", right, "--node", "one") as one,
    ):
        # It was started first, and has waited for the servers until they were there.
        one.until("ready")
        assert two.wait() == 1
        assert _why(two, told), two.journal
        assert processes_of(tmp_path / "b") == []
        with running(tmp_path / "c", right, "--node", "two") as again:
            again.until("ready")


def _why(live: Live, told: str) -> bool:
    last = live.journal[-1]
    return told in last["reason"] and "it has another token or password" in last["reason"]
