"""`.creds` files, against a server that knows nobody but by an operator's JWTs."""

from __future__ import annotations

import asyncio
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtime.errors import PlaneUnavailable
from actors.runtime.transport.buckets import BucketLimits
from actors.runtime.transport.nats import NatsSettings, NatsTransport
from actors.runtime.transport.nats_credentials import sign
from tests.actors.runtime.transport.jwts import Key, Operator
from tests.plane import Server, free_port


@pytest.fixture(scope="module")
def operator() -> Operator:
    return Operator()


@pytest.fixture(scope="module")
def url(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that the operator runs."""
    directory, port = tmp_path_factory.mktemp("nats"), free_port()
    configuration = directory / "nats.conf"
    configuration.write_text(operator.configuration(port, directory / "jetstream"))
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    server = Server([str(binary), "--config", str(configuration)], b"Server is ready")
    try:
        server.start()
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.kill()


def transport(url: str, directory: Path, text: str) -> NatsTransport:
    file = directory / "user.creds"
    file.write_text(text)
    settings = NatsSettings(urls=(url,), credentials=str(file), connect_timeout_s=2.0)
    return NatsTransport(settings, "test")


@pytest.mark.process
async def test_a_file_of_credentials_opens_the_door(
    url: str, operator: Operator, tmp_path: Path
) -> None:
    used = transport(url, tmp_path, operator.credentials())
    await used.start()
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await used.subscribe("a.subject", lambda frame, _reply: heard.put_nowait(frame))
    used.publish("a.subject", b"a frame")

    assert await asyncio.wait_for(heard.get(), 20) == b"a frame"
    bucket = used.bucket("kept", BucketLimits(ttl_s=60.0, total_bytes=10_000, value_bytes=1_000))
    await bucket.put("a", b"1")
    assert await bucket.get("a") == b"1"
    await used.close()


@pytest.mark.process
@pytest.mark.parametrize("trouble", ["another's seed", "another operator", "out of date"])
async def test_who_cannot_prove_it_is_kept_out(
    url: str, operator: Operator, tmp_path: Path, trouble: str
) -> None:
    text = {
        "another's seed": operator.credentials(seed=Key("user").seed),
        "another operator": Operator().credentials(),
        "out of date": operator.credentials(expires=int(time.time()) - 60),
    }[trouble]

    with pytest.raises(PlaneUnavailable, match=r"(?i)authori[sz]ation|authentication expired"):
        await transport(url, tmp_path, text).start()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a user's JWT and the seed"),
        (Operator().credentials(seed="S!"), "not base32"),
        (Operator().credentials(seed=Key("user").seed[:-4] + "AAAA"), "its checksum is wrong"),
        (Operator().credentials(seed=Key("account").seed), "not that of a user"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "user.creds"
    file.write_text(text)

    with pytest.raises(ValueError, match=why):
        sign(file, "nonce")
