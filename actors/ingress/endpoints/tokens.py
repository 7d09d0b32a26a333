"""`POST /tokenize` and `POST /detokenize`."""

from __future__ import annotations

import asyncio

from actors.ingress.endpoints.running import Running
from actors.ingress.server import Request, Response
from actors.ingress.tokenizing import detokenize, read_detokenize, read_tokenize, tokenize


class Tokens:
    """Between text and token ids, without a worker."""

    def __init__(self, running: Running) -> None:
        self._running = running

    async def tokenize(self, request: Request) -> Response:
        asked = read_tokenize(request.body)
        self._running.gate.check_model(request, asked.model)
        _, tokenizer, card = await self._running.served(asked.model)
        return Response(await asyncio.to_thread(tokenize, asked, tokenizer, card))

    async def detokenize(self, request: Request) -> Response:
        asked = read_detokenize(request.body)
        self._running.gate.check_model(request, asked.model)
        _, tokenizer, _ = await self._running.served(asked.model)
        return Response(await asyncio.to_thread(detokenize, asked, tokenizer))
