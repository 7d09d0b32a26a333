"""The spans of a worker: prefill, handoff and decode of each traced sequence, when each ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.messages.cards import Duty
from actors.messages.key import count_tokens
from actors.messages.stages import DECODE, HANDOFF, PREFILL
from actors.messages.work import Decode, Prefill
from actors.runtime.tracing import Attributes
from actors.worker.job import Job
from actors.worker.jobs import Step

if TYPE_CHECKING:
    from actors.runtime.actor import Actor
    from actors.runtime.tracing.tracer import Tracer


class Traces:
    """Records what `Measures` measures, of those sequences whose message asks for it."""

    def __init__(self, tracer: Tracer, actor: Actor, model: str, duty: Duty) -> None:
        self._tracer = tracer
        self._actor = actor
        self._model = model
        self._duty = duty

    def stepped(self, step: Step, now: float) -> None:
        """What began and what ended in a step; `now` as of `Measures.stepped`, and after it."""
        for job, cached_tokens in step.began:
            if not isinstance(job.work, Decode):
                more = {"understudy.cached_tokens": cached_tokens}
                self._record(PREFILL, job, now - job.taken_at, more)
        for job, copied in step.arrived:
            self._record(HANDOFF, job, now - job.taken_at, {"understudy.bytes": copied})
        for job, outcome in step.over:
            if outcome != "handed_off":
                self._end(job, now, outcome, "failed" if outcome == "error" else "")

    def dropped(self, job: Job, now: float) -> None:
        """Nobody waits for it any more, and it had not ended."""
        if not job.handed_off:
            self._end(job, now, "cancelled", "cancelled")

    def _end(self, job: Job, now: float, outcome: str, error: str) -> None:
        """The stage that a sequence was in when it ended."""
        more: Attributes
        if job.began_at and (error or not isinstance(job.work, Prefill)):
            first = 1 if isinstance(job.work, Decode) else 0
            more = {
                "gen_ai.response.finish_reasons": [outcome],
                "understudy.tokens": job.sent - first,
            }
            self._record(DECODE, job, now - job.began_at, more, error)
        elif not job.began_at:
            stage = HANDOFF if isinstance(job.work, Decode) else PREFILL
            more = {"gen_ai.response.finish_reasons": [outcome]}
            self._record(stage, job, now - job.taken_at, more, error)

    def _record(
        self,
        stage: str,
        job: Job,
        seconds: float,
        more: Attributes,
        error: str = "",
    ) -> None:
        work = job.work
        if work.trace is None:
            return
        attributes: dict[str, str | int | Sequence[str]] = {
            "understudy.actor": str(self._actor.address),
            "understudy.duty": self._duty,
            "understudy.request": work.request_id,
            "understudy.epoch": work.key.epoch,
            "gen_ai.request.model": self._model,
            "understudy.prompt_tokens": count_tokens(work.prompt),
            "understudy.resumed_tokens": work.resumed,
        }
        if isinstance(work, Decode):
            attributes["understudy.context"] = str(work.context)
        if error:
            attributes["error.type"] = error
        self._tracer.record(stage, work.trace, seconds, {**attributes, **more}, error=error)
