"""What a real service tells of itself, gathered by its supervisor."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving.conftest import Service
from tests.supervisor.live import supervise

pytestmark = pytest.mark.process

FRANCE = "What is the capital of France?"


class Scrape:
    """All samples of one document."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Over all series that have these labels; there is at least one."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"nothing is called {name} {labels}"
        return sum(found)


def scrape(service: Service) -> Scrape:
    done = supervise(service.live.base, "metrics")
    assert done.returncode == 0, done.stderr
    return Scrape(done.stdout)


def test_an_answer_leaves_its_marks_in_every_process(disagg: Service) -> None:
    disagg.ask(FRANCE)  # a model is known from its first request on
    before = scrape(disagg)
    disagg.ask(FRANCE)
    after = scrape(disagg)

    def grew(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert grew("understudy_requests_total", outcome="ok") == 1
    tokens = grew("understudy_generated_tokens_total")
    assert tokens > 3
    assert grew("understudy_worker_tokens_total", duty="generation") == tokens - 1
    assert grew("understudy_time_to_first_token_seconds_count") == 1
    assert grew("understudy_inter_token_latency_seconds_count") == tokens - 1
    for stage in ("assign", "preprocess", "route", "first_token", "prefill", "handoff", "decode"):
        assert grew("understudy_stage_seconds_count", stage=stage) == 1, stage
        assert grew("understudy_stage_seconds_sum", stage=stage) > 0, stage
    assert grew("understudy_kv_lookup_tokens_total") == grew("understudy_prompt_tokens_total") > 0
    assert after.total("understudy_child_silent") == 0
    assert after.total("understudy_plane_connected", server="nats") == 5


def test_a_second_prompt_of_the_same_beginning_is_found_in_the_cache(disagg: Service) -> None:
    disagg.ask("Tell me a story.")
    before = scrape(disagg).total("understudy_kv_hit_tokens_total")
    disagg.ask("Tell me a story.")

    assert scrape(disagg).total("understudy_kv_hit_tokens_total") > before


def test_blocks_that_are_handed_over_are_counted_in_bytes(disagg: Service) -> None:
    before = scrape(disagg).total("understudy_kv_handoff_bytes_total")
    disagg.ask("What is the capital of Norway, and what of Sweden, and what of Denmark?")

    # Whole blocks of floats of four bytes.
    grown = scrape(disagg).total("understudy_kv_handoff_bytes_total") - before
    assert grown > 0
    assert grown % 4096 == 0


def test_a_restart_is_counted_with_its_reason(disagg: Service) -> None:
    disagg.live.kill("router/0")
    disagg.live.until("child_ready", child="router/0")

    now = scrape(disagg)
    assert now.total("understudy_child_restarts_total", child="router/0", reason="killed") == 1
    assert now.total("understudy_child_downtime_seconds_count", child="router/0") == 1
    assert now.total("understudy_child_up") == now.total("understudy_child_up", node="supervisor")
