"""The connection to etcd: aetcd's client with what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aetcd
import aetcd.rpc as etcd_rpc
import grpc
from aetcd.watcher import Watcher

from actors.runtime.transport.nats import TlsFiles

if TYPE_CHECKING:
    from actors.runtime.registry.etcd import EtcdSettings

CALL_TIMEOUT_S = 3
DEFAULT_PORT = 2379


class EtcdClient(aetcd.Client):  # type: ignore[misc]  # aetcd is untyped
    """aetcd's client with what it leaves out: TLS, several endpoints, prompt reconnection.

    One endpoint is used at a time. A gRPC channel over all of them would check every member's
    certificate against one name.
    """

    def __init__(self, settings: EtcdSettings) -> None:
        super().__init__(
            username=settings.user,
            password=settings.password,
            timeout=CALL_TIMEOUT_S,
            options={
                "grpc.initial_reconnect_backoff_ms": 100,
                "grpc.min_reconnect_backoff_ms": 100,
                "grpc.max_reconnect_backoff_ms": 1000,
                "grpc.keepalive_time_ms": 10_000,
                "grpc.keepalive_timeout_ms": 3000,
            },
        )
        self._settings = settings
        self._turn = 0

    async def start_over(self) -> None:
        """Connect anew at the next call: to the next member, if there is one, and with a new
        token, as the old one may have run out."""
        await self.close()
        self._turn += 1

    async def connect(self) -> None:
        if self._connected.is_set():
            return
        # aetcd takes one host and port and opens a plain channel; the channel is made here
        # instead, and aetcd's stubs on it.
        url = self._settings.urls[self._turn % len(self._settings.urls)]
        parts = urlsplit(url if "//" in url else f"http://{url}")
        target = f"{parts.hostname}:{parts.port or DEFAULT_PORT}"
        options = list(self._options.items())
        if parts.scheme != "https":
            await self._use(grpc.aio.insecure_channel(target, options))
            return
        tls = self._settings.tls or TlsFiles()
        if tls.hostname is not None:
            options.append(("grpc.ssl_target_name_override", tls.hostname))
        credentials = grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))
        await self._use(grpc.aio.secure_channel(target, credentials, options))

    async def _use(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        if self._username is not None:
            self.auth_stub = etcd_rpc.AuthStub(channel)
            request = etcd_rpc.AuthenticateRequest(name=self._username, password=self._password)
            answer = await self.auth_stub.Authenticate(request, timeout=self._timeout)
            self.metadata = (("token", answer.token),)
        self.kvstub = etcd_rpc.KVStub(channel)
        self.leasestub = etcd_rpc.LeaseStub(channel)
        self.maintenancestub = etcd_rpc.MaintenanceStub(channel)
        self._watcher = Watcher(
            etcd_rpc.WatchStub(channel), timeout=self._timeout, metadata=self.metadata
        )
        self._connected.set()


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
