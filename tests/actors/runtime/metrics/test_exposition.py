"""The text is what Prometheus reads: held by the parser of its own Python client."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from actors.runtime.metrics import Family, Metrics, render

VALUES = st.floats() | st.integers(-(2**60), 2**60).map(float)
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from('\n"\\'))


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """By sample name and labels."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            of_name = samples.setdefault(sample.name, {})
            assert labels not in of_name, f"{sample.name} {labels} stands there twice"
            of_name[labels] = sample.value
    return samples


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_every_label_and_number_comes_through_as_it_is(levels: dict[str, float]) -> None:
    metrics = Metrics()
    family = metrics.gauge("level", "A level.\nTwo lines, and a \\.", ("of",))
    for name, value in levels.items():
        family.labels(name).set(value)

    found = parsed(render([((), metrics.collect())])).get("level", {})

    assert len(found) == len(levels)
    for name, value in levels.items():
        read = found[("of", name),]
        assert read == value or (math.isnan(read) and math.isnan(value))


@given(st.lists(st.floats(0, 100), max_size=20))
def test_a_histogram_is_read_with_buckets_that_add_up(values: list[float]) -> None:
    metrics = Metrics()
    series = metrics.histogram("took_seconds", "Took.", ("stage",), (1.0, 10.0)).labels("a")
    for value in values:
        series.observe(value)

    found = parsed(render([((("node", "n"),), metrics.collect())]))

    labels = (("node", "n"), ("stage", "a"))
    buckets = found["took_seconds_bucket"]
    assert buckets[("le", "1"), *labels] == sum(value <= 1 for value in values)
    assert buckets[("le", "10"), *labels] == sum(value <= 10 for value in values)
    assert buckets[("le", "+Inf"), *labels] == found["took_seconds_count"][labels] == len(values)
    assert math.isclose(found["took_seconds_sum"][labels], sum(values), abs_tol=1e-9)


def test_families_of_several_nodes_stand_together_and_keep_apart_by_label() -> None:
    sources: list[tuple[list[tuple[str, str]], tuple[Family, ...]]] = []
    for node in ("a/0", "b/0"):
        metrics = Metrics()
        metrics.counter("seen_total", "Seen.").labels().add(len(sources) + 1)
        metrics.gauge("level", "Level.").labels().set(5)
        sources.append(([("node", node)], metrics.collect()))

    text = render(sources)

    assert text.count("# TYPE seen_total counter") == text.count("# HELP seen_total Seen.") == 1
    assert parsed(text)["seen_total"] == {(("node", "a/0"),): 1, (("node", "b/0"),): 2}


def test_of_two_definitions_of_a_name_the_first_is_told() -> None:
    old, new = Metrics(), Metrics()
    old.counter("seen_total", "Seen.").labels().add()
    new.counter("seen_total", "Seen.", ("what",)).labels("x").add()

    text = render([([("node", "old")], old.collect()), ([("node", "new")], new.collect())])

    assert parsed(text)["seen_total"] == {(("node", "old"),): 1}
