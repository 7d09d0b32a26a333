"""One HTTP request in progress: its choices, and how they come to an end together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from actors.ingress.measures import Stopwatch
from actors.ingress.openai.errors import ApiError, internal
from actors.ingress.openai.responses import FinishReason, Usage
from actors.ingress.session import Session
from actors.ingress.sinks import Lane, Sink
from actors.ingress.wishes import Wishes
from actors.messages.assign import Assigned
from actors.messages.sampling import Findings, Logprobs, Sampling
from actors.messages.submit import Prompt
from actors.text.answers.parser import AnswerParser
from actors.text.detokenizer import Detokenizer
from actors.text.stop_strings import StopMatcher
from actors.text.token_bytes import WholeTokens

if TYPE_CHECKING:
    from actors.ingress.tracing import RequestTrace

NO_WISHES = Wishes()
log = structlog.get_logger("http")


class Choice:
    """One sequence of an exchange: from tokens to text, up to a stop string."""

    __slots__ = (
        "_detokenizer",
        "_lane",
        "_parser",
        "_stops",
        "_texts",
        "exchange",
        "index",
        "number",
        "prompt",
        "sampling",
        "session",
        "timer",
        "timer_at",
        "watch",
    )

    def __init__(
        self,
        exchange: Exchange,
        index: int,
        number: int,
        session: Session,
        prompt: Prompt,
        sampling: Sampling,
        detokenizer: Detokenizer,
        stops: StopMatcher | None,
        watch: Stopwatch,
        parser: AnswerParser | None = None,
    ) -> None:
        self.exchange = exchange
        self.index = index
        self.number = number
        self.session = session
        self.prompt = prompt
        self.sampling = sampling
        self.watch = watch
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = 0.0
        """When it fires, on the actor's clock."""
        self._detokenizer = detokenizer
        self._stops = stops
        self._parser = parser
        self._lane: Lane | None = None
        self._texts: WholeTokens | None = None
        """What tokens stand for, while `_lane` may be taken."""

    def leave(self) -> None:
        """The exchange is over. Without this all that a request had would wait for the collector
        of cycles."""
        del self.exchange

    def hurry(self) -> None:
        """The sink is open: go its faster way, if nothing has to be looked for in the text."""
        if self._stops is None and self._parser is None and self.sampling.logprobs is None:
            self._lane = self.exchange.sink.lane(self.index)
            self._look_at_texts()

    def deliver_one(self, token: int) -> bool:
        """As `deliver` of a token without logprobs, and much cheaper where it can be."""
        texts, lane = self._texts, self._lane
        if texts is not None and lane is not None and (text := texts[token]):
            lane.push(text)
            return False
        return self.deliver([token], None)

    def _look_at_texts(self) -> None:
        self._texts = None if self._lane is None else self._detokenizer.whole

    def deliver(self, tokens: list[int], logprobs: list[Logprobs] | None) -> bool:
        """Pass the text of new tokens on; True when it ended at a stop string."""
        if self.exchange.prompt_only:
            return False
        text = self._detokenizer.push(tokens)
        self._look_at_texts()
        stopped = False
        if self._stops is not None:
            text, matched = self._stops.push(text)
            stopped = matched is not None
        if self._parser is not None:
            self._read(self._parser, text, logprobs)
        elif text or logprobs:
            self.exchange.sink.text(self.index, text, logprobs)
            self.exchange.begun.set()
        return stopped

    def _read(
        self, parser: AnswerParser, text: str | None, logprobs: list[Logprobs] | None
    ) -> None:
        """`text`: None when there is no more."""
        if self.exchange.error is not None:
            return
        try:
            parts = parser.flush() if text is None else parser.push(text)
            if parts or logprobs:
                self.exchange.sink.parts(self.index, parts, logprobs)
                self.exchange.begun.set()
        except Exception as error:
            # What a model writes is foreign to us, and whoever asks can have it write anything:
            # an answer that we cannot read must not end everybody else's.
            log.exception("answer_unreadable", request=self.exchange.request_id)
            self.exchange.fail(internal(f"The answer cannot be read ({type(error).__name__})."))

    def finish(self, reason: FinishReason) -> None:
        """Pass on what was held back, unless that completes a stop string."""
        if self.exchange.prompt_only:
            self.end("length")
            return
        rest = self._detokenizer.flush()
        if self._stops is not None:
            rest, matched = self._stops.push(rest)
            if matched is None:
                rest += self._stops.flush()
            else:
                reason = "stop"
        if rest and self._parser is None:
            self.exchange.sink.text(self.index, rest, None)
        elif rest and self._parser is not None:
            self._read(self._parser, rest, None)
        self.end(reason)

    def end(self, reason: FinishReason) -> None:
        """There is no more text: say so."""
        if self._parser is not None:
            self._read(self._parser, None, None)
            if self._parser.called and reason == "stop":
                reason = "tool_calls"
        self.exchange.choice_finished(self, reason)


