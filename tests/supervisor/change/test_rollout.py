"""The steps of a change lead where they should, and lose nobody on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisor.change.rollout import rolling_restart, rollout
from supervisor.change.stage import (
    Adopt,
    Bring,
    Dismiss,
    Replace,
    Stage,
    StandIn,
    Step,
    leaves,
    places,
    recipe,
    same_process,
)
from supervisor.tree import SupervisorSpec
from tests.supervisor.change.plans import changes, tree_of
from tests.supervisor.change.theatre import Theatre

Change = tuple[SupervisorSpec, SupervisorSpec]


def stage_after(stage: Stage, steps: list[Step]) -> Stage:
    for step in steps:
        stage = stage.after(step)
    return stage


def two_nodes(**plays: tuple[str, ...]) -> SupervisorSpec:
    """Nodes of these names, playing these roles."""
    actors = {
        name: ", ".join(f"{{actor: 'pkg.mod:Part', role: {role}}}" for role in roles)
        for name, roles in plays.items()
    }
    children = ", ".join(f"{{name: {name}, actors: [{said}]}}" for name, said in actors.items())
    return tree_of(f"children: [{children}]")


def assert_at_rest(stage: Stage, spec: SupervisorSpec) -> None:
    assert stage.adopted == spec
    assert dict(stage.present) == places(spec)
    wanted = {leaf.id: leaf for leaf in leaves(spec)}
    assert stage.running.keys() == wanted.keys()
    assert all(same_process(stage.running[id_], leaf) for id_, leaf in wanted.items())


@given(changes())
def test_the_steps_lead_from_any_plan_to_any_other(change: Change) -> None:
    before, after = change

    steps = rollout(Stage.of(before), after)

    assert_at_rest(stage_after(Stage.of(before), steps), after)


@given(changes())
def test_there_is_nothing_to_do_twice(change: Change) -> None:
    before, after = change
    stage = stage_after(Stage.of(before), rollout(Stage.of(before), after))

    assert rollout(stage, after) == []


@given(changes())
def test_the_tree_takes_every_step_and_runs_what_is_wanted(change: Change) -> None:
    before, after = change
    theatre = Theatre(before, watch=lambda _: None)

    theatre.take(rollout(Stage.of(before), after))

    wanted = {leaf.id: leaf for leaf in leaves(after)}
    assert theatre.running.keys() == wanted.keys()
    assert all(same_process(theatre.running[id_], leaf) for id_, leaf in wanted.items())
    assert theatre.tree.spec == after
    assert {status.id for status in theatre.tree.status()} == set(places(after))


@given(changes(surging=True))
def test_a_role_that_is_there_before_and_after_is_there_all_the_while(change: Change) -> None:
    before, after = change
    kept = Theatre(before, lambda _: None).players.keys() & Theatre(after, lambda _: None).players

    def watch(theatre: Theatre) -> None:
        assert kept <= theatre.players.keys()

    Theatre(before, watch).take(rollout(Stage.of(before), after))


def test_who_takes_a_role_over_is_replaced_before_who_gives_it_up() -> None:
    before = two_nodes(a=("own", "common"), b=("other",))
    after = two_nodes(a=("own",), b=("other", "common"))

    replaced = [step.id for step in rollout(Stage.of(before), after) if isinstance(step, Replace)]

    assert replaced == ["b/0", "a/0"]


def test_of_two_that_exchange_roles_one_has_a_stand_in_until_both_are_replaced() -> None:
    before = two_nodes(a=("one",), b=("other",))
    after = two_nodes(a=("other",), b=("one",))

    steps = [
        step for step in rollout(Stage.of(before), after) if getattr(step, "id", "") != "zygote/own"
    ]

    assert [(type(step), getattr(step, "id", None)) for step in steps[-4:]] == [
        (StandIn, None),
        (Replace, "a/0"),
        (Replace, "b/0"),
        (Dismiss, "b/1"),
    ]


@given(changes())
def test_what_does_not_differ_is_not_touched(change: Change) -> None:
    before, after = change
    old, new = ({leaf.id: leaf for leaf in leaves(spec)} for spec in change)
    same = {
        id_
        for id_ in old.keys() & new.keys()
        if same_process(old[id_], new[id_]) and places(before)[id_] == places(after)[id_]
    }

    steps = rollout(Stage.of(before), after)

    touched = {step.id for step in steps if isinstance(step, Replace | Bring | Dismiss)}
    assert not touched & same


@given(changes(), st.data())
def test_a_change_that_fails_anywhere_can_be_taken_back(
    change: Change, data: st.DataObject
) -> None:
    before, after = change
    steps = rollout(Stage.of(before), after)
    done = data.draw(st.integers(0, len(steps)), label="steps done before one fails")
    stage = stage_after(Stage.of(before), steps[:done])
    match steps[done] if done < len(steps) else None:
        case Replace() as failed:
            # It is down, or up for a moment, with what was to be; never with what was.
            stage = stage.after(failed)
        case _:
            pass  # what cannot be started is not there, or there and stopped

    back = stage_after(stage, rollout(stage, before))

    assert_at_rest(back, before)


@given(changes(), st.data())
def test_what_somebody_has_stopped_stays_stopped(change: Change, data: st.DataObject) -> None:
    before, after = change
    both = sorted({leaf.id for leaf in leaves(before)} & {leaf.id for leaf in leaves(after)})
    unmoved = [id_ for id_ in both if places(before)[id_] == places(after)[id_]]
    stopped = data.draw(st.sets(st.sampled_from(unmoved))) if unmoved else set()

    stage = Stage.of(before, stopped)
    final = stage_after(stage, rollout(stage, after))

    assert not stopped & final.running.keys()


PAIR = """
children:
  - {name: front, actor: ingress, options: {port: 8080}}
  - {name: way, actor: router, replicas: REPLICAS, options: {strategy: STRATEGY}}
