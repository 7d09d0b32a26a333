"""Three hosts, as network namespaces."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.network import left_over, network, why_not
from tests.hosts.service import ETCD_PASSWORD, NATS_TOKEN, NODES, Hosts, hosts

REASON = why_not()
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
]
SHIPPED = Path(__file__).parents[2] / "topologies" / "multi_node.yaml"
SIMULATED = Path(__file__).parent / "simulated.yaml"
ALL = {
    "aggregated/0": "left",
    "aggregated/1": "right",
    "router/0": "main",
    "preprocessor/0": "main",
    "ingress/0": "main",
}
WITHOUT_LEFT = {name: node for name, node in ALL.items() if node != "left"}
SCRIPTS = Path(sysconfig.get_path("scripts"))
LEASE_S = 10
SOON_S = 4.0
"""Half of a lease: what took longer was not seen by a host's silence (1.5 s, and what a busy
machine adds)."""


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


def _values(service: Hosts, node: str, name: str) -> list[float]:
    """Of one metric, of every process of a host."""
    lines = service.run(node, "metrics").stdout
    return [
        float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", lines, re.MULTILINE)
    ]


def _silent(service: Hosts, node: str) -> set[float]:
    """How many hosts the processes of a host do not hear."""
    return set(_values(service, node, "understudy_hosts_silent"))


def _all_right(found: list[dict[str, Any]], number: int) -> float:
    """Every stream brought what it had to; the widest gap in one."""
    assert [one["verdict"] for one in found] == ["right"] * number, found
    return max(float(one["gap_s"]) for one in found)


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
        main = service.status("main")
        assert main is not None
        assert (main.models, main.nodes, main.silent) == (("simulated",), NODES, ())

        # Beyond loopback only what the file asks for.
        assert service.net.listening(1) == {service.net.address(1), "127.0.0.1"}
        assert service.net.listening(2) <= {"127.0.0.1"}

        # The same node twice is a conflict; the same namespace on another node was none.
        again = service.run("left", "up", str(SIMULATED), "--node", "left")
        assert again.returncode == 1
        assert "namespace 'hosts' already has a supervisor on node 'left'" in again.stderr

        with service.streams(32, 200) as found:
            service.lose("left")
        gap_s = _all_right(found, 32)

        # New requests go by the lost host as well, lease or not.
        with service.streams(8, 20) as after:
            pass
        assert _all_right(after, 8) < SOON_S

        left = partial(_knows, service, "right", WITHOUT_LEFT)
        took_s = service.until(left, "the lost host's actors leave", LEASE_S + 5)
        print(f"\nlost: widest gap {gap_s:.1f} s; out of the registry {took_s:.1f} s later")
        assert gap_s < SOON_S


@pytest.mark.long
@pytest.mark.parametrize("for_s", [4.0, LEASE_S + 4.0], ids=["shorter-than-lease", "longer"])
def test_a_partition_costs_no_token_and_heals(tmp_path: Path, for_s: float) -> None:
    with hosts(tmp_path, SIMULATED) as service:
        service.until(partial(_knows, service, "main", ALL), "all are up")

        with service.streams(32, 300) as found:
            service.net.cut(2)
            cut_at = time.monotonic()
            service.until(lambda: _silent(service, "main") == {1.0}, "left is missed", LEASE_S)
            assert "left  not heard" in service.run("main", "status").stdout
            # The one that is cut off hears nobody, itself included, and blames nobody.
            assert _silent(service, "left") == {0.0}
            time.sleep(max(0.0, cut_at + for_s - time.monotonic()))
            service.net.mend(2)
        gap_s = _all_right(found, 32)

        for node in NODES:
            service.until(partial(_knows, service, node, ALL), f"{node} knows all again")
            service.until(partial(_hears_all, service, node), f"{node} hears all again")
        # What the workers of the lost host still computed went to no one, and they are free again.
        with service.streams(32, 50) as after:
            pass
        _all_right(after, 32)
        print(f"\ncut off for {for_s:g} s: widest gap {gap_s:.1f} s")
        assert gap_s < SOON_S


@pytest.mark.long
def test_a_host_that_is_started_before_the_servers_waits_for_them(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED, start=["left"]) as service:
        # Longer than a process tries by itself.
        service.until(lambda: "out of reach" in service.logs(), "a first try has failed")
        early = service.run("left", "status").stdout
        assert "node left; the registry was not reached yet" in early
        assert service.supervisors["left"].poll() is None

        for node in ("main", "right"):
            service.start(node)
        service.until(partial(_knows, service, "main", ALL), "all are up")
        service.until(partial(_runs, service, "left"), "left is up")


def _runs(service: Hosts, node: str) -> bool:
    """Whether everything of a host does. Others may still know of what it was before."""
    status = service.status(node)
    return status is not None and all(child.state == "running" for child in status.children)


def _hears_all(service: Hosts, node: str) -> bool:
    return _silent(service, node) == {0.0}


@pytest.mark.long
def test_a_host_that_was_lost_takes_its_names_again(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED) as service:
        service.until(partial(_knows, service, "main", ALL), "all are up")
        service.lose("left")
        service.net.mend(2)
        service.start("left")

        service.until(partial(_runs, service, "left"), "left is back")
        assert _knows(service, "main", ALL)

        # A stand-in steps in on `left`, beside the replica of the same role on `right`.
        with service.streams(16, 300) as found:
            done = service.run("left", "restart", "--rolling", "aggregated")
            assert done.returncode == 0, done.stderr
        _all_right(found, 16)


@pytest.mark.long
def test_a_slow_link_slows_and_loses_nothing(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED) as service:
        service.until(partial(_knows, service, "main", ALL), "all are up")
        service.net.slow(2, "128kbit")
        with service.streams(16, 100) as found:
            pass
        gap_s = _all_right(found, 16)
        print(f"\nslow link: widest gap {gap_s:.1f} s")


@pytest.mark.long
def test_kv_blocks_go_from_host_to_host_over_tcp(tmp_path: Path) -> None:
    # The hosts share a kernel here, so shared memory would be found and taken.
    tcp = [f"children.{role}.options.engine.transport=tcp" for role in ("context", "generation")]
    once = ["children.context.replicas=1", "children.generation.replicas=1"]
    with hosts(tmp_path, SHIPPED, ("main", "prefill", "decode"), sets=[*tcp, *once]) as service:
        there = {
            "context/0": "prefill",
            "generation/0": "decode",
            "router/0": "main",
            "preprocessor/0": "main",
            "ingress/0": "main",
        }
        service.until(partial(_knows, service, "main", there), "all are up", 180)

        assert service.net.address(2) in service.net.listening(2)
        answers = {service.ask("What is the capital of Chad?") for _ in range(3)}
        assert answers == {"The capital of Chad is N'Djamena."}
        fetched = 'understudy_kv_handoffs_total{.*outcome="fetched".*}'
        assert sum(_values(service, "decode", fetched)) >= 1

        # Also over a link that is slower than the blocks are computed.
        service.net.slow(3, "2mbit")
        assert service.ask("What is the capital of Germany?") == "The capital of Germany is Berlin."
        assert sum(_values(service, "decode", fetched)) >= 2


def test_the_registry_is_read_by_nobody_without_the_password(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED, sets=["children.aggregated.replicas=0"]) as service:
        service.until(lambda: "ingress/0" in service.registered("main"), "main is up")
        held = service.certificates
        shown = ("--cacert", f"{held}/ca.pem", "--cert", f"{held}/left.pem")
        key = ("--key", f"{held}/left.key")
        nobody = _etcdctl(service, *shown[:2])
        stranger = _etcdctl(service, *shown, *key)
        ours = _etcdctl(service, *shown, *key, "--user", f"root:{ETCD_PASSWORD}")

    assert ours.returncode == 0, ours.stderr
    assert "/hosts/mailboxes/ingress/0" in ours.stdout
    # Neither without a certificate, nor with one and no password.
    assert nobody.returncode != 0, nobody.stdout
    assert stranger.returncode != 0, stranger.stdout
    assert "etcdserver: " in stranger.stderr, stranger.stderr


def _etcdctl(service: Hosts, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Read all keys, from the second host."""
    url = f"https://{service.net.address(1)}:2379"
    command = (str(SCRIPTS / "etcdctl"), f"--endpoints={url}", "--dial-timeout=3s", *arguments)
    return subprocess.run(
        service.net.inside(2, *command, "get", "--prefix", "/", "--keys-only"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_node_of_another_authority_is_told_and_kept_out(tmp_path: Path) -> None:
    with hosts(tmp_path, SIMULATED, start=("main", "right")) as service:
        service.until(lambda: "ingress/0" in service.registered("main"), "main is up")
        other = tmp_path / "other"
        made = service.run("left", "certificates", str(SIMULATED), "--into", str(other))
        assert made.returncode == 0, made.stderr

        service.start("left", "--set", f"certificates={other}")

        # It tries again, as it would for servers that are not there yet, and says why.
        why = "NATS or etcd out of reach"
        service.until(lambda: why in service.logs(), "a first try has failed")
        assert "certificate verify failed" in service.logs()
        assert "aggregated/0" not in service.registered("main")
        for secret in (NATS_TOKEN, ETCD_PASSWORD):
            assert secret not in service.logs()
            assert secret not in service.run("main", "status", "--json").stdout
            assert not any(secret in line for line in service.command_lines("main"))
