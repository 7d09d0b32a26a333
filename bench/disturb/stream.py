"""One streamed completion of a simulated engine, and whether it was what it had to be."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from actors.engines.simulated.options import SimulatedOptions
from actors.engines.simulated.tokens import expected_tokens
from actors.text.tokenizer import Tokenizer
from bench.loadgen.http import BadResponse, EventReader, ResponseReader, render_request

CAPITALS = Path(__file__).parents[2] / "topologies" / "models" / "capitals"
MODEL = "simulated"
WORDS = SimulatedOptions().words

Verdict = Literal["right", "refused", "error", "cut", "wrong", "hung"]
"""`right`: every token, once, in order, and a proper end. `refused`: an HTTP error before the
first token; `error`: an error event in the stream; `cut`: the connection was lost; `wrong`: text
that is not the reference's, or an untrue count; `hung`: no end in time."""


class Damage(msgspec.Struct, frozen=True):
    """How a text differs from the reference, in tokens."""

    lost: int = 0
    repeated: int = 0
    wrong: int = 0


class Asked(msgspec.Struct, frozen=True):
    """What a stream asks for. The reference follows from it."""

    prompt: list[int]
    seed: int
    tokens: int

    @classmethod
    def random(cls, dice: random.Random, tokens: int) -> Asked:
        """A prompt of 24 to 96 tokens; the first half is one of eight that many share."""
        length = dice.randrange(24, 97)
        shared = random.Random(f"shared {dice.randrange(8)}")
        prompt = [shared.randrange(300, 900) for _ in range(length // 2)]
        prompt += [dice.randrange(300, 900) for _ in range(length - len(prompt))]
        return cls(prompt, dice.getrandbits(40), tokens)

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "model": MODEL,
                "prompt": self.prompt,
                "seed": self.seed,
                "max_tokens": self.tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )

    def pieces(self) -> list[str]:
        """The reference: the text that each token adds, in order; the rest of the last character
        belongs to the last."""
        packed = b"".join(token.to_bytes(4, "little") for token in self.prompt)
        text = tokenizer().detokenizer()
        pieces = [
            text.push([token]) for token in expected_tokens(packed, self.seed, self.tokens, WORDS)
        ]
        pieces[-1] += text.flush()
        return pieces


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Choice(msgspec.Struct):
    text: str = ""
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class Stream(asyncio.Protocol):
    """Sends its request when connected and takes notes; `run` makes and judges one."""

    def __init__(self, asked: Asked, host: str, number: int) -> None:
        self.asked = asked
        self.number = number
        self.sent_at = 0.0
        self.ended_at = 0.0
        self.times: list[float] = []
        """When tokens came, and the end."""
        self.text = ""
        self.finish = ""
        self.problem = ""
        self.local_port = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.verdict: Verdict | None = None
        self.damage = Damage()
        self.task: asyncio.Task[Stream] | None = None
        """For whoever runs it beside others."""
        self._host = host
        self._response = ResponseReader()
        self._events = EventReader()
        self._body = b""
        self._usage: _Usage | None = None
        self._done = False
        self._transport: asyncio.Transport | None = None

    @property
    def begun(self) -> bool:
        return bool(self.times)

    @property
    def live(self) -> bool:
        """Whether it has been sent and is not over."""
        return self.sent_at > 0 and self.verdict is None and not self.closed.done()

    @property
    def silence_s(self) -> float:
        """The widest gap between two signs of life, the request's sending being the first."""
        return self.widest()[0]

    def widest(self) -> tuple[float, float]:
        """(the widest gap, when it began)."""
        times = [self.sent_at, *self.times]
        gaps = [(later - earlier, earlier) for earlier, later in itertools.pairwise(times)]
        return max(gaps, default=(self.ended_at - self.sent_at, self.sent_at))

    # -- the protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.local_port = transport.get_extra_info("sockname")[1]
        self._transport.write(render_request(self._host, "/v1/completions", self.asked.body))

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        try:
            body = self._response.feed(data)
        except BadResponse as error:
            self._end(f"bad response: {error}")
            return
        if self._response.status != 200:
            self._body += body
        else:
            for event in self._events.feed(body):
                self._take(event, now)
        if self._response.done:
            self._end("")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self._end(f"connection lost: {exc or 'closed by the server'}")

    def _take(self, event: bytes, now: float) -> None:
        if event == b"[DONE]":
            self._done = True
            return
        said = _decode(event)
        if said.error is not None:
            self.problem = f"error event: {said.error}"
        if said.usage is not None:
            self._usage = said.usage
        for choice in said.choices:
            self.text += choice.text
            self.finish = choice.finish_reason or self.finish
            self.times.append(now)

    def _end(self, problem: str) -> None:
        self.problem = self.problem or problem
        self.ended_at = asyncio.get_running_loop().time()
        if not self.closed.done():
            self.closed.set_result(None)
        if self._transport is not None:
            self._transport.abort()

    # -- the judgement -------------------------------------------------------------------------

    def judge(self) -> None:
        """Compare with the reference. Sets `verdict` and `damage`."""
        if not self.closed.done():
            self.ended_at = asyncio.get_running_loop().time()
            self._end(f"no end after {self.ended_at - self.sent_at:.0f} s")
            self.verdict = "hung"
            return
        pieces = self.asked.pieces()
        complete = self._done and self.finish == "length" and not self.problem
        if complete and self.text == "".join(pieces):
            self.verdict = "right" if self._counts_right() else "wrong"
            return
        self.damage = compare(pieces, self.text, complete=complete)
        if complete or self.damage.repeated or self.damage.wrong:
            self.verdict = "wrong"
            self.problem = self.problem or "the text is not the reference"
        elif self._response.status not in {0, 200}:
            self.verdict = "refused"
            self.problem = f"{self._response.status} {self._body[:300]!r}"
        elif self.problem.startswith("error event"):
            self.verdict = "error"
        else:
            self.verdict = "cut"

    def _counts_right(self) -> bool:
        used, asked = self._usage, self.asked
        true = _Usage(len(asked.prompt), asked.tokens)
        if used != true:
            self.problem = f"usage {used}, expected {true}"
        return used == true


def compare(pieces: list[str], text: str, *, complete: bool) -> Damage:
    """Where the text leaves the reference. A text that only stops early has lost nothing when its
    stream says that it is not complete."""
    reference = "".join(pieces)
    if reference.startswith(text):
        if not complete:
            return Damage()
        kept, length = 0, 0
        while length < len(text):
            length += len(pieces[kept])
            kept += 1
        return Damage(lost=len(pieces) - kept)
    at, index = 0, 0
    while index < len(pieces) and text.startswith(pieces[index], at):
        at += len(pieces[index])
        index += 1
    rest = text[at : at + 24]
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    for distance in range(1, len(pieces)):
        if index + distance < len(pieces) and reference.startswith(rest, starts[index + distance]):
            return Damage(lost=distance)
        if index >= distance and reference.startswith(rest, starts[index - distance]):
            return Damage(repeated=distance)
    return Damage(wrong=max(1, len(pieces) - index))


async def run(stream: Stream, address: tuple[str, int], *, timeout_s: float) -> Stream:
    """Send it, wait for its end, judge it."""
    loop = asyncio.get_running_loop()
    stream.sent_at = loop.time()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.create_connection(lambda: stream, *address)
            await asyncio.shield(stream.closed)
    except TimeoutError:
        pass  # judged as hung
    except OSError as error:
        stream._end(f"connection refused: {error}")  # noqa: SLF001 - ours
    stream.judge()
    return stream


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(CAPITALS)