class Exchange:
    """All choices of one HTTP request. `begun` is set at the first news of any; `ended` when all
    are complete or one has failed, which fails them all."""

    def __init__(self, model: str, request_id: str, sink: Sink, wishes: Wishes = NO_WISHES) -> None:
        self.model = model
        self.request_id = request_id
        self.sink = sink
        self.wishes = wishes
        self.assigned: Assigned | None = None
        """Who runs the first choice, as last heard."""
        self.choices: list[Choice] = []
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: ApiError | None = None
        self.began_at = 0.0
        """On the precise clock."""
        self.trace: RequestTrace | None = None
        """Where it is traced."""
        self.is_probe = False
        """Whether no client waits for it: see `readiness`."""
        self.echoes: Sequence[str] = ()
        """The choices' prompts, when they are to come with their log probabilities."""
        self.prompt_only = False
        """No token is wanted. One is generated, as it comes with what was found out about the
        prompt, and is neither shown nor counted."""
        self._open = 0

    def add(self, choice: Choice) -> None:
        self.choices.append(choice)
        self._open += 1

    def learn(self, choice: Choice, findings: Findings) -> None:
        """Pass on what was found out about a choice's prompt."""
        if findings.embedding:
            self.sink.vector(choice.index, findings.embedding)
        elif self.echoes:
            self.sink.text(choice.index, self.echoes[choice.index], findings.logprobs)
        self.begun.set()

    def choice_finished(self, choice: Choice, reason: FinishReason) -> None:
        self.sink.finish(choice.index, reason)
        if self.trace is not None:
            self.trace.finished(choice.index, reason)
        self._open -= 1
        if self._open == 0:
            self.ended.set()
        self.begun.set()

    def fail(self, error: ApiError) -> None:
        """End the exchange; what was sent stays sent."""
        if self.error is None:
            self.error = error
        self.ended.set()
        self.begun.set()

    @property
    def outcome(self) -> str:
        """`ok`, `cancelled` (the client left), or the status that it ended with, or would have."""
        if self.error is not None:
            return str(self.error.status)
        return "ok" if self.ended.is_set() else "cancelled"

    def usage_of(self, index: int) -> Usage | None:
        """Token counts of one choice so far; None while nothing is known."""
        if index >= len(self.choices):
            return None
        session = self.choices[index].session
        prompt, generated = session.prompt_tokens, self._generated(session)
        return Usage.of(prompt, generated, session.cached_tokens) if prompt else None

    @property
    def counts(self) -> Usage:
        """Token counts, as a client is told them."""
        # Choices of one prompt share it.
        return self.usage(len({id(choice.prompt) for choice in self.choices}) or 1)

    def usage(self, prompts: int) -> Usage:
        """Token counts: each of the `prompts` once, the outputs of all choices."""
        per_prompt = max(1, len(self.choices) // prompts)
        firsts = self.choices[::per_prompt]
        return Usage.of(
            sum(choice.session.prompt_tokens for choice in firsts),
            sum(self._generated(choice.session) for choice in self.choices),
            sum(choice.session.cached_tokens for choice in firsts),
        )

    def _generated(self, session: Session) -> int:
        return 0 if self.prompt_only else len(session.delivered)
