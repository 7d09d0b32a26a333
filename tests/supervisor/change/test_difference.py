"""What a change is shown as."""

from __future__ import annotations

from hypothesis import given

from supervisor.change.difference import difference
from supervisor.change.items import render
from supervisor.change.rollout import rollout
from supervisor.change.stage import Stage, StandIn
from supervisor.tree import SupervisorSpec
from tests.supervisor.change.plans import changes, tree_of

BEFORE = """
children:
  - {name: way, actor: router, options: {strategy: round_robin}}
  - {actor: preprocessor, replicas: 2}
  - {name: work, actor: generation, env: {HF_TOKEN: secret-1}}
"""
AFTER = """
supervision: {intensity: 3}
children:
  - {name: way, actor: router, options: {strategy: random}, nice: 5}
  - {actor: preprocessor, drain: 30s}
  - {name: work, actor: generation, env: {HF_TOKEN: secret-2}}
  - {actor: context, replicas: 2}
"""


def lines(before: str, after: str) -> list[str]:
    spec = tree_of(before)
    return render(difference(spec, tree_of(after, spec)))


def test_every_kind_of_change_is_told_in_the_words_of_the_file() -> None:
    assert lines(BEFORE, AFTER) == [
        "~ supervisor  intensity: 10 -> 3  (no restart)",
        "+ zygote/worker",
        "~ way/0  nice: null -> 5",
        "         options.strategy: round_robin -> random",
        "~ preprocessor/0  drain: 10.0 -> 30.0  (no restart)",
        "~ work/0  env.HF_TOKEN: (hidden) -> (hidden)",
        "+ context/0",
        "+ context/1",
        "- preprocessor/1",
    ]


def test_where_traces_go_is_told_and_what_lets_them_in_is_not() -> None:
    def text(host: str, key: str) -> str:
        where = f"tracing: {{endpoint: 'http://{host}:4318', headers: {{key: {key}}}}}"
        return f"{where}\nchildren: [{{actor: router}}]"

    assert lines(text("a", "secret-1"), text("b", "secret-2")) == [
        "~ router/0  tracing.endpoint: http://a:4318 -> http://b:4318",
        "            tracing.headers.key: (hidden) -> (hidden)",
    ]


def test_a_child_that_changes_its_supervisor_is_told_to_be_stopped_first() -> None:
    told = lines(
        "children: [{actor: router}]",
        "children: [{name: team, children: [{actor: router}]}]",
    )

    assert told == [
        "+ team",
        "> router/0  to another supervisor; stopped before it is started there",
    ]


def test_another_order_is_told() -> None:
    told = lines(
        "children: [{actor: router}, {actor: preprocessor}]",
        "children: [{actor: preprocessor}, {actor: router}]",
    )

    assert told == [
        (
            '~ supervisor  children: ["supervisor/plane","router/0","preprocessor/0"] -> '
            '["supervisor/plane","preprocessor/0","router/0"]  (no restart)'
        )
    ]


def test_what_was_not_there_is_nothing() -> None:
    told = lines(
        "children: [{actor: router}]", "children: [{actor: router, options: {strategy: random}}]"
    )

    assert told == ["~ router/0  options.strategy: nothing -> random"]


@given(changes())
def test_something_is_shown_exactly_when_something_is_done(
    change: tuple[SupervisorSpec, SupervisorSpec],
) -> None:
    before, after = change

    assert bool(difference(before, after)) == bool(rollout(Stage.of(before), after))


@given(changes())
def test_who_is_shown_to_restart_is_replaced(
    change: tuple[SupervisorSpec, SupervisorSpec],
) -> None:
    before, after = change
    shown = {item.id for item in difference(before, after) if item.restarts}
    steps = rollout(Stage.of(before), after)
    left_alone = {
        id_
        for id_ in shown
        if not any(
            not isinstance(step, StandIn) and getattr(step, "id", "") == id_ for step in steps
        )
    }

    # What moves along with its whole supervisor is stopped and started with it.
    assert all(item.what == "moved" for item in difference(before, after) if item.id in left_alone)
