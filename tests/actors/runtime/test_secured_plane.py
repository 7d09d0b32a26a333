"""NATS and etcd that ask who we are: TLS both ways, passwords, and endpoints that are down."""

from __future__ import annotations

import asyncio
import re
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
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Of an authority that the servers do not know, nor we theirs."""
    return Papers(tmp_path_factory.mktemp("strangers"))


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

    text = await refusal(NatsTransport(wrong, "test"))

    assert re.match(r"NATS at tls://127.*Authorization Violation: it has another token", text), text
    assert "p w" not in text


async def test_nats_of_another_authority_is_told(nats: NatsSettings, strangers: Papers) -> None:
    wrong = msgspec.structs.replace(
        nats, urls=nats.urls[1:], tls=strangers.of_client, connect_timeout_s=1.0
    )

    assert "certificate verify failed" in await refusal(NatsTransport(wrong, "test"))


async def test_nats_that_speaks_no_tls_is_told_nothing(nats: NatsSettings) -> None:
    """As when somebody between the two has taken the server's word for TLS away."""
    said: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = b'INFO {"server_id":"x","version":"2.10.0","proto":1,"max_payload":1048576}\r\n'
        writer.write(info)
        said.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"tls://127.0.0.1:{port}"
        asked = msgspec.structs.replace(nats, urls=(url,), connect_timeout_s=1.0)

        assert "the server does not speak it" in await refusal(NatsTransport(asked, "test"))

    assert said
    assert not any(b"p w" in heard or b"CONNECT" in heard for heard in said), said


async def refusal(transport: NatsTransport) -> str:
    """Why it cannot connect."""
    try:
        with pytest.raises(PlaneUnavailable) as caught:
            await transport.start()
    finally:
        await transport.close()
    return str(caught.value)


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

    assert "etcd at https://127" in await turned_away(bare)


async def test_etcd_of_another_authority_is_told(etcd: EtcdSettings, strangers: Papers) -> None:
    wrong = msgspec.structs.replace(
        etcd, urls=etcd.urls[1:], tls=strangers.of_client, connect_timeout_s=1.0
    )

    assert "CERTIFICATE_VERIFY_FAILED" in await turned_away(wrong)


async def test_etcd_with_a_wrong_password_is_told(etcd: EtcdSettings) -> None:
    wrong = msgspec.structs.replace(
        etcd, urls=etcd.urls[1:], password="not-it", connect_timeout_s=1.0
    )
    text = await turned_away(wrong)

    assert "invalid user ID or password: it has another token or password" in text
    assert "not-it" not in text


async def turned_away(settings: EtcdSettings) -> str:
    """Why it cannot connect."""
    registry = EtcdRegistry(settings, "test")
    try:
        with pytest.raises(PlaneUnavailable) as caught:
            await registry.start(lambda _: None)
    finally:
        await registry.close()
    return str(caught.value)
