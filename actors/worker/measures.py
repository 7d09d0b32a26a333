"""What a worker counts: a few numbers a request, none a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.messages.cache import Load
from actors.messages.cards import Duty
from actors.messages.key import count_tokens
from actors.messages.stages import DECODE, HANDOFF, PREFILL, stages
from actors.messages.work import Decode
from actors.runtime.metrics import Metrics
from actors.worker.jobs import Step


class Measures:
    """All families of a worker."""

    def __init__(self, metrics: Metrics, model: str, duty: Duty) -> None:
        labels, values = ("model", "duty"), (model, duty)
        stage = stages(metrics)
        self._prefill = stage.labels(PREFILL)
        self._handoff = stage.labels(HANDOFF)
        self._decode = stage.labels(DECODE)
        self._looked_up = metrics.counter(
            "understudy_kv_lookup_tokens_total",
            "Tokens of prompts that were looked for in the KV cache.",
            labels,
        ).labels(*values)
        self._hit = metrics.counter(
            "understudy_kv_hit_tokens_total",
            "Tokens of prompts that were found in the KV cache, and so not computed.",
            labels,
        ).labels(*values)
        self._handoffs = metrics.counter(
            "understudy_kv_handoffs_total",
            "KV caches fetched from a context worker, or not, by outcome.",
            (*labels, "outcome"),
        )
        self._fetched = self._handoffs.labels(*values, "fetched")
        self._failed = self._handoffs.labels(*values, "failed")
        self._bytes = metrics.counter(
            "understudy_kv_handoff_bytes_total",
            "Bytes of KV cache copied from context workers; what was cached here is not copied.",
            labels,
        ).labels(*values)
        self._turned_away = metrics.counter(
            "understudy_kv_fetch_refusals_total",
            "Connections to a context worker's KV blocks that were turned away, by reason: "
            "not_offered (a wrong ticket, or one that has expired), used, stranger (it speaks "
            "something else), slow, left, crowded.",
            (*labels, "reason"),
        )
        self._finished = metrics.counter(
            "understudy_worker_sequences_total",
            "Sequences over at a worker, by how: stop, length, error, or handed_off.",
            (*labels, "outcome"),
        )
        self._values = values
        self._levels = [
            metrics.gauge(name, text, labels).labels(*values)
            for name, text in (
                ("understudy_engine_running_sequences", "Sequences in the engine's batch."),
                ("understudy_engine_max_running_sequences", "Sequences that fit in the batch."),
                ("understudy_engine_waiting_sequences", "Sequences that wait for their turn."),
                ("understudy_engine_waiting_tokens", "Prompt tokens not yet computed."),
                ("understudy_kv_blocks_used", "KV blocks held by sequences and handoffs."),
                ("understudy_kv_blocks", "KV blocks there are."),
            )
        ]
        self._steps = metrics.counter(
            "understudy_engine_steps_total", "Steps that the engine has taken.", labels
        ).labels(*values)
        self._tokens = metrics.counter(
            "understudy_worker_tokens_total", "Tokens sent to ingresses.", labels
        ).labels(*values)
        self._metrics = metrics

    def follow(
        self,
        load: Callable[[], Load],
        counts: Callable[[], tuple[int, int]],
        refusals: Callable[[], Mapping[str, int]],
    ) -> None:
        """Where to read levels, (steps, tokens) so far, and who was turned away."""

        def look() -> None:
            now = load()
            numbers = (
                *(now.running, now.max_running, now.waiting, now.waiting_tokens),
                *(now.blocks_used, now.blocks_total),
            )
            for level, number in zip(self._levels, numbers, strict=True):
                level.set(number)
            steps, tokens = counts()
            self._steps.mirror(steps)
            self._tokens.mirror(tokens)
            # A copy: the engine's threads count on.
            for reason, count in dict(refusals()).items():
                self._turned_away.labels(*self._values, reason).mirror(count)

        self._metrics.before_collect(look)

    def stepped(self, step: Step, now: float) -> None:
        """What began and what ended in a step. Stages run from one event to the next."""
        for job, cached_tokens in step.began:
            if not isinstance(job.work, Decode):
                self._prefill.observe(now - job.taken_at)
                self._looked_up.add(count_tokens(job.work.prompt))
                self._hit.add(cached_tokens)
            job.began_at = job.began_at or now
        for job, copied in step.arrived:
            self._handoff.observe(now - job.taken_at)
            self._fetched.add()
            self._bytes.add(copied)
            job.began_at = now
        for job, outcome in step.over:
            if job.began_at and not job.handed_off:
                self._decode.observe(now - job.began_at)
            elif isinstance(job.work, Decode) and outcome == "error":
                self._failed.add()
            self._finished.labels(*self._values, outcome).add()
