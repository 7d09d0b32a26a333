"""What the ingress counts: something for each frame of tokens, nothing for each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.messages.stages import ASSIGN, FIRST_TOKEN, stages
from actors.runtime.metrics import FRACTIONS_OF_A_SECOND, SIZES, Metrics

if TYPE_CHECKING:
    from actors.ingress.exchange import Exchange


class ModelMeasures:
    """The series of one model, looked up once."""

    __slots__ = (
        "assign_s",
        "between_s",
        "cached",
        "first_s",
        "generated",
        "prefill_s",
        "prompt",
        "prompt_sizes",
        "replays",
        "stale",
        "whole_s",
    )

    def __init__(self, families: Measures, model: str) -> None:
        self.first_s = families.first.labels(model)
        self.between_s = families.between.labels(model)
        self.whole_s = families.whole.labels(model)
        self.assign_s = families.stage.labels(ASSIGN)
        self.prefill_s = families.stage.labels(FIRST_TOKEN)
        self.prompt = families.prompt.labels(model)
        self.cached = families.cached.labels(model)
        self.generated = families.generated.labels(model)
        self.prompt_sizes = families.prompt_sizes.labels(model)
        self.replays = families.replays.labels(model)
        self.stale = families.stale.labels(model)

    def moved(self, seconds: float, sequences: int) -> None:
        """So many sequences have got one token each, all of them so long after their last."""
        self.between_s.observe(seconds, sequences)
        self.generated.value += sequences


class Stopwatch:
    """The times of one sequence, on the precise clock."""

    __slots__ = ("assigned_at", "first_at", "last_at", "measures", "submitted_at")

    def __init__(self, measures: ModelMeasures, now: float) -> None:
        self.measures = measures
        self.submitted_at = now
        self.assigned_at = 0.0
        self.first_at = 0.0
        """When the first tokens came; 0 before."""
        self.last_at = 0.0
        """When the latest tokens came; 0 before the first."""

    def assigned(self, now: float) -> None:
        """Workers have been chosen for the first time."""
        if not self.assigned_at:
            self.assigned_at = now
            self.measures.assign_s.observe(now - self.submitted_at)

    def delivered(self, now: float, count: int) -> None:
        """Tokens have come, all at once."""
        measures = self.measures
        if self.last_at:
            measures.between_s.observe((now - self.last_at) / count, count)
        else:
            self.first_at = now
            measures.first_s.observe(now - self.submitted_at)
            if self.assigned_at:
                measures.prefill_s.observe(now - self.assigned_at)
        self.last_at = now
        measures.generated.value += count


class Measures:
    """All families of an ingress."""

    def __init__(self, metrics: Metrics, open_requests: Callable[[], int]) -> None:
        model = ("model",)
        self._models: dict[str, ModelMeasures] = {}
        self.first = metrics.histogram(
            "understudy_time_to_first_token_seconds",
            "From the request's being read to its first token, for each sequence.",
            model,
        )
        self.between = metrics.histogram(
            "understudy_inter_token_latency_seconds",
            "Between tokens of a sequence, as they reach the ingress; those that come together "
            "share the time since the ones before.",
            model,
            FRACTIONS_OF_A_SECOND,
        )
        self.whole = metrics.histogram(
            "understudy_request_duration_seconds",
            "From the request's being read to its end, whatever that was.",
            model,
        )
        self.stage = stages(metrics)
        self.prompt = metrics.counter(
            "understudy_prompt_tokens_total", "Tokens of prompts, cached ones included.", model
        )
        self.cached = metrics.counter(
            "understudy_prompt_tokens_cached_total",
            "Tokens of prompts that a worker found in its KV cache.",
            model,
        )
        self.generated = metrics.counter(
            "understudy_generated_tokens_total", "Tokens that reached the ingress.", model
        )
        self.prompt_sizes = metrics.histogram(
            "understudy_prompt_size_tokens", "Tokens of a prompt.", model, SIZES
        )
        self.replays = metrics.counter(
            "understudy_replays_total",
            "Sequences submitted again because an attempt was lost.",
            model,
        )
        self.stale = metrics.counter(
            "understudy_stale_chunks_total",
            "Chunks of tokens that came from an attempt already given up.",
            model,
        )
        self.requests = metrics.counter(
            "understudy_requests_total",
            "Requests that were begun and are over, by how: ok, cancelled (the client left), or "
            "the HTTP status that they ended with or would have.",
            ("model", "outcome"),
        )
        self.http = metrics.counter(
            "understudy_http_responses_total",
            "HTTP responses, by path and status.",
            ("path", "status"),
        )
        self.probes = metrics.counter(
            "understudy_readiness_probes_total",
            "Tokens produced, or not, to answer /ready.",
            ("model", "outcome"),
        )
        self.connections = metrics.gauge(
            "understudy_http_connections", "Connections of clients that are open."
        ).labels()
        self.over_limit = metrics.counter(
            "understudy_http_connections_over_limit_total",
            "Connections that came while max_connections were open. They are told 503 and closed, "
            "unless there is room by their first request, or that is a probe.",
        ).labels()
        self.accept_failures = metrics.counter(
            "understudy_http_accept_failures_total",
            "Times that no connection could be accepted, mostly because the process had no file "
            "descriptor left for it. It waits.",
        ).labels()
        in_progress = metrics.gauge(
            "understudy_requests_in_progress", "Requests begun and not over."
        ).labels()
        metrics.before_collect(lambda: in_progress.set(open_requests()))

    def of(self, model: str) -> ModelMeasures:
        """The series of a model that exists."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMeasures(self, model)
        return found

    def count(self, exchange: Exchange, now: float) -> None:
        """An exchange is over."""
        measures = self.of(exchange.model)
        measures.whole_s.observe(now - exchange.began_at)
        for choice in exchange.choices:
            session = choice.session
            if session.prompt_tokens:
                measures.prompt.add(session.prompt_tokens)
                measures.cached.add(session.cached_tokens)
                measures.prompt_sizes.observe(session.prompt_tokens)
            measures.stale.add(session.stale_chunks)
        self.requests.labels(exchange.model, exchange.outcome).add()
