"""A worker's requests, from what arrives to what is sent. Pure.

The table joins two namings: messages speak of a `RequestKey`, the engine of a small number. It
turns the outputs of engine steps into frames for each ingress, and knows what has to be told to the
other worker of a pair.
"""

from __future__ import annotations

import msgspec

from actors.engines.base import Finish, Handoff, Output, Outputs, Phase, Request
from actors.messages.frame import Chunk, Frame
from actors.messages.key import RequestKey, count_tokens
from actors.messages.work import Decode, Fetched, Generate, Prefill
from actors.runtime.address import Address
from actors.worker.history import TOKENS_KEPT, Ended, Sent
from actors.worker.job import Job, Parcel, Work

MIN_BUDGET_S = 0.001
"""Passed on when nothing is left, as 0 would mean that there is no limit."""


class Step(msgspec.Struct):
    """What one engine step means to others, besides the tokens for each ingress."""

    decodes: list[tuple[Address, Decode]] = []
    """For generation workers: go on from here."""
    fetched: list[tuple[Address, Fetched]] = []
    """For context workers: the blocks are here."""
    began: list[tuple[Job, int]] = []
    """Those whose first tokens from here these were, with the prompt tokens found in the cache."""
    arrived: list[tuple[Job, int]] = []
    """Those whose blocks have come, with the bytes that were copied."""
    large: list[tuple[Address, Chunk]] = []
    """Chunks that go in a frame of their own, for what was found out about their prompts."""
    over: list[tuple[Job, str]] = []
    """Those that need nothing more computed here: how they ended, or `handed_off`."""


MAX_UNNEEDED = 4096
"""Kept for the next report; of more, the newest. A router's estimate runs out anyway."""


