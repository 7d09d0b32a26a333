"""The engine behind sglang-router: emits tokens in time, as the simulated engine does, and no more.

    python backend.py PORT SPEEDUP

Runs in the peer's own environment, so it uses nothing of this project.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

STEP_S = 0.00574
PREFILL_S = 0.0203
"""Of 250 prompt tokens, by the simulated engine's formula."""
HEAD = {"id": "chatcmpl-0", "created": 1_700_000_000, "model": "simulated"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Steps:
    """One engine's steps: everybody who waits goes on at the same moment."""

    def __init__(self, speedup: float) -> None:
        self._step_s = STEP_S / speedup if speedup else 0.0
        self.prefill_s = PREFILL_S / speedup if speedup else 0.0
        self._next: asyncio.Future[None] | None = None
        self._due = 0.0

    async def next(self) -> None:
        """Return at the end of the step under way."""
        if not self._step_s:
            await asyncio.sleep(0)
            return
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            # Absolute, so that a late step does not move the next.
            self._due = max(self._due + self._step_s, loop.time())
            loop.call_at(self._due, self._end)
        await asyncio.shield(self._next)

    def _end(self) -> None:
        ended, self._next = self._next, None
        if ended is not None:
            ended.set_result(None)


class Backend:
    """An ASGI application."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/v1/chat/completions":
            await self._answer(json.loads(body), send)
        else:
            await _whole(send, {"object": "list", "data": [{"id": "simulated"}], "status": "ok"})

    async def _answer(self, asked: dict[str, Any], send: Send) -> None:
        # The router passes the older name on as the newer one.
        tokens = int(asked.get("max_completion_tokens") or asked["max_tokens"])
        usage = {"prompt_tokens": 250, "completion_tokens": tokens, "total_tokens": 250 + tokens}
        if self._steps.prefill_s:
            await asyncio.sleep(self._steps.prefill_s)
        if not asked.get("stream"):
            for _ in range(tokens - 1):
                await self._steps.next()
            message = {"role": "assistant", "content": " word" * tokens}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            await _whole(
                send, {**HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}
            )
            return
        start = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        piece = _event({"choices": [{"index": 0, "delta": {"content": " word"}}]})
        for number in range(tokens):
            if number:
                await self._steps.next()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        end = {"index": 0, "delta": {}, "finish_reason": "length"}
        last = _event({"choices": [end]}) + _event({"choices": [], "usage": usage})
        last += b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": last})


def _event(fields: dict[str, Any]) -> bytes:
    return (
        b"data: "
        + json.dumps({**HEAD, "object": "chat.completion.chunk", **fields}).encode()
        + b"\n\n"
    )


async def _whole(send: Send, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        Backend(Steps(float(sys.argv[2]))), port=int(sys.argv[1]), log_level="error", loop="uvloop"
    )
