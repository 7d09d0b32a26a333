"""What a real service tells of itself, gathered by its supervisor."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service import PATIENCE_S
from tests.serving import observability
from tests.serving.conftest import MODEL, Service
from tests.supervisor.live import supervise

pytestmark = pytest.mark.process

FRANCE = "What is the capital of France?"


class Scrape:
    """All samples of one document."""

    def __init__(self, text: str) -> None:
        self._kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        families = text_string_to_metric_families(text)
        self.samples = [sample for family in families for sample in family.samples]

    def kind_of(self, name: str) -> str | None:
        """counter, gauge or histogram; None for a name that no sample could have."""
        kind = self._kinds.get(name)
        if kind is None and (parts := re.fullmatch(r"(\w+)_(?:bucket|sum|count)", name)):
            whole = self._kinds.get(parts[1])
            return whole if whole == "histogram" else None
        return None if kind == "histogram" else kind

    def labels(self, name: str) -> set[str] | None:
        """Those that all of its series have; None when it has no series."""
        found = [set(sample.labels) for sample in self.samples if sample.name == name]
        return set.intersection(*found) if found else None

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
    before = scrape(disagg)  # says 0, so that Prometheus sees the first one as an increase
    assert before.total("understudy_child_restarts_total", child="router/0", reason="killed") == 0
    disagg.live.kill("router/0")
    disagg.live.until("child_ready", child="router/0")

    now = scrape(disagg)
    assert now.total("understudy_child_restarts_total", child="router/0", reason="killed") == 1
    assert now.total("understudy_child_downtime_seconds_count", child="router/0") == 1
    assert now.total("understudy_child_up") == now.total("understudy_child_up", node="supervisor")


def test_dashboard_and_rules_ask_only_for_what_a_service_says(disagg: Service) -> None:
    disagg.ask(FRANCE)
    now = scrape(disagg)

    asked = observability.questions()
    assert len(asked) > 40
    for question in asked:
        selectors = question.selectors
        assert selectors or question.recorded or question.expression.startswith("up{"), question
        for one in selectors:
            kind = now.kind_of(one.name)
            assert kind is not None, f"{question.where}: nobody says {one.name}"
            assert one.over_time == (kind != "gauge"), f"{question.where}: {one.name} is a {kind}"
            labels = now.labels(one.name)
            assert labels is not None, f"{question.where}: {one.name} has no series"
            missing = (one.labels | question.grouped_by) - labels
            assert not missing, f"{question.where}: {one.name} has no {missing}"


def test_alerts_read_rules_that_are_recorded_and_name_labels_that_they_have() -> None:
    rules = observability.rules()
    recorded = {
        rule["record"]: observability.Question("", rule["expr"])
        for rule in rules
        if "record" in rule
    }
    alerts = [rule for rule in rules if "alert" in rule]
    assert len(alerts) > 10
    for rule in alerts:
        question = observability.Question(rule["alert"], rule["expr"])
        assert question.recorded <= recorded.keys(), question
        assert rule["labels"]["severity"] in {"critical", "warning"}
        groups = [question.grouped_by, *(recorded[name].grouped_by for name in question.recorded)]
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        if any(groups):  # what is not grouped keeps all of its labels
            assert named <= set().union(*groups), question


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    dashboard = observability.dashboard()
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    panels = dashboard["panels"]
    cells = [
        (x, y)
        for panel in panels
        for box in [panel["gridPos"]]
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(set(cells)) == len(cells), "panels lie on each other"
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used == variables | {"__rate_interval"}


def test_a_child_that_is_told_to_say_more_says_what_becomes_of_each_request(
    disagg: Service,
) -> None:
    log = disagg.live.base / "disagg" / "logs" / "generation.0.log"

    def lines() -> list[Any]:
        return [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]

    def said(request: str) -> set[str]:
        return {line["event"] for line in lines() if line.get("request") == request}

    def tell(level: str) -> None:
        before = len([line for line in lines() if line["event"] == "log_level_set"])
        assert supervise(disagg.live.base, "log-level", "generation", level).returncode == 0
        deadline = time.monotonic() + PATIENCE_S
        while len([line for line in lines() if line["event"] == "log_level_set"]) == before:
            assert time.monotonic() < deadline, "it was not told"
            time.sleep(0.01)

    def answered() -> str:
        return disagg.client.completions.create(model=MODEL, prompt="Oslo", max_tokens=4).id

    tell("debug")
    loud = answered()
    tell("info")
    quiet = answered()

    # The worker says that a sequence is over before it sends what says so.
    assert said(loud) == {"sequence_taken", "sequence_over"}
    assert said(quiet) == set()