class Jobs:
    """The requests at this worker."""

    def __init__(self) -> None:
        self._next = 0
        self._by_id: dict[int, Job] = {}
        self._by_key: dict[tuple[Address, int], Job] = {}
        self._parcels: dict[Address, Parcel] = {}
        self._open: list[Parcel] = []
        """Those that hold something."""
        self._ended = Ended()
        self._unneeded: list[tuple[RequestKey, Address]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def add(
        self, work: Work, now: float = 0.0, taken_at: float = 0.0
    ) -> tuple[Request | None, list[int]]:
        """Take work on: the engine's request, and the engine requests it supersedes.

        The request is None for work that is a repeat, or older than what is here already.
        """
        sequence = (work.key.ingress, work.key.number)
        known = self._by_key.get(sequence)
        if known is not None and known.key.epoch >= work.key.epoch:
            return None, []
        superseded = [] if known is None else [self.drop(known).id]
        self._next += 1
        sent = 1 if isinstance(work, Decode) else 0
        parcel = self._parcel_for(work.key.ingress)
        parcel.jobs += 1
        job = Job(self._next, work, sent, Sent(work.key, sent), parcel, taken_at=taken_at)
        if work.budget_s:
            job.until = now + work.budget_s
        self._by_id[job.id] = self._by_key[sequence] = job
        return _request(job), superseded

    def find(self, key: RequestKey) -> Job | None:
        """The job of exactly this attempt."""
        job = self._by_key.get((key.ingress, key.number))
        return job if job is not None and job.key == key else None

    def of_ingress(self, address: Address) -> list[Job]:
        """Everything that runs for one life of an ingress."""
        return [job for job in self._by_id.values() if job.key.ingress == address]

    def overdue(self, now: float) -> list[Job]:
        """Jobs whose request has no time left."""
        return [job for job in self._by_id.values() if job.until <= now]

    def again(self, key: RequestKey, offset: int) -> Chunk:
        """What was sent of an attempt from this offset on; an error when it is not known."""
        job = self.find(key)
        sent = self._ended.find(key) if job is None else job.history
        chunk = None if sent is None else sent.from_(offset)
        return chunk or failure(key, offset, "the worker does not know the request")

    def drop(self, job: Job, *, remember: bool = False) -> Job:
        """Forget a job; outputs that still come for it are passed over. `remember` what was sent
        when the ingress may still ask for it."""
        if remember:
            self._ended.add(job.history)
        del self._by_id[job.id]
        del self._by_key[job.key.ingress, job.key.number]
        job.parcel.jobs -= 1
        if not job.parcel.jobs:
            del self._parcels[job.parcel.ingress]
        if isinstance(job.work, Prefill) and not job.handed_off:
            self._unneeded.append((job.key, job.work.generation))
            del self._unneeded[:-MAX_UNNEEDED]
        return job

    def take_unneeded(self) -> list[tuple[RequestKey, Address]]:
        """Prompts that ended without a handoff since the last call, and who waits for one."""
        unneeded, self._unneeded = self._unneeded, []
        return unneeded

    def step(self, outputs: Outputs, me: Address, now: float = 0.0) -> Step:
        """Take in the outputs of one engine step. The tokens wait for `take_frames`."""
        step = Step([], [], [], [], [], [])
        find, opened = self._by_id.get, self._open
        plain = outputs.plain
        for output in outputs.full:
            job = find(output.id)
            if job is not None and job.flows and _is_plain(output):
                plain += (output.id, output.tokens[0])
            elif job is not None:
                self._take(job, output, me, step, now)
        pairs = iter(plain)
        # Nearly all that engines say goes this way: nothing is made for it.
        for number, token in zip(pairs, pairs, strict=True):
            job = find(number)
            if job is None:
                continue
            if not job.flows:
                self._take(job, Output(number, [token]), me, step, now)
                continue
            parcel = job.parcel
            if not parcel.is_open:
                parcel.is_open = True
                opened.append(parcel)
            sent = job.sent
            parcel.plain += (job.number, job.epoch, sent, token)
            job.sent = sent + 1
            job.tokens.append(token)
            if not sent % TOKENS_KEPT:
                job.history.trim()
        return step

    @property
    def has_tokens(self) -> bool:
        """Whether any wait to be sent."""
        return bool(self._open)

    def take_frames(self, me: Address) -> list[tuple[Address, Frame]]:
        """All tokens that wait to be sent, by ingress. Those of one sequence stay in order when
        the frames of its ingress do."""
        opened, self._open = self._open, []
        return [(parcel.ingress, frame) for parcel in opened for frame in parcel.take(me)]

    def _put(self, job: Job, chunk: Chunk) -> None:
        parcel = job.parcel
        if not parcel.is_open:
            parcel.is_open = True
            self._open.append(parcel)
        parcel.add(job, chunk)

    def _parcel_for(self, ingress: Address) -> Parcel:
        found = self._parcels.get(ingress)
        if found is None:
            found = self._parcels[ingress] = Parcel(ingress)
        return found

    def _take(self, job: Job, output: Output, me: Address, step: Step, now: float) -> None:
        work, key = job.work, job.key
        if job.handed_off:
            # Nobody fetched the blocks in time. The attempt itself went on elsewhere, and another
            # end of it from here would be one too many.
            self.drop(job, remember=True)
            return
        if output.fetched and isinstance(work, Decode):
            step.fetched.append((work.context, Fetched(key)))
            step.arrived.append((job, output.fetched_bytes))
        begins = bool(output.tokens) and not job.begun
        if begins:
            step.began.append((job, output.cached_tokens))
        if output.tokens or output.finish is not None:
            finish = "" if output.finish is None else output.finish.value
            chunk = Chunk(
                key.number,
                key.epoch,
                job.sent,
                output.tokens,
                finish,
                output.error,
                output.cached_tokens,
                output.logprobs,
                0 if job.sent else count_tokens(work.prompt),
                output.findings,
            )
            if chunk.findings is None:
                self._put(job, chunk)
            else:
                step.large.append((key.ingress, chunk))
            if begins:
                job.begun = job.flows = True
            job.sent += len(output.tokens)
            job.history.note(chunk)
        if output.handoff is not None and isinstance(work, Prefill):
            job.handed_off, job.flows = True, False
            left_s = max(MIN_BUDGET_S, job.until - now) if work.budget_s else 0.0
            decode = _decode(work, output.handoff, me, left_s)
            step.decodes.append((work.generation, decode))
            step.over.append((job, "handed_off"))
        if output.finish is not None:
            if output.finish is Finish.ERROR and isinstance(work, Decode) and not output.fetched:
                # It never got the blocks, or not all: the other side need not keep them.
                step.fetched.append((work.context, Fetched(key)))
            self.drop(job, remember=True)
            step.over.append((job, output.finish.value))


def _is_plain(output: Output) -> bool:
    """Whether it is one token, and nothing else is said."""
    return (
        len(output.tokens) == 1
        and output.finish is None
        and output.logprobs is None
        and output.handoff is None
        and not output.fetched
    )


def failure(key: RequestKey, sent: int, text: str) -> Chunk:
    """The chunk that ends an attempt in an error."""
    return Chunk(key.number, key.epoch, sent, [], Finish.ERROR.value, text)


def _request(job: Job) -> Request:
    work = job.work
    phase: Phase = "whole"
    handoff = None
    match work:
        case Prefill():
            phase = "prefill"
        case Decode(first_token=first_token, ticket=ticket):
            phase, handoff = "decode", Handoff(first_token, ticket)
        case Generate():
            pass
    return Request(
        id=job.id,
        prompt=work.prompt,
        sampling=work.sampling,
        phase=phase,
        handoff=handoff,
        resumed=work.resumed,
    )


def _decode(work: Prefill, handoff: Handoff, me: Address, budget_s: float) -> Decode:
    return Decode(
        work.key,
        work.request_id,
        work.prompt,
        work.sampling,
        me,
        handoff.first_token,
        handoff.ticket,
        work.resumed,
        budget_s,
        work.trace,
    )