"""


def pair(
    replicas: int, strategy: str, before: SupervisorSpec | None = None, *, port: int = 8080
) -> SupervisorSpec:
    text = PAIR.replace("REPLICAS", str(replicas)).replace("STRATEGY", strategy)
    return tree_of(text.replace("8080", str(port)), before)


def test_one_replica_is_replaced_behind_a_stand_in() -> None:
    before = pair(1, "random")
    after = pair(1, "round_robin", before)

    adopt, stand_in, new, dismissed = rollout(Stage.of(before), after)

    assert adopt == Adopt(after)
    assert isinstance(stand_in, StandIn)
    assert stand_in.spec.id == "way/1"
    node = recipe(stand_in.spec).node
    assert node is not None
    assert (node.name, node.actors[0].instance) == ("way/1", 1)
    assert b"round_robin" in bytes(node.actors[0].options)
    assert recipe(stand_in.spec).argv[-1].endswith("/way.1.json")
    assert (new, dismissed) == (Replace("way/0"), Dismiss("way/1"))


def test_several_replicas_are_replaced_one_at_a_time_without_a_stand_in() -> None:
    before = pair(3, "random")

    steps = rollout(Stage.of(before), pair(3, "round_robin", before))

    assert steps[1:] == [Replace("way/0"), Replace("way/1"), Replace("way/2")]


def test_scaling_up_brings_the_new_ones_in_order() -> None:
    before = pair(1, "random")

    steps = rollout(Stage.of(before), pair(3, "random", before))

    assert steps[1:] == [Bring("way/1"), Bring("way/2")]


def test_scaling_down_dismisses_the_highest_first() -> None:
    before = pair(3, "random")

    steps = rollout(Stage.of(before), pair(1, "random", before))

    assert steps[1:] == [Dismiss("way/2"), Dismiss("way/1")]


@pytest.mark.parametrize("options", ["{}", "{port: 8081}", "{reuse_port: true}"])
def test_an_ingress_has_a_stand_in_on_the_same_port(options: str) -> None:
    text = f"children: [{{actor: ingress, options: {options}}}]"

    steps = rolling_restart(Stage.of(tree_of(text)), ["ingress/0"])

    assert [type(step) for step in steps] == [StandIn, Replace, Dismiss]


def test_an_ingress_on_any_free_port_has_none() -> None:
    tree = tree_of("children: [{actor: ingress, options: {port: 0}}]")

    assert rolling_restart(Stage.of(tree), ["ingress/0"]) == [Replace("ingress/0")]


def test_a_limit_of_time_changes_without_a_new_process() -> None:
    before = tree_of("children: [{actor: router, drain: 1s}]")
    after = tree_of("children: [{actor: router, drain: 2s}]", before)

    assert rollout(Stage.of(before), after) == [Adopt(after)]


def test_the_order_of_options_in_the_file_does_not_matter() -> None:
    before = tree_of("children: [{actor: ingress, options: {port: 1, host: h}}]")
    after = tree_of("children: [{actor: ingress, options: {host: h, port: 1}}]", before)

    assert rollout(Stage.of(before), after) == []


def test_gpus_of_the_dismissed_are_free_before_others_need_them() -> None:
    before = tree_of("children: [{name: old, actor: generation, gpus: 1}]")
    after = tree_of("children: [{name: new, actor: generation, gpus: 1}]", before)

    steps = rollout(Stage.of(before), after)

    assert steps == [Dismiss("old/0"), Adopt(after), Bring("new/0")]


def test_a_stand_in_left_behind_is_dismissed_by_the_next_change() -> None:
    spec = pair(1, "random")
    stand_in = rolling_restart(Stage.of(spec), ["way/0"])[0]

    assert rollout(Stage.of(spec).after(stand_in), spec) == [Dismiss("way/1")]


def test_a_stand_in_takes_no_number_that_another_entry_has_for_the_role() -> None:
    spec = tree_of(
        "children:\n"
        "- {name: a, actor: router}\n"
        "- {name: b, actor: router, first_instance: 7, replicas: 1}\n"
    )
    alone = replace(Stage.of(spec), running={"a/0": Stage.of(spec).running["a/0"]})

    [stand_in, *_] = rolling_restart(alone, ["a/0"])

    assert isinstance(stand_in, StandIn)
    assert stand_in.spec.id == "a/8"
