"""The preprocessor: from text to token ids."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from actors.messages.assign import Rejected, Why
from actors.messages.cards import Fleet, WorkerCard
from actors.messages.key import count_tokens
from actors.messages.route import Route
from actors.messages.stages import PREPROCESS, stages
from actors.messages.submit import Submit
from actors.preprocessor.grammars import Grammars
from actors.preprocessor.prompts import Unacceptable, prepare, prompt_bytes
from actors.runtime.actor import Actor, Down, Joined, Returned, handler
from actors.runtime.errors import NoSuchActor
from actors.runtime.presence import EVERY_ROLE
from actors.runtime.tracing import TraceContext
from actors.text.model_files import TokenizerNotFound
from actors.text.prompt_cache import PromptCache
from actors.text.store import TokenizerStore
from actors.text.tokenizer import Tokenizer

MAX_BESIDE = 256
"""Long prompts tokenised in threads, or waiting for a tokenizer, at the same time."""
RETRY_AFTER_S = 1.0
MIN_BUDGET_S = 0.001
"""Passed on when nothing is left, as 0 would mean that there is no limit."""


class PreprocessorOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the preprocessor."""

    router: str = "router"
    """The role that places requests."""
    inline_bytes: int = 8192
    """Prompts up to this size are tokenised on the event loop (well under a millisecond), longer
    ones in a thread, and so are those with a grammar that was not seen before."""
    prompt_cache_mb: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Parts of chats and their token ids that are kept for each tokenizer, so that the next turn of
    a conversation tokenises only what is new. 0: none."""


class Preprocessor(Actor):
    """Renders chat templates, tokenises, checks limits, passes on to the router."""

    Options = PreprocessorOptions
    options: PreprocessorOptions

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._fleet = Fleet()
        self._tokenizers = TokenizerStore()
        self._caches: dict[Tokenizer, PromptCache] = {}
        self._grammars = Grammars()
        self._beside = 0
        self._handled = 0
        self._seconds = stages(self.metrics).labels(PREPROCESS)

    async def starting(self) -> None:
        self.watch(EVERY_ROLE)

    def progress(self) -> tuple[int, bool]:
        return self._handled, self._beside > 0

    def gauges(self) -> dict[str, float]:
        caches = [*self._caches.values()]
        return {
            "prompt_characters_known": float(sum(cache.hits for cache in caches)),
            "prompt_characters_tokenised": float(sum(cache.misses for cache in caches)),
            "prompt_cache_bytes": float(sum(cache.size_bytes for cache in caches)),
        }

    @handler
    def submit(self, message: Submit) -> None:
        self._handled += 1
        began_at = self.clock.precise()
        card = self._fleet.models().get(message.model)
        if card is None or card.max_context_tokens == 0:
            text = f"no worker of {message.model} is ready"
            self._reject(message, "unavailable", text, retry_after_s=RETRY_AFTER_S)
            return
        tokenizer = self._tokenizers.get(card.tokenizer)
        known = message.sampling.grammar is None or self._grammars.knows(message.sampling.grammar)
        short = known and prompt_bytes(message) <= self.options.inline_bytes
        if tokenizer is not None and short:
            self._send(message, self._prepare(message, tokenizer, card), began_at)
        elif self._beside >= MAX_BESIDE:
            text = "too many long prompts are being tokenised"
            self._reject(message, "overloaded", text, retry_after_s=RETRY_AFTER_S)
        else:
            self._beside += 1
            self.spawn(self._submit_beside(message, card, began_at), name="tokenise")

    @handler
    def joined(self, message: Joined) -> None:
        self._fleet.joined(message.entry)

    @handler
    def down(self, message: Down) -> None:
        self._fleet.down(message.address)

    @handler
    def returned(self, message: Returned) -> None:
        """The router did not take a request."""
        if isinstance(message.message, Route):
            self._reject(message.message, "lost", f"{message.target}: {message.reason}")

    async def _submit_beside(self, message: Submit, card: WorkerCard, began_at: float) -> None:
        began = self.clock.now()
        try:
            tokenizer = await self._tokenizers.load(card.tokenizer)
            route = await asyncio.to_thread(self._prepare, message, tokenizer, card)
            if isinstance(route, Route) and route.budget_s:
                left_s = max(MIN_BUDGET_S, route.budget_s - (self.clock.now() - began))
                route = msgspec.structs.replace(route, budget_s=left_s)
            self._send(message, route, began_at)
        except TokenizerNotFound as error:
            self.log.warning("tokenizer_not_loaded", model=card.model, error=str(error))
            text = f"the tokenizer of {card.model} cannot be loaded"
            self._reject(message, "internal", text)
        finally:
            self._beside -= 1

    def _send(self, message: Submit, route: Route | Unacceptable, began_at: float) -> None:
        took_s = self.clock.precise() - began_at
        self._seconds.observe(took_s)
        if self.node.verbose:
            self.log.debug(
                "prepared",
                request=message.request_id,
                epoch=message.key.epoch,
                refused=route.why if isinstance(route, Unacceptable) else "",
                took_ms=round(took_s * 1000, 2),
            )
        if message.trace is not None:
            self._trace(message, message.trace, route, took_s)
        if isinstance(route, Unacceptable):
            self._reject(message, route.why, route.text, param=route.param)
            return
        try:
            self.tell(self.options.router, route)
        except NoSuchActor:
            text = "no router is ready"
            self._reject(message, "unavailable", text, retry_after_s=RETRY_AFTER_S)

    def _trace(
        self,
        message: Submit,
        context: TraceContext,
        route: Route | Unacceptable,
        took_s: float,
    ) -> None:
        tracer = self.node.tracer
        if tracer is None:
            return
        attributes: dict[str, str | int] = {
            "understudy.actor": str(self.address),
            "understudy.request": message.request_id,
            "understudy.epoch": message.key.epoch,
            "gen_ai.request.model": message.model,
        }
        error = ""
        if isinstance(route, Unacceptable):
            # Not its text, which may quote the prompt.
            error = attributes["error.type"] = route.why
        else:
            attributes["understudy.prompt_tokens"] = count_tokens(route.prompt)
        tracer.record(PREPROCESS, context, took_s, attributes, error=error)

    def _reject(
        self,
        message: Submit | Route,
        why: Why,
        text: str,
        *,
        param: str = "",
        retry_after_s: float = 0.0,
    ) -> None:
        rejected = Rejected(message.key, why, text, param, retry_after_s)
        try:
            self.tell(message.key.ingress, rejected)
        except NoSuchActor:
            self.log.debug("ingress_gone", request=message.request_id, epoch=message.key.epoch)

    def _cache(self, tokenizer: Tokenizer) -> PromptCache:
        cache = self._caches.get(tokenizer)
        if cache is None:
            # Two threads may both make one; the first stays.
            made = PromptCache(tokenizer, self.options.prompt_cache_mb * 1_000_000)
            cache = self._caches.setdefault(tokenizer, made)
        return cache

    def _prepare(
        self, message: Submit, tokenizer: Tokenizer, card: WorkerCard
    ) -> Route | Unacceptable:
        try:
            if message.sampling.grammar is not None:
                self._grammars.check(message.sampling.grammar, card)
            return prepare(message, tokenizer, card, self._cache(tokenizer))
        except Unacceptable as error:
            return error
