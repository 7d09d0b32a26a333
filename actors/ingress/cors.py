"""Which pages of other origins may call the API from a browser (CORS).

As the Fetch standard has it, https://fetch.spec.whatwg.org/#http-cors-protocol. Keys travel in the
`Authorization` header and never in cookies, so credentials are not allowed and `*` is harmless
where the API itself asks for keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.ingress.openai.errors import INVALID_REQUEST, ApiError
from actors.ingress.server import Request, Response
from actors.ingress.server.routes import Route

ANY = "*"
MAX_AGE_S = 600
"""How long a browser may go on without asking again."""
EXPOSED = (
    "retry-after, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, "
    "x-ratelimit-reset-tokens, x-request-id, x-understudy-context, x-understudy-generation, "
    "x-understudy-matched-tokens, x-understudy-queued-ms"
)
"""Headers of answers that the page's script may read."""


class Cors:
    """The switch: off without origins."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Origins as browsers write them, `https://chat.example.org`, or `*`."""
        self._origins = frozenset(origins)

    def preflight(self, request: Request, route: Route) -> Response | None:
        """The answer to a browser that asks before it asks; None for every other request. Raises
        ApiError: 403 for an origin that is not allowed."""
        if not self._origins or request.method != "OPTIONS" or not route.methods:
            return None
        origin = request.headers.get("origin")
        if origin is None or "access-control-request-method" not in request.headers:
            return None
        if not self._allows(origin):
            text = "Pages of this origin may not call the API."
            raise ApiError(403, text, type=INVALID_REQUEST, code="origin_not_allowed")
        headers = {
            "Access-Control-Allow-Methods": ", ".join(route.methods),
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
        asked = request.headers.get("access-control-request-headers")
        if asked:
            headers["Access-Control-Allow-Headers"] = asked
        return Response(b"", 204, headers=headers)

    def headers(self, request: Request) -> dict[str, str]:
        """Of any answer, errors included, so that the page's script may read it."""
        if not self._origins:
            return {}
        # An answer differs by who asks, which caches must know even of those without an origin.
        vary = {} if ANY in self._origins else {"Vary": "Origin"}
        origin = request.headers.get("origin")
        if origin is None or not self._allows(origin):
            return vary
        allowed = ANY if ANY in self._origins else origin
        return {
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Expose-Headers": EXPOSED,
            **vary,
        }

    def _allows(self, origin: str) -> bool:
        return ANY in self._origins or origin in self._origins
