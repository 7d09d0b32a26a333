"""Options of the ingress."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from actors.ingress.session import Policy

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class IngressOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to listen, and how much of everything one client may take."""

    host: str = "127.0.0.1"
    """`0.0.0.0` opens it to other hosts."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    """0 takes a free one; `supervise status` shows which."""
    reuse_port: bool = False
    """Share the port with other ingress processes (SO_REUSEPORT), whoever they are: the kernel
    spreads connections over them. Without it only an ingress of this service, such as the
    stand-in of a planned restart, may share it."""
    preprocessor: str = "preprocessor"
    """The role that takes requests on."""
    max_requests: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """Requests in progress; one more is answered with 503."""
    max_connections: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Connections open at a time, idle ones included. One more is accepted, told 503 at its first
    request (but for `/live`, `/health`, `/ready` and `/metrics`, which are answered) and closed, so
    that clients know to come again and probes do not take a full ingress for a dead one. None:
    twice `max_requests`, or fewer if the process may not open as many files (`open_files`). Each
    ingress reckons with all of these: set it where one process has several."""
    max_header_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 1024
    """Of a request's line and header fields together; beyond it 431."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1)] = 8 * 1024 * 1024
    """Of a request, also of a compressed one once decompressed; beyond it 413."""
    header_timeout_s: Seconds = 30.0
    """A connection that sends no complete head for this long, since it was opened or since the last
    answer, is closed; also one that does not finish its TLS handshake."""
    body_timeout_s: Seconds = 30.0
    """From the end of a request's head to the end of its body; beyond it 408."""
    client_timeout_s: Seconds = 60.0
    """A connection whose client acknowledges nothing, or reads nothing of what waits for it, for
    this long is closed: it has vanished without a word (a half-open connection), or it hangs."""
    request_timeout_s: Seconds = 600.0
    """From the body's end to the last token, replays included."""
    default_max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """For requests that set none; None goes on until the model ends, or its context is full."""
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    """What becomes of a request with a field that is neither this server's nor OpenAI's."""
    stream_interval_s: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """How long a stream's text may wait for the next tokens', to be written with it: fewer writes,
    a seventh less CPU for each token at 0.02, and clients that see text in steps of that. A first
    token and the end never wait. 0: each token is written as it comes."""
    max_unsent_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 1024 * 1024
    """Of one stream whose client reads too slowly; beyond it the connection is cut."""
    tenant_header: str = ""
    """The header that tells whose request it is, for fairness when requests queue (a proxy's, say).
    Empty: the API key does."""
    explain: bool = True
    """Tell clients that ask for it which workers served them, and why those. Names of workers and
    their load are not for strangers: turn it off where clients are."""
    ready_timeout_s: Seconds = 3.0
    """How long `/ready` waits for the token that it asks for; longer than any step of an engine."""
    tls_cert: str | None = None
    """Speak HTTPS with the certificate chain of this PEM file. A changed file counts for the
    connections that are opened a second later, without a restart."""
    tls_key: str | None = None
    """The file of its private key, without a password; by default the key stands in `tls_cert`."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser (`https://chat.example.org`); `*`: all.
    The chat page needs no entry."""
    keys: str | None = None
    """A file of API keys (`supervise keys create`): only who has one may come in."""
    chat_page: bool = True
    """Serve a page at `/` to talk to the models with."""
    log_prompts: bool = False
    """Write what clients ask into the log. Without it no word of a prompt or of an answer gets into
    logs, metrics or traces."""
    metrics: bool = True
    """Serve `/metrics` of this process for Prometheus."""
    response_ttl_s: Seconds = 24 * 3600.0
    """How long a response may be asked for, or followed by `previous_response_id`. They are kept in
    NATS JetStream, for all ingresses of the service."""
    response_store_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024)] = 256 * 1024 * 1024
    """Of all responses that are kept; beyond it the oldest go."""
    max_response_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 1000 * 1000
    """Of one, with the conversation before it; a longer one is answered and not kept (its `store`
    is false). A NATS of your own must take messages that long (`max_payload`, 1 MiB by default)."""
    replay: Policy = Policy()

    def __post_init__(self) -> None:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("tls_key is the key of a certificate: name that as tls_cert")
        for origin in self.cors_origins:
            scheme, separator, host = origin.partition("://")
            whole = bool(separator and scheme and host) and "/" not in host
            if origin != "*" and not whole:
                raise ValueError(
                    f"'{origin}' in cors_origins is no origin: write scheme://host[:port], "
                    "without a path, or *"
                )
