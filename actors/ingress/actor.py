"""The ingress: where clients come in, and where tokens come back."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from actors.ingress import session as life
from actors.ingress.exchange import Choice, Exchange
from actors.ingress.failures import api_error
from actors.ingress.first_tokens import FirstTokens
from actors.ingress.http import HttpServer
from actors.ingress.measures import Measures, Stopwatch
from actors.ingress.openai import errors
from actors.ingress.options import IngressOptions
from actors.ingress.prompt_log import readable
from actors.ingress.readiness import Readiness
from actors.ingress.reading import Reading
from actors.ingress.server.direct import Writes
from actors.ingress.session import Session
from actors.ingress.unwanted import Unwanted
from actors.messages.assign import Assigned, Rejected
from actors.messages.cards import Fleet, IngressCard
from actors.messages.explain import Explained
from actors.messages.frame import Chunk, Frame
from actors.messages.hints import Hints
from actors.messages.key import RequestKey
from actors.messages.names import Kind, Names, WrongKind
from actors.messages.sampling import Sampling
from actors.messages.submit import Prompt, Submit
from actors.messages.work import Cancel, Resend
from actors.runtime.actor import Actor, Down, Joined, Regained, Returned, handler
from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.metrics import Metrics
from actors.runtime.presence import EVERY_ROLE
from actors.runtime.registry.base import State
from actors.text.stop_strings import StopMatcher
from actors.text.store import TokenizerStore
from actors.text.tokenizer import Tokenizer, packed

LATE_REQUEST_S = 0.2
"""How long a connection that was opened before a drain may take to send its request."""
PATHS: Mapping[Kind, str] = MappingProxyType(
    {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
)
MIN_BUDGET_S = 0.001
"""Passed on when nothing is left, as 0 would mean that there is no limit."""


class Ingress(Actor):
    """Serves the OpenAI API.

    Owns every request of its clients until the end: submits it, takes its tokens in whatever
    order and from whichever workers they come, and submits it again when one of them falls (see
    `session`). Only the death of this process itself ends a client's connection.
    """

    Options = IngressOptions
    options: IngressOptions

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fleet = Fleet()
        self._names = Names({})
        self.tokenizers = TokenizerStore()
        self._choices: dict[int, Choice] = {}
        self._exchanges: set[Exchange] = set()
        self._explaining: dict[int, asyncio.Future[Explained]] = {}
        """Of dry runs, by number; bounded by the connections that wait for them."""
        self._next_number = 0
        self._frame_at = 0.0
        """When the frame that is being handled came, on the precise clock."""
        self._finished = 0
        self._fell_at = -math.inf
        """When somebody on the way, or a worker, last fell."""
        self._news = asyncio.Event()
        """Set, and replaced, whenever somebody joins."""
        self._unwanted = Unwanted()
        self._first_tokens = FirstTokens()
        self._counted = {"replays": 0, "asked": 0, "stale": 0, "waited": 0}
        """Attempts after the first; questions to workers; chunks of older attempts; times that a
        request waited for somebody's successor."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.measures = Measures(self.metrics, lambda: len(self._exchanges))
        self._unseen = Measures(Metrics(), lambda: 0)
        """Where probes count, so that they show in nobody's latencies."""
        self.readiness = Readiness(self, self.options.ready_timeout_s)
        self.is_draining = False
        self.writes = Writes(self.options.stream_interval_s)
        """How its streams are written to."""
        self._server = HttpServer(self, self.options)

    # -- life ----------------------------------------------------------------------------------

    async def starting(self) -> None:
        self.watch(EVERY_ROLE)
        await self._server.start()

    async def draining(self) -> None:
        self.is_draining = True
        await self._server.stop_listening()
        # Who has just connected is about to send a request.
        await asyncio.sleep(LATE_REQUEST_S)
        await self._idle.wait()

    async def stopping(self) -> None:
        await self.readiness.close()
        for exchange in tuple(self._exchanges):
            exchange.fail(errors.unavailable("The server is shutting down.", 1.0))
        await self._server.stop()

    def meta(self) -> IngressCard | None:
        url = self._server.url
        return None if url is None else IngressCard(url=url)

    def progress(self) -> tuple[int, bool]:
        return self._finished, False

    def gauges(self) -> dict[str, float]:
        return {"open": len(self._exchanges), "requests": self._finished, **self._counted}

    # -- requests, called by the HTTP server ---------------------------------------------------

    @property
    def names(self) -> Names:
        """The aliases there are now."""
        records = self.node.records
        if self._names.records is not records:
            self._names = Names(records)
        return self._names

    def model_named(self, name: str, kind: Kind | None = None) -> str:
        """The model that a client's name for it stands for; `kind`: of the request, where it
        matters. Raises ApiError when the name is for requests of another kind."""
        try:
            return self.names.resolve(kind, name, self.fleet.models())
        except WrongKind as error:
            raise errors.model_of_other_kind(name, PATHS[error.kind]) from None

    async def tokenizer_of(self, model: str) -> Tokenizer:
        """The model's tokenizer. Raises ApiError when the model is unknown or not being served."""
        card = self.fleet.models().get(model)
        if card is not None and not self.fleet.can_serve(model):
            await self._await_successor(model)
        if card is not None and self.fleet.can_serve(model):
            loaded = self.tokenizers.get(card.tokenizer)
            return loaded or await self.tokenizers.load(card.tokenizer)
        if card is not None or not self.fleet.models():
            raise errors.unavailable(f"No worker of '{model}' is ready.", 1.0)
        raise errors.unknown_model(model)

    @property
    def _patient_until(self) -> float:
        """Until when a new request that nobody can take may wait for somebody's successor."""
        return self._fell_at + self.options.replay.restart_s

    async def _await_successor(self, model: str) -> None:
        """When the model's workers have just fallen, wait a moment for the next ones."""
        while not self.fleet.can_serve(model):
            left_s = self._patient_until - self.clock.now()
            if left_s <= 0:
                return
            self._counted["waited"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()

    def has_role(self, role: str) -> bool:
        """Whether an instance of the role takes messages now."""
        return bool(self.directory.ready(role))

    def check_room(self) -> None:
        """Raises ApiError when as many requests are in progress as may be."""
        if len(self._exchanges) >= self.options.max_requests:
            text = f"{self.options.max_requests} requests are in progress already."
            raise errors.unavailable(text, 1.0)

    def open(
        self,
        exchange: Exchange,
        tokenizer: Tokenizer,
        prompts: Sequence[tuple[Prompt, Sampling]],
        reading: Reading,
        *,
        replay: life.Policy | None = None,
    ) -> None:
        """Begin all choices of an exchange, one for each prompt given. `replay`: instead of what
        the options say."""
        self._exchanges.add(exchange)
        self._idle.clear()
        now = self.clock.now()
        deadline = now + min(self.options.request_timeout_s, exchange.wishes.timeout_s)
        exchange.began_at = self.clock.precise()
        counting = self._unseen if exchange.is_probe else self.measures
        measures = counting.of(exchange.model)
        for index, (prompt, sampling) in enumerate(prompts):
            self._next_number += 1
            choice = Choice(
                exchange,
                index,
                self._next_number,
                Session(replay or self.options.replay, sampling.max_tokens, deadline),
                prompt,
                sampling,
                tokenizer.detokenizer(
                    skip_special_tokens=reading.skip_special_tokens, shown=reading.shown
                ),
                None if reading.stops is None else StopMatcher(reading.stops),
                Stopwatch(measures, exchange.began_at),
                reading.parser(),
            )
            exchange.add(choice)
            self._choices[choice.number] = choice
        if exchange.trace is not None:
            exchange.trace.begun(exchange, prompts)
        if self.options.log_prompts and not exchange.is_probe:
            for prompt, _ in prompts:
                text = readable(prompt, tokenizer)
                self.log.info("prompt", request=exchange.request_id, prompt=text)
        for choice in exchange.choices:
            self._apply(choice, choice.session.begin(now), now)

    def close(self, exchange: Exchange) -> None:
        """The exchange is over, or its client has gone: nothing of it remains."""
        now = self.clock.now()
        for choice in exchange.choices:
            self._apply(choice, choice.session.step(life.Abandon(), now), now)
            self._forget(choice)
        if exchange in self._exchanges:
            if not exchange.is_probe:
                self.measures.count(exchange, self.clock.precise())
            if exchange.trace is not None:
                exchange.trace.closed(self.clock.precise())
            if self.node.verbose:
                self._say_over(exchange)
            self._exchanges.remove(exchange)
            for choice in exchange.choices:
                choice.leave()
        self._finished += 1
        if not self._exchanges:
            self._idle.set()

    def _say_over(self, exchange: Exchange) -> None:
        sessions = [choice.session for choice in exchange.choices]
        took_s = self.clock.precise() - exchange.began_at
        self.log.debug(
            "request_over",
            request=exchange.request_id,
            epoch=max(session.epoch for session in sessions),
            model=exchange.model,
            outcome=exchange.outcome,
            prompt_tokens=sum(session.prompt_tokens for session in sessions),
            tokens=sum(len(session.delivered) for session in sessions),
            took_ms=round(took_s * 1000, 1),
        )

    async def explain(
        self, request_id: str, model: str, work: tuple[Prompt, Sampling], hints: Hints
    ) -> Explained:
        """What the router would do with a request. Raises ApiError."""
        self._next_number += 1
        key = RequestKey(self.address, self._next_number, 0)
        hints = msgspec.structs.replace(hints, explain=True)
        answered: asyncio.Future[Explained] = asyncio.get_running_loop().create_future()
        self._explaining[key.number] = answered
        submit = Submit(key, request_id, model, *work, b"", hints)
        timeout_s = self.options.replay.assign_timeout_s
        try:
            self.tell(self.options.preprocessor, submit)
            async with asyncio.timeout(timeout_s):
                return await answered
        except NoSuchActor:
            raise errors.unavailable("no preprocessor is ready", 1.0) from None
        except TimeoutError:
            raise errors.unavailable(f"no router answered within {timeout_s:g} s", 1.0) from None
        finally:
            del self._explaining[key.number]

    # -- messages ------------------------------------------------------------------------------

    @handler
    def frame(self, message: Frame) -> None:
        now = self.clock.now()
        self._frame_at = self.clock.precise()
        self.writes.behind = self.waiting > 0 or message.repeats
        for chunk in message.chunks:
            self._take(message.worker, chunk, now)
        if message.plain:
            self._take_plain(message.worker, message.plain, now)
        self.writes.behind = False

    def _take(self, worker: Address, chunk: Chunk, now: float) -> None:
        choice = self._choices.get(chunk.number)
        if choice is None:
            self._refuse(worker, chunk, now)
            return
        if chunk.epoch < choice.session.epoch:
            self._counted["stale"] += 1
            self._refuse(worker, chunk, now)
        self._apply(choice, choice.session.step(life.Arrived(chunk), now), now)

    def _take_plain(self, worker: Address, plain: list[int], now: float) -> None:
        """`_take` for many tokens, most of which are the next of their sequence. This is where the
        time of a streamed token goes: a turn of this loop makes nothing but the bytes to send."""
        find, at = self._choices.get, self._frame_at
        fields = iter(plain)
        # Sequences that moved together last time, nearly all, are counted together.
        measures, since, together = None, 0.0, 0
        for number, epoch, offset, token in zip(fields, fields, fields, fields, strict=True):
            choice = find(number)
            if choice is None or not choice.session.take_next(epoch, offset, token, now):
                self._take(worker, Chunk(number, epoch, offset, [token]), now)
                continue
            watch = choice.watch
            if watch.last_at != since or watch.measures is not measures:
                if measures is not None:
                    measures.moved(at - since, together)
                measures, since, together = watch.measures, watch.last_at, 0
            together += 1
            watch.last_at = at
            if choice.deliver_one(token):
                self._stop(choice, now)
        if measures is not None:
            measures.moved(at - since, together)

    @handler
    def explained(self, message: Explained) -> None:
        answered = self._explaining.get(message.key.number)
        if answered is not None and not answered.done():
            answered.set_result(message)

    @handler
    def assigned(self, message: Assigned) -> None:
        choice = self._choices.get(message.key.number)
        if choice is None:
            # Its client left while it waited to be placed; the workers need not find out.
            for worker in {message.context or message.generation, message.generation}:
                self._tell_cancel(message.key.number, worker, message.key.epoch)
            return
        if self._is_vain(choice, message):
            return
        if choice.index == 0:
            choice.exchange.assigned = message
        if choice.exchange.trace is not None and message.key.epoch == choice.session.epoch:
            choice.exchange.trace.assigned(choice.index, message)
        event = life.Assigned(
            message.key.epoch,
            message.context,
            message.generation,
            message.prompt_tokens,
            self._first_tokens.usual_s(message.context or message.generation),
        )
        self._step(message.key.number, event)
        choice = self._choices.get(message.key.number)
        if choice is not None:
            choice.watch.assigned(self.clock.precise())

    def _is_vain(self, choice: Choice, message: Assigned) -> bool:
        """Whether a router has chosen a worker of which it has not heard yet that it is away: then
        nobody tells the session later. The request is put forward again."""
        workers = [one for one in (message.context, message.generation) if one is not None]
        away = [one.name for one in workers if self.directory.is_away(one)]
        session = choice.session
        if not away or session.phase is not life.Phase.SUBMITTED:
            return False
        if message.key.epoch != session.epoch:
            return False
        for worker in workers:
            self._tell_cancel(message.key.number, worker, message.key.epoch)
        text = f"{away[0]} is away"
        self._step(choice.number, life.Rejected(message.key.epoch, "lost", text))
        return True

    @handler
    def rejected(self, message: Rejected) -> None:
        answered = self._explaining.get(message.key.number)
        if answered is not None and not answered.done():
            failure = life.Fail(message.why, message.text, message.param, message.retry_after_s)
            answered.set_exception(api_error(failure, 0.0, begun=False))
        self._step(
            message.key.number,
            life.Rejected(
                message.key.epoch,
                message.why,
                message.text,
                message.param,
                message.retry_after_s,
                recovering=self.clock.now() < self._patient_until,
            ),
        )

    @handler
    def joined(self, message: Joined) -> None:
        self.fleet.joined(message.entry)
        self.readiness.forget()
        if message.entry.state is State.DRAINING and message.entry.role != self.role:
            # It is being restarted, as likely as not: worth waiting for like one that fell.
            self._fell_at = self.clock.now()
        if message.entry.state is State.READY and message.entry.role != self.role:
            self._news.set()
            self._news = asyncio.Event()
            for number in tuple(self._choices):
                self._step(number, life.Opening())

    @handler
    def regained(self, message: Regained) -> None:
        del message
        for number in tuple(self._choices):
            self._step(number, life.Regained())

    @handler
    def down(self, message: Down) -> None:
        is_worker = self.fleet.knows(message.address)
        on_the_way = not is_worker and message.address.role != self.role
        self.fleet.down(message.address)
        self._first_tokens.forget(message.address)
        self.readiness.forget()
        if message.address.role != self.role:
            self._fell_at = self.clock.now()
        event = life.Fell(message.address, message.reason, on_the_way)
        for number in tuple(self._choices):
            self._step(number, event)

    @handler
    def returned(self, message: Returned) -> None:
        """A preprocessor did not take a request, or a worker a question."""
        match message.message:
            case Submit(key=key):
                text = f"{message.target}: {message.reason}"
                self._step(key.number, life.Rejected(key.epoch, "lost", text))
            case Resend(key=key):
                self._step(key.number, life.Unheard(message.target, key.epoch))
            case _:
                pass

    # -- sessions ------------------------------------------------------------------------------

    def _step(self, number: int, event: life.Event) -> None:
        choice = self._choices.get(number)
        if choice is not None:
            now = self.clock.now()
            self._apply(choice, choice.session.step(event, now), now)

    def _apply(self, choice: Choice, actions: list[life.Action], now: float) -> None:
        for action in actions:
            match action:
                case life.Learn(findings):
                    choice.exchange.learn(choice, findings)
                case life.Deliver(tokens, logprobs):
                    self._note_delivered(choice, len(tokens))
                    if choice.deliver(tokens, logprobs):
                        self._stop(choice, now)
                        return
                case life.Submit():
                    self._submit(choice, action)
                case life.Forget(worker, epoch):
                    self._tell_cancel(choice.number, worker, epoch)
                case life.Ask():
                    self._ask(choice, action)
                case life.Finish(reason):
                    choice.finish(reason)
                    self._forget(choice)
                    return
                case life.Fail():
                    self._fail(choice, action)
                    return
        self._arm(choice)

    def _note_delivered(self, choice: Choice, count: int) -> None:
        session, watch, now = choice.session, choice.watch, self._frame_at
        worker = session.context or session.generation
        # Of a later attempt it is not known when that one was assigned.
        if not watch.first_at and watch.assigned_at and worker is not None and not session.epoch:
            self._first_tokens.took(worker, now - watch.assigned_at)
        watch.delivered(now, count)

    def _stop(self, choice: Choice, now: float) -> None:
        """A stop string was met: the rest is not wanted."""
        for action in choice.session.step(life.Abandon(), now):
            if isinstance(action, life.Forget):
                self._tell_cancel(choice.number, action.worker, action.epoch)
        choice.end("stop")
        self._forget(choice)

    def _fail(self, choice: Choice, failure: life.Fail) -> None:
        session = choice.session
        timeout_s = min(self.options.request_timeout_s, choice.exchange.wishes.timeout_s)
        error = api_error(failure, timeout_s, begun=bool(session.delivered))
        if choice.exchange.error is None:  # of a thousand texts one line, too
            self.log.info(
                "request_failed",
                request=choice.exchange.request_id,
                why=failure.why,
                # What is wrong with a prompt may quote it; its client has been told.
                text="" if failure.why in {"invalid", "too_long"} else failure.text,
                epoch=session.epoch,
            )
        choice.exchange.fail(error)
        self._forget(choice)

    def _submit(self, choice: Choice, action: life.Submit) -> None:
        key = RequestKey(self.address, choice.number, action.epoch)
        left = choice.sampling.max_tokens - len(action.delivered)
        sampling = msgspec.structs.replace(choice.sampling, max_tokens=left)
        if action.delivered:
            # Whatever was to be found out about the prompt came before them.
            sampling = msgspec.structs.replace(sampling, prompt="none")
        delivered = packed(action.delivered)
        exchange = choice.exchange
        if action.epoch > 0:
            self.measures.of(exchange.model).replays.add()
            self._counted["replays"] += 1
            self.log.info(
                "replay",
                request=exchange.request_id,
                epoch=action.epoch,
                tokens=len(delivered) // 4,
                why=choice.session.setback,
            )
        trace = exchange.trace
        left_s = max(MIN_BUDGET_S, choice.session.deadline - self.clock.now())
        submit = Submit(
            key,
            exchange.request_id,
            exchange.model,
            choice.prompt,
            sampling,
            delivered,
            msgspec.structs.replace(
                exchange.wishes.hints, wait_s=min(left_s, self.options.replay.assign_timeout_s)
            ),
            left_s,
            None if trace is None else trace.attempt(choice, action.epoch, len(action.delivered)),
        )
        try:
            self.tell(self.options.preprocessor, submit)
        except NoSuchActor:
            text = "no preprocessor is ready"
            recovering = self.clock.now() < self._patient_until
            event = life.Rejected(
                action.epoch, "unavailable", text, retry_after_s=1.0, recovering=recovering
            )
            # Not within the step that asked for this: a session's steps do not nest.
            asyncio.get_running_loop().call_soon(self._step, choice.number, event)

    def _ask(self, choice: Choice, action: life.Ask) -> None:
        key = RequestKey(self.address, choice.number, action.epoch)
        self._counted["asked"] += 1
        try:
            self.tell(action.worker, Resend(key, action.offset))
        except NoSuchActor as error:
            fell = life.Fell(action.worker, error.why)
            asyncio.get_running_loop().call_soon(self._step, choice.number, fell)

    def _refuse(self, worker: Address, chunk: Chunk, now: float) -> None:
        """Tokens that nobody wants: the message that said so was lost, or is on its way."""
        if not chunk.finish and self._unwanted.is_news(worker, chunk, now):
            self._tell_cancel(chunk.number, worker, chunk.epoch)

    def _tell_cancel(self, number: int, worker: Address, epoch: int) -> None:
        with contextlib.suppress(NoSuchActor):  # what is gone need not be told
            self.tell(worker, Cancel(RequestKey(self.address, number, epoch)))

    def _arm(self, choice: Choice) -> None:
        """Have a `Tick` come when the session next needs one."""
        due = choice.session.wake_at
        if choice.timer is not None:
            if choice.timer_at <= due:
                return  # it fires early enough, and then sets itself again
            choice.timer.cancel()
        # Asked of the handle, uvloop has no time for one that is due already.
        choice.timer_at = due
        loop = asyncio.get_running_loop()
        choice.timer = loop.call_at(due, partial(self._tick, choice.number))

    def _tick(self, number: int) -> None:
        choice = self._choices.get(number)
        if choice is not None:
            choice.timer = None
            self._step(number, life.Tick(away=self.node.transport.health == "lost"))

    def _forget(self, choice: Choice) -> None:
        self._choices.pop(choice.number, None)
        if choice.timer is not None:
            choice.timer.cancel()
            choice.timer = None
