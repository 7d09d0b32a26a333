"""NATS and etcd that ask who we are: TLS both ways, passwords, and endpoints that are down."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trustme

from actors.runtime.errors import PlaneUnavailable
from actors.runtime.registry.base import Entry, Listed, Observation
from actors.runtime.registry.etcd import EtcdRegistry, EtcdSettings
from actors.runtime.transport.nats import NatsSettings, NatsTransport, TlsFiles
from tests.plane import Server, free_port

pytestmark = pytest.mark.process
SCRIPTS = Path(sysconfig.get_path("scripts"))
ENTRY = Entry(role="echo", instance=0, node="echo/0", host="h", pid=1)


class Papers:
    """A certificate authority, and files for a server and a client it knows."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.server = self._issue(authority, directory / "server", "127.0.0.1", "localhost")
        self.client = self._issue(authority, directory / "client", "client@understudy.test")

    @staticmethod
    def _issue(authority: trustme.CA, stem: Path, *names: str) -> tuple[Path, Path]:
        leaf = authority.issue_cert(*names)
        certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
        leaf.cert_chain_pems[0].write_to_path(str(certificate))
        leaf.private_key_pem.write_to_path(str(key))
        return certificate, key

    @property
    def of_client(self) -> TlsFiles:
        certificate, key = self.client
        return TlsFiles(ca=str(self.ca), cert=str(certificate), key=str(key))


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def nats(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsSettings]:
    """A server that wants a certificate and a password; the first endpoint is down."""
    port = free_port()
    certificate, key = papers.server
    config = tmp_path_factory.mktemp("nats") / "nats.conf"
    config.write_text(
        f'host: 127.0.0.1\nport: {port}\nauthorization {{ user: "u", password: "p w" }}\n'
        f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{papers.ca}", '
        "verify: true }\n"
    )
    server = Server([str(SCRIPTS / "nats-server"), "--config", str(config)], b"Server is ready")
    server.start()
    yield NatsSettings(
        urls=(f"tls://127.0.0.1:{free_port()}", f"tls://127.0.0.1:{port}"),
        user="u",
        password="p w",
        tls=papers.of_client,
        connect_timeout_s=5,
    )
    server.kill()


@pytest.fixture(scope="module")
def etcd(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdSettings]:
    """Likewise."""
    port, peer_port = free_port(), free_port()
    url, peer = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    certificate, key = papers.server
    server = Server(
        [
            str(SCRIPTS / "etcd"),
            *("--data-dir", str(tmp_path_factory.mktemp("etcd") / "data")),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
            *("--cert-file", str(certificate), "--key-file", str(key)),
            *("--trusted-ca-file", str(papers.ca), "--client-cert-auth"),
            *("--heartbeat-interval", "50", "--election-timeout", "250"),
            *("--logger", "zap", "--log-level", "info"),
        ],
        b"ready to serve client requests",
    )
    server.start()
    client_certificate, client_key = papers.client
    control = (
        *(str(SCRIPTS / "etcdctl"), f"--endpoints={url}", f"--cacert={papers.ca}"),
        *(f"--cert={client_certificate}", f"--key={client_key}"),
    )
    for command in (
        ("user", "add", "root:secret"),
        ("user", "grant-role", "root", "root"),
        ("auth", "enable"),
    ):
        subprocess.run([*control, *command], check=True, capture_output=True)
    yield EtcdSettings(
        urls=(f"https://127.0.0.1:{free_port()}", url),
        user="root",
        password="secret",
        tls=papers.of_client,
        connect_timeout_s=5,
    )
    server.kill()


async def test_frames_pass_through_a_secured_nats(nats: NatsSettings) -> None:
    transport = NatsTransport(nats, "test")
    await transport.start()
    try:
        await transport.subscribe("x", lambda frame, reply: transport.publish(reply, frame))

        assert await transport.request("x", b"frame", 5.0) == b"frame"
    finally:
        await transport.close()


async def test_nats_with_a_wrong_password_is_told(nats: NatsSettings) -> None:
    wrong = msgspec.structs.replace(nats, password="wrong", connect_timeout_s=1.0)
    transport = NatsTransport(wrong, "test")
    try:
        with pytest.raises(PlaneUnavailable, match="NATS at tls://127"):
            await transport.start()
    finally:
        await transport.close()


async def test_a_name_is_claimed_in_a_secured_etcd(etcd: EtcdSettings) -> None:
    seen: list[Observation] = []
    registry = EtcdRegistry(etcd, "test")
    await registry.start(seen.append)
    try:
        claimed = await registry.claim(ENTRY)

        assert claimed.incarnation > 0
        assert isinstance(seen[0], Listed)
    finally:
        await registry.close()


async def test_etcd_without_our_certificate_is_told(etcd: EtcdSettings, papers: Papers) -> None:
    bare = msgspec.structs.replace(etcd, tls=TlsFiles(ca=str(papers.ca)), connect_timeout_s=1.0)
    registry = EtcdRegistry(bare, "test")
    try:
        with pytest.raises(PlaneUnavailable, match="etcd at https://127"):
            await registry.start(lambda _: None)
    finally:
        await registry.close()
