"""What the engine's thread does between two looks into its queue: plan, compute, choose, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from actors.engines.base import EngineFailed, Finish, Info, Output, Request
from actors.engines.threaded import Started
from actors.engines.transformers.commands import (
    Cancel,
    Command,
    Compiled,
    Consumed,
    Fetched,
    Release,
    Report,
    Stepped,
    Stop,
    Submit,
)
from actors.engines.transformers.examining import examine, work_of
from actors.engines.transformers.guides import Guide, GuideFailed, Guides
from actors.engines.transformers.handoffs import Handoffs
from actors.engines.transformers.model import Loaded
from actors.engines.transformers.options import TransformersOptions
from actors.engines.transformers.pace import Pace
from actors.engines.transformers.sampler import BrokenLogits, Row, choose, logprobs_of
from actors.engines.transformers.scheduler import Limits, Piece, Plan, Scheduler
from actors.engines.transformers.sequence import Sequence, Stage
from actors.engines.transformers.stream import Stream
from actors.kv.blocks import BlockPool
from actors.kv.transfer import Exchange, TransferError
from actors.messages.cache import Load

UNREAD_STEPS = 64
"""Steps whose outputs nobody has read yet; at this many the thread waits for the reader."""


class Driver(Protocol):
    """What the loop's side reads while the thread runs."""

    inbox: SimpleQueue[Command]
    progress: int
    handoff_refusals: Mapping[str, int]
    patience_s: float
    idle: bool


