"""Servers of a topology with nodes: TLS on both ends, and nothing that listens unasked."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from supervisor.certificates import make
from supervisor.cli.main import main
from supervisor.shown import CertificatesError, check_files
from tests.plane import free_port
from tests.supervisor.live import LOOPBACK, listening, processes_of, running, supervise

CHILDREN = "children: [{actor: router}, {actor: ingress, options: {port: 0}}]\n"


def test_an_authority_stays_and_nodes_are_added(tmp_path: Path) -> None:
    held = tmp_path / "held"
    made = make(held, {"a": "10.0.0.1", "b": None}, days=30)
    assert [file.name for file in made] == ["ca.pem", "a.pem", "b.pem"]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in held.iterdir())
    before = {file.name: file.read_bytes() for file in held.iterdir()}

    assert make(held, {"a": "10.0.0.1", "b": None}, days=30) == []
    assert [file.name for file in make(held, {"a": None, "c": "host.c"}, days=30)] == ["c.pem"]
    renewed = make(held, {"a": "10.0.0.1"}, days=30, renew=True)

    assert [file.name for file in renewed] == ["a.pem"]
    after = {file.name: file.read_bytes() for file in held.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"a.pem", "a.key"}
    for node in ("a", "b", "c"):
        files = (str(held / "ca.pem"), str(held / f"{node}.pem"), str(held / f"{node}.key"))
        check_files(*files, node, Path("t.yaml"))


def test_files_that_are_missing_or_do_not_fit_are_told(tmp_path: Path) -> None:
    make(tmp_path, {"a": None, "b": None}, days=30)
    ca, a, b = (str(tmp_path / name) for name in ("ca.pem", "a.pem", "b.key"))

    with pytest.raises(CertificatesError, match=r"cannot be used"):
        check_files(ca, a, b, "a", Path("t.yaml"))
    with pytest.raises(CertificatesError, match=r"c.key is missing: .*certificates t.yaml"):
        check_files(ca, a, str(tmp_path / "c.key"), "c", Path("t.yaml"))


@pytest.mark.process
def test_servers_of_a_node_speak_tls_and_nothing_else_listens_beyond_loopback(
    tmp_path: Path,
) -> None:
    address = "127.0.0.2"  # beyond loopback would need a network of our own: see tests/hosts
    nats, etcd = free_port(), free_port()
    file = tmp_path / "secured.yaml"
    file.write_text(
        f"namespace: secured\nnodes: {{one: {address}, two: }}\ncertificates: held\n"
        f"nats: {{embedded: true, node: one, port: {nats}, token: tok-en}}\n"
        f"etcd: {{embedded: true, node: one, port: {etcd}, password: pass-word}}\n{CHILDREN}"
    )
    without = supervise(tmp_path, "up", str(file), "--node", "one")
    assert without.returncode == 1
    assert "ca.pem is missing: make the certificates once" in without.stderr

    assert main(["certificates", str(file)]) == 0
    with running(tmp_path, str(file), "--node", "one") as live:
        live.until("ready")
        status = supervise(tmp_path, "status", "--namespace", "secured", "--node", "one")
        ports = listening(tmp_path)
        lines = processes_of(tmp_path)
        logs = supervise(tmp_path, "logs", "-n", "1000", "--namespace", "secured", "--node", "one")

    assert f"tls://{address}:{nats}" in status.stdout, status.stdout
    assert f"https://{address}:{etcd}" in status.stdout
    assert {port for port, host in ports.items() if host not in LOOPBACK} == {nats, etcd}
    assert len(ports) >= 4, "the ingress and etcd's peers listen, too"
    assert logs.stdout
    everything = [*lines, status.stdout, logs.stdout, *live.said, str(live.journal)]
    assert not [text for text in everything if "tok-en" in text or "pass-word" in text]
