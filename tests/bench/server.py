"""A small OpenAI-like server, so that the load generator meets a real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Server:
    """Answers with as many words as `max_tokens` asks for, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.port = 0
        self.at_once = 0
        self.most_at_once = 0
        self._three = asyncio.Barrier(3)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._behave(request, body)
        finally:
            self.at_once -= 1

    async def _behave(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        match body["model"]:
            case "busy":
                return web.json_response({"error": {"message": "busy"}}, status=503)
            case "three":  # answers when three are there
                await self._three.wait()
            case "silent":
                await asyncio.Event().wait()
            case "garbage":
                return web.Response(body=b"data: {nonsense\n\n")
        usage = {"prompt_tokens": 7, "completion_tokens": body["max_tokens"]}
        if not body["stream"]:
            choice = {"message": {"content": "word"}, "text": "word", "finish_reason": "length"}
            return web.json_response({"choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await _event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for number in range(body["max_tokens"]):
            if body["model"] == "cuts" and number == 2:
                return response
            if body["model"] == "dies" and number == 2:
                assert request.transport is not None
                request.transport.abort()
                return response
            choice = {"delta": {"content": "word "}, "text": "word "}
            await _event(response, {"choices": [choice]})
        if body["model"] == "fails":
            await _event(response, {"error": {"message": "lost"}})
        await _event(response, {"choices": [{"delta": {}, "finish_reason": "length"}]})
        await _event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(data).encode() + b"\n\n")


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Run the server on a free port of the loopback interface."""
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_post("/v1/completions", server.answer)
    # Connections that are left hanging on purpose are not waited for.
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
