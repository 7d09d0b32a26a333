"""`GET /v1/models`: what is served, under every name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.ingress.openai import errors, responses
from actors.ingress.openai.responses import Model
from actors.ingress.server import Request, Response

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress


class Models:
    """The models as clients see them."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    async def all(self, _request: Request) -> Response:
        return Response(responses.model_list(self._objects()))

    async def one(self, request: Request) -> Response:
        wanted = request.path.removeprefix("/v1/models/")
        for model in self._objects():
            if model.id == wanted:
                return Response(responses.model_object(model))
        raise errors.unknown_model(wanted)

    def _objects(self) -> list[Model]:
        """Of all names, those of either kind."""
        models = self._ingress.fleet.models()
        named = {
            name: Model(name, int(alias.added_at), root=alias.target)
            for name, _, alias in self._ingress.names.all()
            if alias.target in models
        }
        named |= {name: Model(name, int(card.started_at)) for name, card in models.items()}
        return [named[name] for name in sorted(named)]
