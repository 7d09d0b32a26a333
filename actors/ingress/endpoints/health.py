"""What probes and Prometheus ask for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.ingress.openai import errors
from actors.ingress.options import IngressOptions
from actors.ingress.readiness import Health as Body
from actors.ingress.server import Request, Response
from actors.runtime.metrics import CONTENT_TYPE, render

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress


class Health:
    """Whether this process, and the service behind it, can do something now."""

    def __init__(self, ingress: Ingress, options: IngressOptions) -> None:
        self._ingress = ingress
        self._options = options

    async def live(self, _request: Request) -> Response:
        return Response(b'{"status":"alive"}')

    async def health(self, _request: Request) -> Response:
        """By what the registry says: cheap, and believes it. `/ready` asks for a token."""
        models = {name: self._ingress.fleet.can_serve(name) for name in self._model_names()}
        return self._answer(models, {})

    async def ready(self, request: Request) -> Response:
        named = request.query.get("model")
        wanted = None if named is None else self._ingress.model_named(named)
        names = self._model_names()
        if wanted is not None and wanted not in names:
            raise errors.unknown_model(named or wanted)
        asked = names if wanted is None else [wanted]
        readiness = self._ingress.readiness
        verdicts = await asyncio.gather(*(readiness.of(name) for name in asked))
        found = dict(zip(asked, verdicts, strict=True))
        models = {name: verdict.ready for name, verdict in found.items()}
        why = {name: verdict.why for name, verdict in found.items() if verdict.why}
        return self._answer(models, why)

    async def metrics(self, _request: Request) -> Response:
        """Of this node alone; the supervisor has those of all."""
        node = self._ingress.node
        text = render([([("node", node.name)], node.metrics.collect())])
        return Response(text.encode(), content_type=CONTENT_TYPE)

    def _answer(self, models: dict[str, bool], why: dict[str, str]) -> Response:
        missing = [
            role for role in (self._options.preprocessor,) if not self._ingress.has_role(role)
        ]
        draining = self._ingress.is_draining
        ready = any(models.values()) and not missing and not draining
        status: Literal["ready", "not ready", "draining"] = (
            "ready" if ready else "draining" if draining else "not ready"
        )
        body = Body(status, models, missing, why)
        headers = {"Cache-Control": "no-store"}
        return Response(msgspec.json.encode(body), 200 if ready else 503, headers=headers)

    def _model_names(self) -> list[str]:
        return sorted(self._ingress.fleet.models())
