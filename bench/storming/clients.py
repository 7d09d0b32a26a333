"""Clients that stream completions all the while, and know what they have to get."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Self

import aiohttp
import msgspec

CLIENTS = 8
TOKENS = 48
SEED = 7
HUNG_S = 60.0
"""A request that takes longer is taken for forgotten."""
SHOWN_FAILURES = 10


class _Choice(msgspec.Struct):
    text: str = ""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    error: object = None


class Outcomes(msgspec.Struct):
    """What became of the requests."""

    counts: Counter[str] = msgspec.field(default_factory=Counter)
    """`complete`; `error`: an explicit one; `refused`: before it began; `cut`: the connection was
    lost; `wrong`, `hung`."""
    slowest_s: float = 0.0
    cuts: list[tuple[float, float]] = msgspec.field(default_factory=list)
    """From when to when a request was under way whose connection was lost; monotonic clock."""
    failures: list[str] = msgspec.field(default_factory=list)
    """The first few, in words."""


class Clients:
    """Each sends one request after the other, on a connection of its own; use as a context
    manager. The simulated engine's tokens are a function of prompt and seed, so that whatever falls
    meanwhile, each answer must be what it was before the storm."""

    def __init__(self, url: str) -> None:
        self.outcomes = Outcomes()
        self._url = f"{url}/v1/completions"
        self._expected: dict[str, str] = {}
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for number in range(CLIENTS):
            prompt = f"Number {number}: what is the capital of France?"
            kind, text = await self._ask(prompt)
            if kind != "complete":
                raise SystemExit(f"the service does not answer in good weather: {text}")
            self._expected[prompt] = text
        self._tasks = [asyncio.create_task(self._go_on(prompt)) for prompt in self._expected]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _go_on(self, prompt: str) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            kind, text = await self._ask(prompt)
            ended = time.monotonic()
            if kind == "complete" and text != self._expected[prompt]:
                kind = "wrong"
            self._note(kind, text, began, ended)
            if kind in {"refused", "cut"}:
                await asyncio.sleep(0.05)  # as a client would that tries again

    def _note(self, kind: str, text: str, began: float, ended: float) -> None:
        found = self.outcomes
        found.counts[kind] += 1
        found.slowest_s = max(found.slowest_s, ended - began)
        if kind == "cut":
            found.cuts.append((began, ended))
        if kind != "complete" and len(found.failures) < SHOWN_FAILURES:
            found.failures.append(f"{kind} after {ended - began:.2f} s: {text[-200:]}")

    async def _ask(self, prompt: str) -> tuple[str, str]:
        """How it went, and the text or what was said instead."""
        body = {
            "model": "simulated",
            "prompt": prompt,
            "seed": SEED,
            "max_tokens": TOKENS,
            "stream": True,
        }
        connector = aiohttp.TCPConnector(force_close=True)
        try:
            async with (
                asyncio.timeout(HUNG_S),
                aiohttp.ClientSession(connector=connector) as session,
                session.post(self._url, json=body) as response,
            ):
                content = await response.text()
        except TimeoutError:
            return "hung", f"nothing more for {HUNG_S:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return "cut", repr(error)
        if response.status != 200:
            return "refused", f"{response.status} {content}"
        return _read(content)


def _read(content: str) -> tuple[str, str]:
    text = ""
    for line in content.splitlines():
        data = line.removeprefix("data: ")
        if not line or data == "[DONE]":
            continue
        chunk = msgspec.json.decode(data, type=_Chunk)
        if chunk.error is not None:
            return "error", data
        text += "".join(choice.text for choice in chunk.choices)
    if not content.endswith("data: [DONE]\n\n"):
        return "wrong", f"ended without [DONE]: {content}"
    return "complete", text
