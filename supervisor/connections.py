"""Where NATS and etcd are: embedded servers of this supervisor, or servers of the file's own."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings, TlsFiles
from supervisor import services
from supervisor.etcd_login import require_login
from supervisor.layout import Layout
from supervisor.runstate import RunState, still_runs
from supervisor.shown import check_files
from supervisor.topology import Service, Tls, Topology


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """How nodes reach both, and what has to run for it."""

    nats: NatsSettings
    etcd: EtcdSettings
    servers: tuple[services.Server, ...]
    """The embedded ones, in start order."""
    etcd_peer_port: int | None
    """Of the embedded etcd."""


def connect(
    topology: Topology, layout: Layout, environ: Mapping[str, str], last: RunState | None
) -> Connections:
    """Choose ports, and write the embedded servers' configuration.

    They get the ports and the token they had under the `last` supervisor. Raises
    ServerNotFoundError, LoginNotSetError, CertificatesError, OSError.
    """
    nats_port, etcd_port, peer_port = _ports(topology, last)
    nats_host, etcd_host = (
        services.HOST if service.listen is None else services.resolve(service.listen)
        for service in (topology.nats, topology.etcd)
    )
    servers: list[services.Server] = []
    if topology.nats.embedded:
        token = topology.nats.token or (None if last is None else last.nats_token)
        tls = _own_tls(topology, topology.nats)
        own_nats = services.embed_nats(layout, environ, nats_port, token, nats_host, tls)
        servers.append(own_nats.server)
        nats = NatsSettings(urls=(own_nats.url,), token=own_nats.token, tls=tls)
    else:
        _own_tls(topology, topology.nats)
        nats = nats_settings(topology.nats)
    if topology.etcd.embedded:
        tls = _own_tls(topology, topology.etcd)
        own_etcd = services.embed_etcd(layout, environ, etcd_port, peer_port, etcd_host, tls)
        servers.append(own_etcd.server)
        user, password = topology.etcd.user, topology.etcd.password
        if password is not None:
            port, spare_peer = services.free_ports(2)
            spare = services.embed_etcd(layout, environ, port, spare_peer)
            require_login(
                spare.server.argv, spare.url, spare.server.ready_mark, layout.etcd, password,
                services.server_environment(environ),
            )  # fmt: skip
        etcd = EtcdSettings(urls=(own_etcd.url,), user=user, password=password, tls=tls)
    else:
        _own_tls(topology, topology.etcd)
        etcd = etcd_settings(topology.etcd)
    return Connections(
        nats=nats,
        etcd=etcd,
        servers=tuple(servers),
        etcd_peer_port=peer_port if topology.etcd.embedded else None,
    )


def _own_tls(topology: Topology, service: Service) -> TlsFiles | None:
    """What this machine shows to the servers of the topology. Raises CertificatesError."""
    tls = service.tls
    if service.node is None or tls is None:
        return None
    ca, cert, key = tls.ca or "", tls.cert or "", tls.key or ""
    check_files(ca, cert, key, topology.here or "", topology.path)
    return TlsFiles(ca=ca, cert=cert, key=key)


def nats_settings(service: Service) -> NatsSettings:
    """How nodes reach a NATS of the file's own."""
    return NatsSettings(
        urls=service.urls,
        user=service.user,
        password=service.password,
        token=service.token,
        credentials=service.credentials,
        tls=_tls(service.tls),
    )


def etcd_settings(service: Service) -> EtcdSettings:
    """How nodes reach an etcd of the file's own."""
    return EtcdSettings(
        urls=service.urls,
        user=service.user,
        password=service.password,
        tls=_tls(service.tls),
    )


def _tls(tls: Tls | None) -> TlsFiles | None:
    return None if tls is None else TlsFiles(ca=tls.ca, cert=tls.cert, key=tls.key)


def _ports(topology: Topology, last: RunState | None) -> tuple[int, int, int]:
    """Of NATS, of etcd, and for etcd's peers: the file's, else those of the last time, else any."""
    fresh = services.free_ports(3)
    known = {} if last is None else last.ports
    peer = None if last is None else last.etcd_peer_port
    running = {child.name for child in (last.children if last else ()) if still_runs(child)}

    def choose(server: str, said: int | None, before: int | None, fresh: int) -> int:
        # Nodes that outlived their server look for it where it was.
        kept = before is not None and (server in running or services.is_free(before))
        return said or (before if before is not None and kept else fresh)

    return (
        choose("nats", topology.nats.port, known.get("nats"), fresh[0]),
        choose("etcd", topology.etcd.port, known.get("etcd"), fresh[1]),
        choose("etcd", None, peer, fresh[2]),
    )
