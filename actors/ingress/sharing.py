"""The port of an ingress, and who may share it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from actors.messages.cards import IngressCard
from actors.runtime.registry.base import Entry


def is_taken(host: str, port: int, *, shared: bool) -> bool:
    """Whether somebody listens there; `shared`: only who does not share (SO_REUSEPORT) counts.
    Raises OSError when the address cannot be used at all."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections of an earlier listener that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False


def is_ours(entries: Iterable[Entry], host_name: str, port: int) -> bool:
    """Whether another ingress of the service, on this host, serves the port."""
    return any(_port_of(entry) == port for entry in entries if entry.host == host_name)


def _port_of(entry: Entry) -> int | None:
    try:
        card = msgspec.json.decode(entry.meta, type=IngressCard)
    except msgspec.MsgspecError:
        return None
    return urlsplit(card.url).port
