"""The workers: an engine, made an actor. A worker lives and dies with its engine."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any, ClassVar

from actors.engines.base import Engine, Info, RequestRefused
from actors.messages.cards import Duty, WorkerCard
from actors.messages.events import TellInventory
from actors.messages.frame import PLAIN_FIELDS, Chunk, Frame
from actors.messages.key import RequestKey
from actors.messages.work import Cancel, Decode, Fetched, Generate, Prefill, Resend
from actors.runtime.actor import Actor, Down, Returned, handler
from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.message import Message
from actors.worker.engines import (
    engine_name,
    make_engine,
    preload_engine,
    public_name,
    tokenizer_source,
)
from actors.worker.job import Job, Work
from actors.worker.jobs import Jobs, Step, failure
from actors.worker.measures import Measures
from actors.worker.options import WorkerOptions
from actors.worker.publisher import Publisher
from actors.worker.traces import Traces

BUDGET_CHECK_S = 1.0
GATHER_S = 0.0005
"""What engine steps bring within this time of the last sending is sent together, by the first that
ends after it. A message costs an ingress, NATS and a worker 100 µs each where it comes alone, a
token in it 5."""
GATHER_AT_MOST_S = 0.001
"""For when no step follows. Timers are not finer."""


class Worker(Actor):
    """Runs requests on an engine and sends the tokens straight to the ingress that asked.

    After each engine step every ingress concerned gets a `Frame`, or after several together, where
    they take less than `GATHER_S`. A request ends with exactly one chunk that has a `finish`,
    unless it is cancelled, superseded by a later attempt, or this process dies. When an ingress
    goes, so do its requests.
    """

    Options = WorkerOptions
    options: WorkerOptions
    duty: ClassVar[Duty]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._engine: Engine = make_engine(self.options.engine, self.node.base_dir, duty=self.duty)
        self._jobs = Jobs()
        self._publisher = Publisher(
            self, self._engine, self._jobs, self.options.router, self.options.report_every_s
        )
        self._info: Info | None = None
        self._started_at = self.clock.wall()
        self._tokens = 0
        model = self.options.model or self.options.engine.model
        self._measures = Measures(self.metrics, model, self.duty)
        tracer = self.node.tracer
        self._traces = None if tracer is None else Traces(tracer, self, model, self.duty)
        self._ingresses: set[Address] = set()
        self._sent_at = -math.inf
        self._gathering: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    def preload(cls, options: WorkerOptions, base_dir: Path) -> None:
        preload_engine(options.engine, base_dir)

    # -- life ----------------------------------------------------------------------------------

    async def starting(self) -> None:
        self._info = await self._engine.start()
        self._measures.follow(
            self._engine.load,
            lambda: (self._engine.progress, self._tokens),
            lambda: self._engine.handoff_refusals,
        )
        self.spawn(self._run_steps(), name="steps")
        self._publisher.start()
        self.spawn(self._watch_budgets(), name="budgets")

    async def draining(self) -> None:
        await self._idle.wait()

    async def stopping(self) -> None:
        self._publisher.stop()
        self._send_tokens()
        await self._engine.close()

    def meta(self) -> WorkerCard:
        engine, info = self.options.engine, self._info
        return WorkerCard(
            model=public_name(self.options, self.node.base_dir),
            tokenizer=tokenizer_source(self.options, self.node.base_dir),
            duty=self.duty,
            engine=engine_name(engine),
            max_context_tokens=0 if info is None else info.max_context_tokens,
            block_tokens=0 if info is None else info.block_tokens,
            blocks_total=0 if info is None else info.blocks_total,
            max_running=0 if info is None else info.max_running,
            started_at=self._started_at,
            publishes_cache_events=info is not None and info.publishes_cache_events,
            guided=info is not None and info.guided,
            prompt_logprobs=info is not None and info.prompt_logprobs,
            embedding_size=0 if info is None else info.embedding_size,
            tool_parser=self.options.tool_parser,
            reasoning_parser=self.options.reasoning_parser,
        )

    def progress(self) -> tuple[int, bool]:
        return self._engine.progress, self._engine.busy

    def patience_s(self) -> float:
        return self._engine.patience_s

    def gauges(self) -> dict[str, float]:
        load = self._engine.load()
        return {
            "running": load.running,
            "waiting": load.waiting,
            "kv_used": load.blocks_used / load.blocks_total if load.blocks_total else 0.0,
            "tokens": self._tokens,
        }

    # -- work ----------------------------------------------------------------------------------

    @handler
    def generate(self, message: Generate) -> None:
        self._take_on(message)

    @handler
    def prefill(self, message: Prefill) -> None:
        self._take_on(message)

    @handler
    def decode(self, message: Decode) -> None:
        self._take_on(message)

    @handler
    def fetched(self, message: Fetched) -> None:
        """The other side has the blocks of a prefill of ours."""
        job = self._jobs.find(message.key)
        if job is not None:
            self._engine.release(job.id)
            self._jobs.drop(job, remember=True)
            self._note_idle()

    @handler
    def cancel(self, message: Cancel) -> None:
        self._give_up(message.key)

    @handler
    def tell_inventory(self, message: TellInventory) -> None:
        self._publisher.send_inventory(message.router)

    @handler
    def resend(self, message: Resend) -> None:
        key = message.key
        self._send_tokens()  # which it repeats, if they are of the same sequence
        self._send_frame(key.ingress, [self._jobs.again(key, message.offset)])

    @handler
    def down(self, message: Down) -> None:
        """An ingress has gone, and with it everyone who waits for these tokens."""
        self._ingresses.discard(message.address)
        for job in self._jobs.of_ingress(message.address):
            self._engine.cancel(self._abandon(job).id)
        self._note_idle()

    @handler
    def returned(self, message: Returned) -> None:
        """A generation worker did not take a sequence over: end the attempt, so that its ingress
        starts another."""
        lost = message.message
        if isinstance(lost, Decode):
            self._give_up(lost.key)
            text = f"{message.target.name}: {message.reason}"
            self._send_frame(lost.key.ingress, [failure(lost.key, 1, text)])

    def _take_on(self, work: Work) -> None:
        self._publisher.take(work.key)
        request, superseded = self._jobs.add(work, self.clock.now(), self.clock.precise())
        for job_id in superseded:
            self._engine.cancel(job_id)
        if request is None:
            return
        try:
            self._engine.submit(request)
        except RequestRefused as error:
            job = self._jobs.find(work.key)
            if job is not None:
                self._jobs.drop(job)
            self._refuse(work, str(error))
            self._note_idle()
            return
        self._idle.clear()
        if self.node.verbose:
            self.log.debug(
                "sequence_taken",
                request=work.request_id,
                epoch=work.key.epoch,
                sequence=request.id,
                work=type(work).__name__.lower(),
            )
        if work.key.ingress not in self._ingresses:
            self._ingresses.add(work.key.ingress)
            self.monitor(work.key.ingress)

    def _refuse(self, work: Work, text: str) -> None:
        sent = 1 if isinstance(work, Decode) else 0
        self._send_frame(work.key.ingress, [failure(work.key, sent, text)])
        if isinstance(work, Decode):
            self._tell(work.context, Fetched(work.key))

    def _give_up(self, key: RequestKey) -> None:
        job = self._jobs.find(key)
        if job is not None:
            self._engine.cancel(self._abandon(job).id)
            if isinstance(job.work, Decode):
                self._tell(job.work.context, Fetched(key))
            self._note_idle()

    def _abandon(self, job: Job) -> Job:
        """Forget a job that had not come to its end."""
        if self._traces is not None:
            self._traces.dropped(job, self.clock.precise())
        return self._jobs.drop(job)

    async def _watch_budgets(self) -> None:
        """End what nobody can be waiting for any more. Its ingress says so itself; this is for
        when that message was lost."""
        while True:
            await asyncio.sleep(BUDGET_CHECK_S)
            for job in self._jobs.overdue(self.clock.now()):
                self.log.info("request_overdue", request=job.work.request_id, epoch=job.key.epoch)
                self._give_up(job.key)

    # -- tokens --------------------------------------------------------------------------------

    async def _run_steps(self) -> None:
        async for outputs in self._engine.steps():
            self._publisher.touch()
            step = self._jobs.step(outputs, self.address, self.clock.now())
            if step.began or step.arrived or step.over:
                self._note(step)
            # A token from a prefill comes before those of the generation worker that goes on.
            gathered = self.clock.precise() - self._sent_at >= GATHER_S
            if gathered or step.decodes or not len(self._jobs):
                self._send_tokens()
            elif self._gathering is None and self._jobs.has_tokens:
                loop = asyncio.get_running_loop()
                self._gathering = loop.call_later(GATHER_AT_MOST_S, self._send_tokens)
            for ingress, chunk in step.large:
                self._tokens += len(chunk.tokens)
                self._send_frame(ingress, [chunk])
            for generation, decode in step.decodes:
                if not self._tell(generation, decode):
                    self.returned(Returned(decode, generation, "has gone"))
            for context, fetched in step.fetched:
                self._tell(context, fetched)
            self._note_idle()

    def _note(self, step: Step) -> None:
        now = self.clock.precise()
        self._measures.stepped(step, now)
        if self._traces is not None:
            self._traces.stepped(step, now)
        if self.node.verbose:
            self._say_over(step)

    def _send_tokens(self) -> None:
        """Send all tokens that wait to be sent."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if not self._jobs.has_tokens:
            return
        self._sent_at = self.clock.precise()
        for ingress, frame in self._jobs.take_frames(self.address):
            self._tokens += sum(len(chunk.tokens) for chunk in frame.chunks)
            self._tokens += len(frame.plain) // PLAIN_FIELDS
            self._tell(ingress, frame)
        self._publisher.along()

    def _say_over(self, step: Step) -> None:
        for job, outcome in step.over:
            self.log.debug(
                "sequence_over",
                request=job.work.request_id,
                epoch=job.key.epoch,
                sequence=job.id,
                outcome=outcome,
                tokens=job.sent,
            )

    def _send_frame(self, ingress: Address, chunks: list[Chunk]) -> None:
        self._tell(ingress, Frame(self.address, chunks))

    def _tell(self, target: Address, message: Message) -> bool:
        try:
            self.tell(target, message)
        except NoSuchActor:
            return False
        return True

    def _note_idle(self) -> None:
        if not len(self._jobs):
            self._idle.set()


class ContextWorker(Worker):
    """Computes prompts, and hands the KV cache to a generation worker."""

    duty = "context"


class GenerationWorker(Worker):
    """Continues sequences prefilled elsewhere; whole requests when it must."""

    duty = "generation"


class AggregatedWorker(Worker):
    """Does both, alone."""

    duty = "aggregated"
