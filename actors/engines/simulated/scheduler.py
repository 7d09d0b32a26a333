"""Continuous batching without a model: which sequences take part in a step, and what they say.

Pure: no clock, no event loop. A step is `plan` (admit, place, grow) and, after the time the plan
takes, `complete` (every decoding sequence says one token; a prompt that is done says its first).
Requests may come and go in between. When the pool runs out under growing sequences, the one
admitted last gives its blocks back and is computed again later, in front of all who wait; its
client sees a pause.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from actors.engines.base import Finish, Handoff, Output, Outputs, Request, RequestRefused
from actors.engines.journal import CacheJournal
from actors.engines.simulated.options import SimulatedOptions
from actors.engines.simulated.sequence import TICKET_VERSION, Sequence, Ticket
from actors.engines.simulated.tokens import TOKEN_BYTES, embedding_of
from actors.kv.blocks import BlockPool
from actors.kv.hashing import block_hash, chain
from actors.messages.cache import CacheEvent, Load
from actors.messages.sampling import Findings, Logprobs, TokenLogprob

USED_TICKETS_LIMIT = 65_536
"""Nonces remembered to refuse a second fetch; older ones are forgotten first."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """What one step does, as far as its duration depends on it."""

    prefill_tokens: int
    decoding: int
    utilisation: float
    """KV blocks held, 0 to 1."""
    fetches: tuple[tuple[int, int], ...]
    """Fetches that begin now: request, blocks that are not in the cache already."""

    @property
    def computes(self) -> bool:
        """Whether there is anything to do but to wait for fetches."""
        return self.prefill_tokens > 0 or self.decoding > 0


class Scheduler:
    """The engine's state. Every method returns at once."""

    def __init__(self, options: SimulatedOptions, engine_id: str) -> None:
        self._options = options
        self._engine_id = engine_id
        self._words = options.words
        self._pool = BlockPool(options.blocks)
        self._journal = CacheJournal()
        self._headroom = options.blocks // 100  # kept free at admission, for others to grow into
        self._nonces = 0
        self._used_tickets: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._live: dict[int, Sequence] = {}
        # Each live sequence is in exactly one of these six.
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()
        self._prefilling: dict[int, Sequence] = {}
        self._fetching: dict[int, Sequence] = {}
        self._joining: dict[int, Sequence] = {}  # fetched while a step was under way
        self._decoding: dict[int, Sequence] = {}
        self._kept: dict[int, Sequence] = {}
        self._growing: list[Sequence] = []  # need one more block before their next step

    # --- requests come and go ---

    def submit(self, request: Request) -> None:
        """Put a request in the queue. Raises RequestRefused, and then nothing has changed."""
        options = self._options
        if request.id in self._live:
            raise RequestRefused(f"request {request.id} is live already")
        if not request.prompt or len(request.prompt) % TOKEN_BYTES:
            raise RequestRefused("the prompt is not one or more packed 32-bit token ids")
        if (request.phase == "decode") != (request.handoff is not None):
            raise RequestRefused("a handoff goes with the phase decode, and with no other")
        if request.handoff is not None and not 0 <= request.handoff.first_token < 1 << 32:
            raise RequestRefused("the handoff's first token is not a token id")
        if not 0 <= request.resumed < len(request.prompt) // TOKEN_BYTES:
            raise RequestRefused("the prompt holds no token besides the resumed ones")
        if len(self._waiting) >= options.max_waiting:
            raise RequestRefused(f"{options.max_waiting} requests are waiting already")
        sequence = Sequence(
            request,
            context_tokens=options.context_tokens,
            ending=options.eos_every > 0 and not request.sampling.ignore_eos,
        )
        if sequence.left < 1:
            raise RequestRefused(
                f"no token can follow {len(sequence.tokens)} with max_tokens "
                f"{request.sampling.max_tokens} and a context of {options.context_tokens}"
            )
        if options.prefix_cache:
            sequence.hash_prompt(options.block_tokens)
        self._live[request.id] = self._waiting[request.id] = sequence

    def cancel(self, request_id: int) -> Output | None:
        """Free whatever the request holds. None when it is not live."""
        if not self._remove(request_id):
            return None
        return Output(request_id, [], finish=Finish.CANCELLED)

    def release(self, request_id: int) -> None:
        """Free blocks kept after a prefill; nothing happens to requests in another state."""
        if request_id in self._kept:
            self._remove(request_id)

    def fetched(self, request_id: int, *, failed: bool = False) -> Output:
        """The blocks of a request in `Step.fetches` have come, or `failed` to. It decodes from
        the next step on, unless its ticket is bad."""
        sequence = self._fetching[request_id]
        error = "the KV blocks could not be fetched" if failed else self._redeem(sequence)
        if error:
            self._remove(request_id)
            return Output(request_id, [], finish=Finish.ERROR, error=error)
        del self._fetching[request_id]
        self._joining[request_id] = sequence
        sequence.fetches = False
        sequence.computed = len(sequence.tokens) - 1
        self._publish(sequence, sequence.computed)
        self._begin_decoding(sequence)
        return self._first(sequence, Output(request_id, [], fetched=True))

    # --- one step ---

    def plan(self) -> Step:
        """Choose what the next step does. `complete` must follow when it computes anything."""
        self._decoding.update(self._joining)
        self._joining.clear()
        self._grow()
        fetches, prefill_tokens = self._admit()
        return Step(
            prefill_tokens=prefill_tokens,
            decoding=len(self._decoding),
            utilisation=self._pool.held / self._pool.total,
            fetches=tuple(fetches),
        )

    def complete(self) -> Outputs:
        """The step is over: what each sequence that is still here says. May be none."""
        full: list[Output] = []
        plain: list[int] = []
        ended: list[int] = []
        draw = self._words.draw
        for sequence in self._decoding.values():
            position = len(sequence.tokens)
            if sequence.plain and sequence.left > 1:
                # Where the time of a simulated token goes.
                token = draw(sequence.key, position)
                sequence.tokens.append(token)
                sequence.left -= 1
                plain += (sequence.id, token)
            else:
                output = self._say(sequence)
                full.append(output)
                if output.finish is not None:
                    ended.append(sequence.id)
            sequence.until_full -= 1
            if not sequence.until_full:
                self._publish(sequence, position)
                self._begin_block(sequence)
        for request_id in ended:
            self._remove(request_id)
        for sequence in list(self._prefilling.values()):
            self._advance_prompt(sequence, full)
        self._journal.apply(self._pool.take_changes())
        return Outputs(full, plain)

    @property
    def idle(self) -> bool:
        """Whether no request is live but those that only keep blocks."""
        return len(self._live) == len(self._kept)

    def load(self) -> Load:
        """How busy it is, between two steps or within one."""
        prefilling, waiting = self._prefilling.values(), self._waiting.values()
        return Load(
            running=self._running,
            waiting=len(self._waiting),
            waiting_tokens=sum(len(s.tokens) - s.computed for s in prefilling)
            + sum(len(s.tokens) for s in waiting if not s.fetches),
            blocks_used=self._pool.held,
            blocks_total=self._pool.total,
            max_running=self._options.max_running,
        )

    def take_cache_events(self) -> list[CacheEvent]:
        """What became reusable or was evicted since the last call, net."""
        self._journal.apply(self._pool.take_changes())
        return self._journal.take()

    def cache_snapshot(self) -> list[CacheEvent]:
        """All that is reusable; untaken events are dropped."""
        self._journal.apply(self._pool.take_changes())
        return self._journal.snapshot()

    # --- admission and blocks ---

    @property
    def _running(self) -> int:
        return (
            len(self._decoding) + len(self._prefilling) + len(self._fetching) + len(self._joining)
        )

    def _grow(self) -> None:
        growing, self._growing = self._growing, []
        for sequence in growing:
            while self._decoding.get(sequence.id) is sequence:
                if self._pool.available:
                    sequence.blocks += self._pool.allocate(1)
                    break
                self._preempt(next(reversed(self._decoding.values())))

    def _preempt(self, sequence: Sequence) -> None:
        del self._decoding[sequence.id]
        self._pool.release(sequence.blocks)
        sequence.restart()
        self._waiting[sequence.id] = sequence
        self._waiting.move_to_end(sequence.id, last=False)

    def _admit(self) -> tuple[list[tuple[int, int]], int]:
        budget = self._options.max_step_tokens
        for sequence in self._prefilling.values():
            budget -= self._take_chunk(sequence, budget)
        fetches: list[tuple[int, int]] = []
        while budget and self._waiting and self._running < self._options.max_running:
            sequence = next(iter(self._waiting.values()))
            if not self._place(sequence):
                break
            del self._waiting[sequence.id]
            if sequence.fetches:
                self._fetching[sequence.id] = sequence
                fetches.append((sequence.id, len(sequence.blocks) - sequence.published))
            else:
                self._prefilling[sequence.id] = sequence
                budget -= self._take_chunk(sequence, budget)
        return fetches, self._options.max_step_tokens - budget

    @staticmethod
    def _take_chunk(sequence: Sequence, budget: int) -> int:
        sequence.chunk = min(budget, len(sequence.tokens) - sequence.computed)
        return sequence.chunk

    def _place(self, sequence: Sequence) -> bool:
        """Hold blocks for every token whose KV is needed before it decodes, cached ones first."""
        block_tokens = self._options.block_tokens
        # The last prompt token is computed even when cached: its logits choose the first token.
        size = len(sequence.tokens) - 1
        reused = self._pool.match(sequence.hashes[: size // block_tokens])
        missing = -(-(size + (not sequence.fetches)) // block_tokens) - len(reused)
        headroom = self._headroom if self._running else 0
        if missing + headroom > self._pool.available:
            self._pool.release(reused)
            return False
        sequence.blocks = reused + self._pool.allocate(missing)
        sequence.published = len(reused)
        sequence.computed = len(reused) * block_tokens
        if sequence.cached_tokens < 0:
            sequence.cached_tokens = sequence.computed
        return True

    def _publish(self, sequence: Sequence, computed: int) -> None:
        """Let others reuse every full block within the first `computed` tokens."""
        if not self._options.prefix_cache:
            return
        size = self._options.block_tokens
        first, after = sequence.published, computed // size
        if first >= after:
            return
        hashes = sequence.hashes
        while len(hashes) < after:
            index = len(hashes)
            tokens = sequence.tokens[index * size : (index + 1) * size].tobytes()
            hashes.append(chain(hashes[-1] if hashes else None, block_hash(tokens)))
        sequence.blocks[first:after] = self._pool.publish(
            sequence.blocks[first:after],
            hashes[first:after],
            hashes[first - 1] if first else None,
        )
        sequence.published = after

    def _begin_decoding(self, sequence: Sequence) -> None:
        partial = sequence.computed % self._options.block_tokens
        if partial:
            sequence.until_full = self._options.block_tokens - partial
        else:
            self._begin_block(sequence)

    def _begin_block(self, sequence: Sequence) -> None:
        sequence.until_full = self._options.block_tokens
        self._growing.append(sequence)

    def _remove(self, request_id: int) -> bool:
        sequence = self._live.pop(request_id, None)
        if sequence is None:
            return False
        for room in (self._decoding, self._kept, self._waiting, self._prefilling):
            room.pop(request_id, None)
        self._fetching.pop(request_id, None)
        self._joining.pop(request_id, None)
        self._pool.release(sequence.blocks)
        return True

    # --- tokens ---

    def _advance_prompt(self, sequence: Sequence, outputs: list[Output]) -> None:
        sequence.computed += sequence.chunk
        sequence.chunk = 0
        self._publish(sequence, sequence.computed)
        if sequence.computed < len(sequence.tokens):
            return
        output = self._first(sequence, self._answer_to(sequence))
        outputs.append(output)
        if output.finish is not None:
            self._remove(sequence.id)
            return
        del self._prefilling[sequence.id]
        if sequence.request.phase == "prefill":
            self._kept[sequence.id] = sequence
            output.handoff = Handoff(output.tokens[0], self._ticket(sequence))
        else:
            self._decoding[sequence.id] = sequence
            self._begin_decoding(sequence)

    def _answer_to(self, sequence: Sequence) -> Output:
        """What the end of a prompt brings: a token, and whatever is wanted of the prompt."""
        sampling = sequence.request.sampling
        if sampling.prompt == "embedding":
            findings = Findings(embedding=embedding_of(sequence.request.prompt))
            return Output(sequence.id, [], finish=Finish.STOP, findings=findings)
        answered = len(sequence.tokens) * TOKEN_BYTES > len(sequence.request.prompt)
        if sampling.prompt == "none" or answered:
            return self._say(sequence)
        entries = [certain(token, sampling.logprobs or 0) for token in sequence.tokens]
        entries[0] = Logprobs(TokenLogprob(sequence.tokens[0], math.nan))
        output = self._say(sequence)
        output.findings = Findings(entries)
        return output

    @staticmethod
    def _first(sequence: Sequence, output: Output) -> Output:
        """Add what only a sequence's first output says; later ones of it are unchanged."""
        output.cached_tokens, sequence.cached_tokens = sequence.cached_tokens, 0
        return output

    def _say(self, sequence: Sequence) -> Output:
        """The next token, with everything the request's sampling asks for."""
        sampling = sequence.request.sampling
        position = len(sequence.tokens)
        token = self._words.draw(sequence.key, position)
        if position - sequence.origin >= sampling.min_tokens and (
            token in sampling.stop_token_ids
            or (not sampling.ignore_eos and self._words.ends(sequence.key, position))
        ):
            return Output(sequence.id, [], finish=Finish.STOP)
        sequence.tokens.append(token)
        sequence.left -= 1
        output = Output(sequence.id, [token])
        if sampling.logprobs is not None:
            output.logprobs = [certain(token, sampling.logprobs)]
        if sequence.left == 0:
            output.finish = Finish.LENGTH
        return output

    # --- tickets ---

    def _ticket(self, sequence: Sequence) -> bytes:
        self._nonces += 1
        ticket = Ticket(
            version=TICKET_VERSION,
            exporter=self._engine_id,
            nonce=self._nonces,
            block_tokens=self._options.block_tokens,
            tokens=len(sequence.tokens) - 1,
        )
        return msgspec.msgpack.encode(ticket)

    def _redeem(self, sequence: Sequence) -> str:
        """Use the sequence's ticket up; an empty string, or one sentence on what is wrong."""
        handoff = sequence.request.handoff
        assert handoff is not None, "only a request with a handoff fetches"
        try:
            ticket = msgspec.msgpack.decode(handoff.ticket, type=Ticket)
        except msgspec.MsgspecError:
            return "the handoff is not a simulated engine's"
        if ticket.version != TICKET_VERSION or ticket.block_tokens != self._options.block_tokens:
            return "the handoff is of an engine with another block size or ticket version"
        prompt_tokens = len(sequence.tokens) - 1
        if ticket.tokens != prompt_tokens:
            return f"the handoff holds {ticket.tokens} tokens, the prompt has {prompt_tokens}"
        if handoff.first_token != self._words.draw(sequence.key, prompt_tokens):
            return "the handoff's first token does not follow from this prompt and seed"
        name = (ticket.exporter, ticket.nonce)
        if name in self._used_tickets:
            return "the handoff was used before"
        self._used_tickets[name] = None
        if len(self._used_tickets) > USED_TICKETS_LIMIT:
            self._used_tickets.popitem(last=False)
        return ""


def certain(token: int, top: int) -> Logprobs:
    """A token's log probability: this model has no doubts."""
    one = TokenLogprob(token, 0.0)
    return Logprobs(one, (one,) if top else ())
