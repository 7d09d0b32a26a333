"""HTTPS, with real certificates and clients that check them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from actors.ingress.actor import Ingress
from actors.ingress.server import CertificateError, tls
from tests.actors.ingress.clients import (
    COMPLETIONS,
    Answer,
    completion,
    connected,
    request,
    url_of,
)
from tests.service import (
    MODEL,
    PATIENCE_S,
    Service,
    aggregated,
    encoded,
    eventually,
    reference_text,
)


class Authority:
    """Issues a certificate into files, and has a client's context that believes it alone."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.trust = ssl.create_default_context()
        self._authority.configure_trust(self.trust)

    def issue(self, directory: Path) -> dict[str, str]:
        """The options of an ingress."""
        issued = self._authority.issue_cert("127.0.0.1")
        chain, key = directory / "chain.pem", directory / "key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return {"tls_cert": str(chain), "tls_key": str(key)}


@asynccontextmanager
async def secured(
    directory: Path, authority: Authority, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    async with aggregated(ingress=authority.issue(directory), **engine) as running:
        yield running


async def ask(ingress: Ingress, authority: Authority, **fields: Any) -> Answer:
    async with connected(ingress, authority.trust) as connection:
        await connection.post(COMPLETIONS, completion(**fields))
        return await connection.answer()


async def test_the_official_client_is_served_over_tls_streamed_and_not(tmp_path: Path) -> None:
    authority = Authority()
    async with secured(tmp_path, authority) as (_, ingress):
        assert url_of(ingress).startswith("https://127.0.0.1:")
        async with (
            DefaultAsyncHttpxClient(verify=authority.trust) as http,
            AsyncOpenAI(
                base_url=f"{url_of(ingress)}/v1",
                api_key="none",
                max_retries=0,
                timeout=PATIENCE_S,
                http_client=http,
            ) as client,
        ):
            whole = await client.completions.create(
                model=MODEL, prompt="hello", max_tokens=20, seed=5
            )
            stream = await client.completions.create(
                model=MODEL, prompt="hello", max_tokens=20, seed=5, stream=True
            )
            pieces = [chunk.choices[0].text async for chunk in stream]

    assert whole.choices[0].text == "".join(pieces) == reference_text(encoded("hello"), 5, 20)


async def test_a_client_that_believes_another_authority_does_not_connect(tmp_path: Path) -> None:
    async with secured(tmp_path, Authority()) as (_, ingress):
        client = AsyncOpenAI(base_url=f"{url_of(ingress)}/v1", api_key="none", max_retries=0)
        async with client:
            with pytest.raises(openai.APIConnectionError) as refused:
                await client.models.list()

    assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)


async def test_plain_http_gets_no_answer_and_harms_nobody(tmp_path: Path) -> None:
    authority = Authority()
    async with secured(tmp_path, authority) as (_, ingress):
        async with connected(ingress) as plain:
            await plain.send(request("/live"))
            assert b"HTTP" not in await plain.rest()
        assert (await ask(ingress, authority)).status == 200


async def test_a_renewed_certificate_counts_without_a_restart_and_half_of_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "LOOK_S", 0.0)
    old, new = Authority(), Authority()
    async with secured(tmp_path, old) as (_, ingress), connected(ingress, old.trust) as kept:
        key = (tmp_path / "key.pem").read_bytes()
        new.issue(tmp_path)
        renewed = (tmp_path / "key.pem").read_bytes()
        (tmp_path / "key.pem").write_bytes(key)  # the chain is new, the key is not yet
        assert (await ask(ingress, old)).status == 200
        (tmp_path / "key.pem").unlink()
        assert (await ask(ingress, old)).status == 200

        (tmp_path / "key.pem").write_bytes(renewed)
        assert (await ask(ingress, new)).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(ingress, old)
        await kept.post(COMPLETIONS, completion())
        assert (await kept.answer()).status == 200, "what is open stays open"


async def test_a_refusal_in_the_middle_of_a_request_is_heard(tmp_path: Path) -> None:
    authority = Authority()
    options = {**authority.issue(tmp_path), "max_body_bytes": 1000}
    async with (
        aggregated(ingress=options) as (_, ingress),
        connected(ingress, authority.trust) as connection,
    ):
        await connection.send(b"POST /tokenize HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(100):
            await connection.send(bytes(10_000))
        assert (await connection.answer()).status == 413


async def test_draining_finishes_what_is_open_and_the_successor_has_the_port(
    tmp_path: Path,
) -> None:
    authority = Authority()
    step = {"quadratic": 0, "linear": 0, "constant": 1}
    async with secured(tmp_path, authority, decode_ms=step, speedup=1) as (service, ingress):
        port = urlsplit(url_of(ingress)).port
        async with connected(ingress, authority.trust) as connection:
            await connection.post(COMPLETIONS, completion(stream=True, max_tokens=300))
            await connection.head()
            successor = await service.start_ingress(1, port=port, **ingress_options(tmp_path))
            # One that has connected and says nothing holds nothing up.
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            drained = asyncio.create_task(service.nodes["ingress/0"].drain())
            await eventually(lambda: not ingress._server.listening)
            assert (await ask(successor, authority)).status == 200
            body = b""
            while chunk := await connection.chunk():
                body += chunk
            await asyncio.wait_for(drained, PATIENCE_S)
            silent.transport.abort()

    assert Answer(200, {}, body).text == reference_text(encoded("hello"), 5, 300)


def ingress_options(directory: Path) -> dict[str, str]:
    return {"tls_cert": str(directory / "chain.pem"), "tls_key": str(directory / "key.pem")}


async def test_an_ingress_without_a_usable_certificate_does_not_start(tmp_path: Path) -> None:
    options = Authority().issue(tmp_path)
    key = tmp_path / "key.pem"
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    cases: dict[str, dict[str, str]] = {
        "nowhere.pem: No such file": {**options, "tls_cert": str(tmp_path / "nowhere.pem")},
        "chain.pem are no certificate and key": {"tls_cert": options["tls_cert"]},
        "is encrypted": options,
    }
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for text, wrong in cases.items():
        with pytest.raises(CertificateError, match=text):
            async with aggregated(ingress=wrong):
                pass
