"""What clients ask in a simulation, and the check of every byte they get.

The simulated engine's tokens are a function of prompt and seed, so the whole answer is known
before the request is sent: whatever arrives must be a beginning of it, and what is finished must
be all of it.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.engines.simulated.tokens import TOKEN_BYTES, Vocabulary, sequence_key
from tests.service import MODEL, encoded, encoded_chat, text_of
from tests.simulation.streams import Caller

if TYPE_CHECKING:
    from tests.simulation.streams import ServerSide
    from tests.simulation.world import World

Outcome = Literal["ok", "error", "cut", "left", "refused"]
CONNECT_AGAIN_S = 0.05
CONNECT_FOR_S = 20.0
WORDS = ("the", "king", "of", "Spain", "rain", "in", "Paris", "falls", "mainly", "on", "a", "plain")


class Violation(Exception):
    """A promise was broken."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as planned."""

    number: int
    at: float
    ingress: int
    chat: bool
    stream: bool
    choices: int
    max_tokens: int
    seed: int
    prompt: str
    stop: str
    usage: bool
    leave_after: int | None
    """Hang up once so many characters have come."""

    def body(self) -> bytes:
        fields: dict[str, Any] = {
            "model": MODEL,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "n": self.choices,
            "stream": self.stream,
        }
        if self.chat:
            fields["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            fields["prompt"] = self.prompt
        if self.stop:
            fields["stop"] = [self.stop]
        if self.stream and self.usage:
            fields["stream_options"] = {"include_usage": True}
        return msgspec.json.encode(fields)

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"


class Expected(msgspec.Struct, frozen=True):
    """A whole choice."""

    text: str
    reason: str
    tokens: int


@cache
def _packed(prompt: str, *, chat: bool) -> bytes:
    return encoded_chat({"role": "user", "content": prompt}) if chat else encoded(prompt)


@cache
def _words(prompt: str, chat: bool, seed: int, count: int, words: Vocabulary) -> Expected:
    packed = _packed(prompt, chat=chat)
    key = sequence_key(packed, seed)
    first = len(packed) // TOKEN_BYTES
    tokens = []
    reason = "length"
    for position in range(first, first + count):
        if words.ends(key, position):
            reason = "stop"
            break
        tokens.append(words.draw(key, position))
    return Expected(text_of(tokens), reason, len(tokens))


def expected(ask: Ask, choice: int, words: Vocabulary) -> Expected:
    """What one choice must be."""
    whole = _words(ask.prompt, ask.chat, ask.seed + choice, ask.max_tokens, words)
    if ask.stop and (at := whole.text.find(ask.stop)) >= 0:
        return Expected(whole.text[:at], "stop", -1)
    return whole


def plan_asks(rng: random.Random, count: int, until_s: float, ingresses: int) -> list[Ask]:
    """The requests of one run."""
    asks = []
    for number in range(count):
        chat = rng.random() < 0.4
        prompt = " ".join(rng.choices(WORDS, k=rng.choice((1, 3, 3, 30, 60))))
        ask = Ask(
            number=number,
            at=rng.uniform(0, until_s),
            ingress=rng.randrange(ingresses),
            chat=chat,
            stream=rng.random() < 0.75,
            choices=2 if rng.random() < 0.1 else 1,
            max_tokens=rng.choice((1, 2, 5, 20, 40, 60)),
            seed=rng.randrange(1000),
            prompt=prompt,
            stop="",
            usage=rng.random() < 0.5,
            leave_after=rng.randrange(1, 60) if rng.random() < 0.1 else None,
        )
        if rng.random() < 0.15:
            ask = msgspec.structs.replace(ask, stop=_stop_for(ask, rng))
        asks.append(ask)
    return sorted(asks, key=lambda ask: ask.at)


def _stop_for(ask: Ask, rng: random.Random) -> str:
    """A piece of the answer, so that it is met."""
    text = _words(ask.prompt, ask.chat, ask.seed, ask.max_tokens, Vocabulary(300, 900)).text
    pieces = [text[i : i + 3] for i in range(2, len(text) - 3)]
    plain = [piece for piece in pieces if piece.isascii() and piece.isprintable()]
    return rng.choice(plain) if plain else ""


class Call(Caller):
    """One request under way: reads the answer as it comes, and holds it to what is expected."""

    def __init__(self, world: World, ask: Ask) -> None:
        self.ask = ask
        self.outcome: Outcome | None = None
        self.why = ""
        self.begun_at = 0.0
        self.last_at = 0.0
        self.silence_s = 0.0
        """The longest time between two pieces of a stream."""
        self._world = world
        self.texts = [""] * ask.choices
        self._reasons: list[str | None] = [None] * ask.choices
        self._side: ServerSide | None = None
        self._buffer = b""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = b""
        self._chunked = False
        self._done = False
        self._usage: Any = None
        self._error: Any = None

    def begin(self) -> None:
        """Connect; to another ingress, or again later, when nobody listens."""
        world = self._world
        if self.begun_at == 0.0:
            self.begun_at = self.last_at = world.loop.now
        for turn in range(len(world.ingresses)):
            index = (self.ask.ingress + turn) % len(world.ingresses)
            proc = world.ingress_proc(index)
            self._side = None if proc is None else world.streams.connect(proc, self)
            if self._side is not None:
                world.trace(f"client {self.ask.number} asks {proc}")
                body = self.ask.body()
                self._side.send(
                    f"POST {self.ask.path} HTTP/1.1\r\nHost: s\r\nContent-Length: {len(body)}"
                    "\r\n\r\n".encode()
                    + body
                )
                return
        if world.loop.now > self.begun_at + CONNECT_FOR_S:
            self._end("refused", "no ingress listens")
            return
        world.loop.call_later(CONNECT_AGAIN_S, self.begin)

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    # -- the wire ------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self.outcome in {"left", "cut"}:
            return
        self._buffer += data
        if not self._status and not self._read_head():
            return
        if self._chunked:
            self._read_chunks()
        elif len(self._buffer) >= int(self._headers["content-length"]):
            self._body, self._buffer = self._buffer, b""
            self._whole()

    def closed(self) -> None:
        if self.outcome is None:
            assert self._side is not None, "it was connected"
            if not self._side._proc.dead:
                self._broken("the connection was closed in the middle of the answer")
            self._end("cut", "its ingress died")

    def _read_head(self) -> bool:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        line, *lines = head.decode("latin-1").split("\r\n")
        self._status = int(line.split()[1])
        self._headers = {
            name.lower(): value for name, _, value in (one.partition(": ") for one in lines)
        }
        self._chunked = self._headers.get("transfer-encoding") == "chunked"
        self._buffer = rest
        return True

    def _read_chunks(self) -> None:
        while self.outcome is None:
            size, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                return
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            data, self._buffer = rest[:length], rest[length + 2 :]
            if not data:
                self._stream_ended()
                return
            for event in data.decode().split("\n\n"):
                if event:
                    self._event(event.removeprefix("data: "))

    # -- what it says --------------------------------------------------------------------------

    def _event(self, event: str) -> None:
        if self.outcome is not None:
            return
        if self._done:
            self._broken(f"an event after [DONE]: {event}")
        now = self._world.loop.now
        self.silence_s = max(self.silence_s, now - self.last_at)
        self.last_at = now
        if event == "[DONE]":
            self._done = True
            return
        if self._error is not None:
            self._broken(f"an event after the error: {event}")
        said = msgspec.json.decode(event)
        if "error" in said:
            self._error = said["error"]
            return
        if said.get("usage"):
            self._usage = said["usage"]
        for choice in said["choices"]:
            text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
            self._take(choice["index"], text, choice["finish_reason"])
        leave = self.ask.leave_after
        if leave is not None and sum(map(len, self.texts)) >= leave:
            assert self._side is not None, "it is connected"
            self._side.hang_up()
            self._end("left", "the client hung up")

    def _whole(self) -> None:
        said = msgspec.json.decode(self._body)
        self.silence_s = self._world.loop.now - self.last_at
        if self._status != 200:
            self._error = said["error"]
            self._end("error", f"{self._status} {self._error['message']}")
            return
        for choice in said["choices"]:
            text = choice.get("text") or (choice.get("message") or {}).get("content") or ""
            self._take(choice["index"], text, choice["finish_reason"])
        self._usage = said["usage"]
        self._finished()

    def _take(self, index: int, text: str, reason: str | None) -> None:
        whole = expected(self.ask, index, self._world.words)
        if self._reasons[index] is not None:
            self._broken(f"choice {index} goes on after its end: {text!r}")
        got = self.texts[index] = self.texts[index] + text
        if not whole.text.startswith(got):
            right = _common(whole.text, got)
            self._broken(
                f"choice {index} is wrong from character {right} on: {got[right:]!r} in place of "
                f"{whole.text[right : right + 20]!r}"
            )
        if reason is not None:
            self._reasons[index] = reason
            if got != whole.text:
                self._broken(f"choice {index} ended ({reason}) {len(got)} / {len(whole.text)}")
            if reason != whole.reason:
                self._broken(f"choice {index} ended by {reason}, not by {whole.reason}")

    def _stream_ended(self) -> None:
        if not self._done:
            self._broken("the stream ended without [DONE]")
        if self._error is not None:
            self._end("error", str(self._error["message"]))
            return
        self._finished()

    def _finished(self) -> None:
        if None in self._reasons:
            self._broken("the answer ended before all its choices")
        counts = [expected(self.ask, i, self._world.words).tokens for i in range(self.ask.choices)]
        if self._usage is not None and -1 not in counts:
            prompt = len(_packed(self.ask.prompt, chat=self.ask.chat)) // TOKEN_BYTES
            said = self._usage["prompt_tokens"], self._usage["completion_tokens"]
            if said != (prompt, sum(counts)):
                self._broken(f"usage is {said}, not {(prompt, sum(counts))}")
        self._end("ok", "")

    def _broken(self, what: str) -> None:
        raise Violation(f"request {self.ask.number}: {what}")

    def _end(self, outcome: Outcome, why: str) -> None:
        self.outcome, self.why = outcome, why
        self._world.trace(f"client {self.ask.number} ends: {outcome} {why}")
        if outcome != "left" and self._side is not None:
            self._side.hang_up()
        self._world.call_ended(self)


def _common(one: str, other: str) -> int:
    """Length of the common beginning."""
    length = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        length += 1
    return length