class Steps:
    """The thread's state once the model is loaded."""

    def __init__(
        self,
        driver: Driver,
        options: TransformersOptions,
        loaded: Loaded,
        report: Callable[[Report], None],
    ) -> None:
        self._driver = driver
        self._report = report
        self._runner = loaded.runner
        self._memory = loaded.memory
        self._info = Info(
            kind="transformers",
            model=options.model,
            max_context_tokens=loaded.max_context_tokens,
            block_tokens=options.block_tokens,
            blocks_total=loaded.blocks,
            max_running=options.max_running,
            vocabulary=loaded.vocabulary,
            eos_token_ids=loaded.eos_token_ids,
            publishes_cache_events=options.prefix_cache,
            guided=loaded.tokenizer is not None,
            prompt_logprobs=True,
            embedding_size=loaded.hidden_size,
        )
        self._scheduler = Scheduler(
            BlockPool(loaded.blocks),
            Limits(
                options.block_tokens,
                options.max_running,
                options.max_step_tokens,
                options.prefix_cache,
            ),
        )
        try:
            exchange = Exchange(
                loaded.memory,
                loaded.geometry,
                options.transport,
                options.transfer_host,
                part=loaded.part,
                peers=loaded.team,
            )
        except OSError as error:
            raise EngineFailed(
                f"cannot listen for KV transfers on {options.transfer_host}: {error}"
            ) from error
        driver.handoff_refusals = exchange.refusals
        self._handoffs = Handoffs(exchange, self._fetch_ended, options.handoff_ttl_s)
        self._guides: Guides | None = None
        if loaded.tokenizer is not None:
            self._guides = Guides(loaded.tokenizer, loaded.vocabulary, loaded.eos_token_ids)
        self._compiling: set[Stream] = set()
        """Streams whose grammar is not ready; unknown to the scheduler as yet."""
        self._streams: dict[int, Stream] = {}
        self._examining: set[int] = set()
        """Streams about whose prompts something is still to be found out, and maybe some that have
        gone."""
        self._outputs: dict[int, Output] = {}
        self._expired: list[int] = []
        self._pace = Pace()
        self._taken = 0
        self._unread = 0
        self._stopping = False

    def serve(self) -> None:
        self._report(Started(self._info))
        try:
            idle = True
            while True:
                self._receive(wait=idle)
                if self._stopping:
                    return
                self._drop_expired()
                idle = True
                if self._unread < UNREAD_STEPS:
                    plan = self._scheduler.plan()
                    for sequence in plan.fetches:
                        self._handoffs.begin_fetch(self._streams[sequence.id])
                    if plan:
                        self._step_at_pace(plan)
                        idle = False
                self._driver.progress += 1
                self._flush()
        finally:
            self._handoffs.close()
            if self._guides is not None:
                self._guides.close()
            self._memory.close()

    def _receive(self, *, wait: bool) -> None:
        inbox = self._driver.inbox
        try:
            if wait:
                self._driver.idle = True
                command = inbox.get(timeout=self._handoffs.until_expiry())
                self._driver.idle = False
            else:
                command = inbox.get_nowait()
            while True:
                self._handle(command)
                command = inbox.get_nowait()
        except Empty:
            self._driver.idle = False

    def _handle(self, command: Command) -> None:
        match command:
            case Submit(request):
                self._submit(request)
            case Cancel(request_id):
                self._cancel(request_id)
            case Release(request_id):
                if request_id in self._handoffs:
                    self._let_go(request_id)
            case Fetched(stream, error):
                self._end_fetch(stream, error)
            case Compiled(stream, guide, error):
                self._end_compiling(stream, guide, error)
            case Consumed():
                self._unread -= 1
            case Stop():
                self._stopping = True

    def _submit(self, request: Request) -> None:
        self._taken += 1
        try:
            ticket = self._handoffs.ticket_for(request)
        except TransferError as error:
            output = self._output(request.id)
            output.finish, output.error = Finish.ERROR, str(error)
            return
        stream = Stream(request, self._info, ticket)
        self._streams[request.id] = stream
        if stream.examiner is not None:
            self._examining.add(request.id)
        grammar = request.sampling.grammar
        if grammar is None:
            self._scheduler.add(stream.sequence)
            return
        assert self._guides is not None, "see `refusal`"
        self._compiling.add(stream)
        self._guides.begin(grammar, stream.guided_tokens, partial(self._compiled, stream))

    def _compiled(self, stream: Stream, guide: Guide | None, error: str) -> None:
        """Called in the compiling thread."""
        self._driver.inbox.put(Compiled(stream, guide, error))

    def _end_compiling(self, stream: Stream, guide: Guide | None, error: str) -> None:
        if stream not in self._compiling:
            return  # cancelled meanwhile
        self._compiling.remove(stream)
        if guide is not None and not guide.over:
            stream.guide = guide
            self._scheduler.add(stream.sequence)
            return
        # An earlier attempt may have said everything, and only its last word was lost.
        output = self._output(stream.request.id)
        output.finish, output.error = (Finish.STOP, "") if guide else (Finish.ERROR, error)
        del self._streams[stream.request.id]

    def _cancel(self, request_id: int) -> None:
        if request_id in self._handoffs:
            self._let_go(request_id)
        elif request_id in self._streams:
            self._remove(self._streams.pop(request_id))
        else:
            return
        self._output(request_id).finish = Finish.CANCELLED

    def _remove(self, stream: Stream) -> None:
        if stream in self._compiling:
            self._compiling.remove(stream)
        else:
            self._scheduler.remove(stream.sequence)

    def _let_go(self, request_id: int) -> None:
        """Free a finished prefill's blocks."""
        self._handoffs.let_go(request_id)
        self._scheduler.remove(self._streams.pop(request_id).sequence)

    def _drop_expired(self) -> None:
        for request_id in self._handoffs.expired():
            self._let_go(request_id)
            self._expired.append(request_id)

    def _fetch_ended(self, stream: Stream, error: str) -> None:
        """Called in the fetching thread."""
        self._driver.inbox.put(Fetched(stream, error))

    def _end_fetch(self, stream: Stream, error: str) -> None:
        abandoned = stream.sequence.stage is Stage.ABANDONED
        self._scheduler.fetched(stream.sequence, arrived=not error)
        if abandoned:
            return
        output = self._output(stream.request.id)
        if error:
            del self._streams[stream.request.id]
            output.finish, output.error = Finish.ERROR, error
        else:
            output.fetched, output.fetched_bytes = True, stream.copied_bytes

    def _step_at_pace(self, plan: Plan) -> None:
        tokens = sum(piece.length for piece in (*plan.decodes, *plan.prompts))
        self._driver.patience_s = self._pace.patience_s(tokens)
        began_at = time.monotonic()
        self._step(plan)
        self._pace.learn(tokens, time.monotonic() - began_at)

    def _step(self, plan: Plan) -> None:
        pieces = [*plan.decodes, *plan.prompts]
        if self._examining:
            pieces = self._examine(pieces)
        if not pieces:
            return
        logits = self._runner.run([work_of(piece) for piece in pieces])
        last = [index for index, piece in enumerate(pieces) if piece.last]
        plain = [i for i in last if self._stream(pieces[i].sequence).plain]
        picked = dict(zip(plain, self._runner.most_likely(logits, plain), strict=True))
        others = [index for index in last if index not in picked]
        rows = dict(zip(others, self._runner.rows(logits, others), strict=True))
        for index, piece in enumerate(pieces):
            self._scheduler.advance(piece)
            if not piece.last:
                continue
            if index in picked:
                self._accept(piece, picked[index], None)
            else:
                self._choose(piece, rows[index])

    def _choose(self, piece: Piece, row: Row) -> None:
        """The next token of a sequence by what is asked of it."""
        stream = self._stream(piece.sequence)
        try:
            token = choose(
                row,
                stream.sampling,
                len(piece.sequence.tokens),
                history=stream.history,
                banned=stream.banned,
                allowed=None if stream.guide is None else stream.guide.allowed(),
            )
        except (BrokenLogits, GuideFailed) as error:
            self._finish(stream, Finish.ERROR, str(error))
            return
        self._accept(piece, token, row)

    def _accept(self, piece: Piece, token: int | None, row: Row | None) -> None:
        """A sequence's next token is known; None: the model computed nothing sound."""
        stream = self._stream(piece.sequence)
        output = self._output(stream.request.id)
        try:
            if token is None:
                raise BrokenLogits  # noqa: TRY301 - one way out for all
            belongs, finish = stream.accept(token)
        except (BrokenLogits, GuideFailed) as error:
            self._finish(stream, Finish.ERROR, str(error))
            return
        if belongs:
            output.tokens.append(token)
            if row is not None and stream.sampling.logprobs is not None:
                output.logprobs = [logprobs_of(row, token, stream.sampling.logprobs)]
        if finish is not None:
            self._finish(stream, finish)
        elif stream.request.phase == "prefill":
            self._hold(stream, token, piece)

    def _examine(self, pieces: list[Piece]) -> list[Piece]:
        """Compute the pieces of prompts about which something is to be found out; the others are
        returned."""
        self._examining &= self._streams.keys()
        # The last token of a prompt, left alone, looks like a sequence that decodes.
        examined = [piece for piece in pieces if piece.sequence.id in self._examining]
        for piece, rows in examine(self._runner, examined, self._streams):
            self._scheduler.advance(piece)
            stream = self._stream(piece.sequence)
            examiner = stream.examiner
            assert examiner is not None, "it was so a moment ago"
            if not np.isfinite(rows).all():
                self._finish(stream, Finish.ERROR, str(BrokenLogits()))
                continue
            examiner.add(piece.start, rows)
            if not piece.last:
                continue
            stream.end_examination()
            self._examining.discard(piece.sequence.id)
            self._output(stream.request.id).findings = examiner.findings()
            if examiner.wanted == "states":
                self._finish(stream, Finish.STOP)
            else:
                self._choose(piece, rows[-1])
        return [piece for piece in pieces if piece not in examined]

    def _hold(self, stream: Stream, first_token: int, piece: Piece) -> None:
        sequence = stream.sequence
        sequence.tokens.pop()  # the first token is the successor's to compute
        try:
            handoff = self._handoffs.keep(stream, first_token, piece.start + piece.length)
        except TransferError as error:
            self._finish(stream, Finish.ERROR, str(error))
            return
        self._scheduler.hold(sequence)
        self._output(stream.request.id).handoff = handoff

    def _finish(self, stream: Stream, finish: Finish, error: str = "") -> None:
        output = self._output(stream.request.id)
        output.finish, output.error = finish, error
        del self._streams[stream.request.id]
        self._scheduler.remove(stream.sequence)

    def _stream(self, sequence: Sequence) -> Stream:
        return self._streams[sequence.id]

    def _output(self, request_id: int) -> Output:
        """This step's output for a request; the first one ever tells what the cache gave."""
        output = self._outputs.get(request_id)
        if output is None:
            output = self._outputs[request_id] = Output(request_id, [])
            stream = self._streams.get(request_id)
            if stream is not None and not stream.cached_reported:
                stream.cached_reported = True
                output.cached_tokens = stream.sequence.cached_tokens or 0
        return output

    def _flush(self) -> None:
        outputs, self._outputs = list(self._outputs.values()), {}
        expired, self._expired = self._expired, []
        scheduler = self._scheduler
        self._unread += bool(outputs or expired)
        self._report(
            Stepped(
                outputs,
                scheduler.pool.take_changes(),
                Load(
                    running=scheduler.running,
                    waiting=scheduler.waiting + len(self._compiling),
                    waiting_tokens=scheduler.waiting_tokens,
                    blocks_used=scheduler.pool.held,
                    blocks_total=scheduler.pool.total,
                    max_running=self._info.max_running,
                ),
                self._taken,
                expired,
            )
        )
