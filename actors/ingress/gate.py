"""Who comes in: API keys, read again when their file changes, and what each key may still take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import structlog

from actors.access.keyfile import Key, KeyFileError, hash_of, read
from actors.access.limiter import Account, Refusal, Room
from actors.ingress.exchange import Exchange
from actors.ingress.openai.errors import INVALID_REQUEST, ApiError
from actors.ingress.server import Request
from actors.runtime.clock import Clock

LOOK_S = 1.0
"""A changed file is noticed by the first request after this."""
OPEN_PATHS = frozenset({"/", "/live", "/ready", "/health", "/openapi.json"})
"""Need no key: the page asks for one, and who probes has none."""
_TEXTS = {
    "requests": "{limit} requests a minute",
    "tokens": "{limit} tokens a minute",
    "concurrency": "{limit} requests at a time",
    "budget": "{limit} tokens a day",
}

log = structlog.get_logger("gate")


class Guest:
    """A request that was let in."""

    __slots__ = ("account", "exchanges", "headers", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.account: Account | None = None
        """Set when it counts as a request of its key."""
        self.exchanges: list[Exchange] = []
        self.headers: dict[str, str] = {}


class Gate:
    """Lets in who has a key; everybody, when there is no file."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._accounts: dict[str, Account] = {}
        """By name: a key made anew under a name goes on with what that name has taken."""
        self._guests: dict[Request, Guest] = {}
        """Those inside; as many as connections, at the most."""
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = -math.inf

    def start(self) -> None:
        """Read the file for the first time. Raises KeyFileError."""
        if self._path is not None:
            self._load(self._path)
            self._looked_at = self._clock.now()

    def admit(self, request: Request) -> None:
        """Let a request in, until `leave`. Raises ApiError: 401 without a valid key, 429 when it
        has taken too much."""
        if self._path is None or request.path in OPEN_PATHS:
            return
        key = self._authenticate(request)
        guest = self._guests[request] = Guest(key)
        if request.method != "POST":
            return
        account = self._accounts[key.name]
        refusal = account.begin(self._clock.now(), self._clock.wall())
        guest.headers = self._room(account)
        if refusal is not None:
            raise _too_much(key, refusal)
        guest.account = account

    def check(self, request: Request) -> None:
        """Whether a request may send its body; all others are for `admit` alone. Raises ApiError:
        401 without a valid key, also on an open path: who probes sends none."""
        if self._path is not None:
            self._authenticate(request)

    def charge(self, request: Request, exchange: Exchange) -> None:
        """Remember what a request has begun: its key pays for it when it leaves."""
        guest = self._guests.get(request)
        if guest is not None:
            guest.exchanges.append(exchange)

    def headers(self, request: Request) -> dict[str, str]:
        """What its key may still take, as headers of the answer."""
        guest = self._guests.get(request)
        return {} if guest is None else guest.headers

    def owner(self, request: Request) -> str:
        """The name of its key; empty without keys."""
        guest = self._guests.get(request)
        return "" if guest is None else guest.key.name

    def leave(self, request: Request) -> None:
        """The request is over, however it ended."""
        guest = self._guests.pop(request, None)
        if guest is not None and guest.account is not None:
            guest.account.end(_tokens(guest.exchanges), self._clock.now(), self._clock.wall())

    def check_model(self, request: Request, model: str) -> None:
        """Raises ApiError: 403 when the key is not for this model."""
        guest = self._guests.get(request)
        if guest is not None and guest.key.models and model not in guest.key.models:
            text = f"This API key may not use the model '{model}'."
            raise ApiError(403, text, type=INVALID_REQUEST, param="model", code="model_not_allowed")

    def _authenticate(self, request: Request) -> Key:
        self._look()
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            text = "You did not provide an API key: send 'Authorization: Bearer KEY'."
            raise ApiError(401, text, type=INVALID_REQUEST, code="missing_api_key")
        key = self._keys.get(hash_of(secret))
        if key is None:
            text = "Incorrect API key provided."
            raise ApiError(401, text, type=INVALID_REQUEST, code="invalid_api_key")
        if key.expires is not None and self._clock.wall() >= key.expires:
            text = "The API key has expired."
            raise ApiError(401, text, type=INVALID_REQUEST, code="expired_api_key")
        return key

    def _room(self, account: Account) -> dict[str, str]:
        now = self._clock.now()
        headers: dict[str, str] = {}
        rooms = {"requests": account.requests_room(now), "tokens": account.tokens_room(now)}
        for what, room in rooms.items():
            if room is not None:
                headers |= _room_headers(what, room)
        return headers

    def _look(self) -> None:
        now = self._clock.now()
        if self._path is None or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        try:
            if _signature(self._path) != self._seen:
                self._load(self._path)
                log.info("keys_loaded", keys=len(self._keys))
        except (KeyFileError, OSError) as error:
            # Half of an edit, or a file gone: neither opens the door nor shuts it for everybody.
            log.warning("keys_not_loaded", error=str(error), kept=len(self._keys))

    def _load(self, path: Path) -> None:
        content = read(path)
        self._seen = _signature(path)
        self._keys = {key.hash: key for key in content.keys}
        now = self._clock.now()
        for key in content.keys:
            account = self._accounts.get(key.name)
            if account is None:
                self._accounts[key.name] = Account(key, now)
            else:
                account.change(key, now)


def _signature(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _tokens(exchanges: Sequence[Exchange]) -> int:
    """What a request has taken, as its client is told: a prompt counts once, however many answers
    it has."""
    return sum(exchange.counts.total_tokens for exchange in exchanges)


def _too_much(key: Key, refusal: Refusal) -> ApiError:
    limit = _TEXTS[refusal.kind].format(limit=refusal.limit)
    code = "insufficient_quota" if refusal.kind == "budget" else "rate_limit_exceeded"
    text = f"Rate limit reached for key '{key.name}': {limit}."
    return ApiError(429, text, type=code, code=code, retry_after_s=refusal.retry_after_s)


def _room_headers(what: str, room: Room) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(room.limit),
        f"x-ratelimit-remaining-{what}": str(room.remaining),
        f"x-ratelimit-reset-{what}": f"{room.reset_s:.3f}s",
    }
