"""Where NATS and etcd are: from the file's several forms, or from the environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import msgspec

from actors.runtime.options import nearest
from supervisor.topology.forms import EtcdForm, NatsForm
from supervisor.topology.model import Service, Tls

EMBEDDED = "embedded"
ETCD_USER = "root"
"""Whom an embedded etcd knows when it asks for a password."""


class ServiceKind(msgspec.Struct, frozen=True):
    """What distinguishes the two services here."""

    name: str
    variable: str
    """The environment variable that replaces `embedded`: URLs, separated by commas."""
    prefix: str
    """Of further variables, see LOGIN and FILES."""
    ports: Mapping[str, int]
    """The default port of each URL scheme; the first scheme is the default one."""


NATS = ServiceKind(
    "nats",
    "NATS_SERVER",
    "NATS",
    MappingProxyType({"nats": 4222, "tls": 4222}),
)
ETCD = ServiceKind(
    "etcd", "ETCD_ENDPOINTS", "ETCD", MappingProxyType({"http": 2379, "https": 2379})
)
LOGIN = MappingProxyType(
    {"user": "USER", "password": "PASSWORD", "token": "TOKEN", "credentials": "CREDS"}
)
"""How to log in where the environment says the servers, and their URLs do not say it: `NATS_USER`,
`NATS_PASSWORD`, `NATS_TOKEN`, `NATS_CREDS` (a file); `ETCD_USER`, `ETCD_PASSWORD`."""
FILES = MappingProxyType({"ca": "CA", "cert": "CERT", "key": "KEY"})
"""PEM files, likewise: `NATS_CA`, `NATS_CERT`, `NATS_KEY`; `ETCD_CA`, `ETCD_CERT`, `ETCD_KEY`."""


class ServiceError(ValueError):
    """What is wrong with a service's description. Never quotes a password."""

    def __init__(self, message: str, key: str | None = None, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        """The key below the service that is wrong, if one is."""
        self.suggestion = suggestion


class _Server(msgspec.Struct, frozen=True):
    url: str
    user: str | None
    password: str | None


def read_service(
    kind: ServiceKind,
    form: str | list[str] | EtcdForm,
    *,
    origin: str,
    base_dir: Path,
) -> Service:
    """Make one Service of any form. Raises ServiceError."""
    match form:
        case "embedded":
            return Service(origin=origin)
        case str():
            return _servers(kind, [form], origin)
        case list():
            return _servers(kind, form, origin)
    if form.embedded:
        return _embedded(form, origin)
    if form.node is not None:
        raise ServiceError("expected node only with embedded: true; found it", "node")
    if form.urls is None:
        raise ServiceError("expected embedded: true, or urls; found neither")
    if form.port is not None:
        message = "expected port only with embedded: true; found it beside urls, which have theirs"
        raise ServiceError(message, "port")
    service = _servers(kind, form.urls, origin, "urls")
    token = form.token if isinstance(form, NatsForm) else None
    credentials = form.credentials if isinstance(form, NatsForm) else None
    if form.password is not None and form.user is None:
        raise ServiceError("expected user beside password; found none", "password")
    ways = {
        "a user": form.user,
        "a token": token,
        "credentials": credentials,
        "a user in the URL": service.user,
        "a token in the URL": service.token,
    }
    given = [way for way, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ServiceError(f"expected one way to log in; found {' and '.join(given)}")
    return msgspec.structs.replace(
        service,
        user=form.user or service.user,
        password=form.password or service.password,
        token=token or service.token,
        credentials=None if credentials is None else str(base_dir / credentials),
        tls=None if form.tls is None else _absolute(form.tls, base_dir),
    )


def service_from_environment(kind: ServiceKind, environ: Mapping[str, str]) -> Service | None:
    """The servers that the kind's variable names, if it names any; who we are, and TLS files, in
    further variables: `NATS_USER`, `ETCD_CA`... (LOGIN, FILES). Raises ServiceError."""
    urls = [url.strip() for url in environ.get(kind.variable, "").split(",")]
    urls = [url for url in urls if url]
    if not urls:
        return None
    service = _servers(kind, urls, kind.variable)
    given = {key: environ.get(f"{kind.prefix}_{name}") or None for key, name in LOGIN.items()}
    if kind is ETCD and (given["token"] or given["credentials"]):
        given["token"] = given["credentials"] = None  # NATS's alone
    tls = {key: environ.get(f"{kind.prefix}_{name}") or None for key, name in FILES.items()}
    if (tls["cert"] is None) != (tls["key"] is None):
        raise ServiceError(f"expected {kind.prefix}_CERT and {kind.prefix}_KEY, or neither")
    if service.user is None and service.token is None:
        if given["password"] and not given["user"]:
            message = f"expected {kind.prefix}_USER beside {kind.prefix}_PASSWORD; found none"
            raise ServiceError(message)
        ways = [key for key in ("user", "token", "credentials") if given[key]]
        if len(ways) > 1:
            names = " and ".join(f"{kind.prefix}_{LOGIN[key]}" for key in ways)
            raise ServiceError(f"expected one way to log in; found {names}")
        service = msgspec.structs.replace(service, **given)
    return msgspec.structs.replace(service, tls=Tls(**tls) if any(tls.values()) else None)


def _embedded(form: EtcdForm, origin: str) -> Service:
    is_nats = isinstance(form, NatsForm)
    secret = "token" if is_nats else "password"
    for key in ("urls", "user", "password", "tls", "token", "credentials"):
        if (form.node is None or key != secret) and getattr(form, key, None) is not None:
            raise ServiceError(f"expected no {key} beside embedded: true; found it", key)
    if form.node is None:
        return Service(port=form.port, origin=origin)
    # Other hosts must know both beforehand, and nobody else may get in.
    for key in ("port", secret):
        if not getattr(form, key):
            message = f"expected {key} beside node, as other nodes connect to it; found none"
            raise ServiceError(message, "node")
    return Service(
        port=form.port,
        node=form.node,
        user=None if is_nats else ETCD_USER,
        password=form.password,
        token=form.token if isinstance(form, NatsForm) else None,
        origin=origin,
    )


def _servers(
    kind: ServiceKind, urls: Sequence[str], origin: str, key: str | None = None
) -> Service:
    if not urls:
        raise ServiceError("expected at least one URL; found an empty list", key)
    servers = [_parse_url(kind, url, key) for url in urls]
    logins = {(server.user, server.password) for server in servers}
    if len(logins) > 1:
        raise ServiceError("expected the same user in every URL; found different ones", key)
    user, password = logins.pop()
    # nats://secret@host is how NATS writes a token; etcd knows users with passwords only.
    token = user if kind is NATS and password is None else None
    if user is not None and password is None and token is None:
        raise ServiceError("expected a password after the user; found none", key)
    return Service(
        urls=tuple(server.url for server in servers),
        user=None if token is not None else user,
        password=password,
        token=token,
        origin=origin,
    )


def _parse_url(kind: ServiceKind, text: str, key: str | None) -> _Server:
    schemes = list(kind.ports)
    expected = f"expected {EMBEDDED} or a URL such as {schemes[0]}://host:{kind.ports[schemes[0]]}"
    if "://" not in text:
        meant = nearest(text, [EMBEDDED])
        if meant is not None:
            raise ServiceError(f"{expected}; found '{text}'", key, meant)
        text = f"{schemes[0]}://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ServiceError(f"{expected}; found one that is no URL", key) from None
    if parts.scheme not in kind.ports:
        found = f"expected one of {', '.join(schemes)} as the scheme of a URL"
        meant = nearest(parts.scheme, schemes)
        raise ServiceError(f"{found}; found '{parts.scheme}'", key, meant)
    host = parts.hostname or ""
    if not is_host(host) or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ServiceError(f"{expected}; found another form", key)
    shown_host = f"[{host}]" if ":" in host else host
    port = kind.ports[parts.scheme] if port is None else port
    return _Server(
        url=f"{parts.scheme}://{shown_host}:{port}",
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def is_host(host: str) -> bool:
    """Whether it is a host name or an IP address."""
    if ":" not in host:
        return re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host) is not None
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _absolute(tls: Tls, base_dir: Path) -> Tls:
    return Tls(
        **{
            field: None if name is None else str(base_dir / name)
            for field, name in msgspec.structs.asdict(tls).items()
        }
    )
