"""Three hosts, as network namespaces."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.hosts.network import left_over, network, why_not
from tests.hosts.service import NODES, Hosts, hosts

REASON = why_not()
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
]
SIMULATED = Path(__file__).parent / "simulated.yaml"
ALL = {
    "aggregated/0": "left",
    "aggregated/1": "right",
    "router/0": "main",
    "preprocessor/0": "main",
    "ingress/0": "main",
}
LEASE_S = 10


def test_a_network_is_removed_although_its_test_failed() -> None:
    made: list[str] = []

    def fail() -> None:
        with network(2):
            made.extend(left_over())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(made) == 3
    assert left_over() == []


def _knows(service: Hosts, node: str, actors: dict[str, str]) -> bool:
    return service.registered(node) == actors


@pytest.mark.long
def test_a_service_over_three_hosts_survives_the_loss_of_one(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED) as service:
        for node in NODES:
            service.until(partial(_knows, service, node, ALL), f"{node} knows all")

        # Each has its own part in full, and the others' by name.
        right = service.status("right")
        assert right is not None
        rows = [row.id for row in right.children if not row.id.startswith(("supervisor", "zygote"))]
        assert (right.node, rows) == ("right", ["aggregated/1"])
        assert "router/0" in service.run("right", "status").stdout

        # Beyond loopback only what the file asks for.
        assert service.net.listening(1) == {service.net.address(1), "127.0.0.1"}
        assert service.net.listening(2) <= {"127.0.0.1"}

        # The same node twice is a conflict; the same namespace on another node was none.
        again = service.run("left", "up", str(SIMULATED), "--node", "left")
        assert again.returncode == 1
        assert "namespace 'hosts' already has a supervisor on node 'left'" in again.stderr

        with service.streams(8, 200) as found:
            service.lose("left")
        assert [one["verdict"] for one in found] == ["right"] * 8, found

        gone = {name: node for name, node in ALL.items() if node != "left"}
        left = partial(_knows, service, "right", gone)
        took_s = service.until(left, "the lost host's actors leave", LEASE_S + 5)
        print(f"widest gap {max(one['gap_s'] for one in found):.1f} s; left after {took_s:.1f} s")


def test_the_registry_is_read_by_nobody_without_the_password(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED, sets=["children.aggregated.replicas=0"]) as service:
        service.until(lambda: "ingress/0" in service.registered("main"), "main is up")
        ask = (
            "import urllib.request as u\n"
            f"u.urlopen(u.Request('http://{service.net.address(1)}:2379/v3/kv/range',"
            ' b\'{"key":"AA==","range_end":"AA=="}\', method="POST"), timeout=20)'
        )
        done = subprocess.run(
            service.net.inside(2, sys.executable, "-c", ask),
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert done.returncode != 0
    assert "HTTP Error 400" in done.stderr or "HTTP Error 401" in done.stderr
