"""What must hold between the entries of a topology."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import pytest

from tests.supervisor.topology.files import mistakes

_OWN_ADDRESS = "expected an address of its own; found"
_HINT = "give first_instance or a role to tell them apart"


def test_names_are_unique_in_the_whole_tree() -> None:
    text = "children:\n- {actor: router}\n- {name: s, children: [{name: router, actor: context}]}\n"
    assert mistakes(text) == [
        "x.yaml:3:31: children[1].children[0].name: expected a unique name; found 'router', also children[0] (line 2)"
    ]


def test_the_names_of_the_supervisors_own_processes_are_reserved() -> None:
    assert mistakes("children: [{name: nats, actor: router}]") == [
        "x.yaml:1:19: children[0].name: expected a name that the supervisor does not use; found 'nats'"
    ]


@pytest.mark.parametrize(
    ("children", "wrong"),
    [
        (
            "- {name: a, replicas: 3, actor: context}\n- {name: b, first_instance: 2, actor: context}",
            f"x.yaml:3:39: children[1].actor: {_OWN_ADDRESS} context/2, which is also in children[0] (line 2): {_HINT}",
        ),
        (
            "- {actor: router}\n- {name: b, actors: [{actor: router}]}",
            f"x.yaml:3:30: children[1].actors[0].actor: {_OWN_ADDRESS} router/0, which is also in children[0] (line 2): {_HINT}",
        ),
        (
            "- {name: b, actors: [{actor: router}, {actor: router}]}",
            f"x.yaml:2:47: children[0].actors[1].actor: {_OWN_ADDRESS} router/0, which is also in children[0].actors[0] (line 2): {_HINT}",
        ),
    ],
)  # fmt: skip
def test_two_actors_may_not_have_one_address(children: str, wrong: str) -> None:
    assert mistakes(f"children:\n{children}") == [wrong]


def test_a_role_may_be_shared_by_entries_whose_instances_differ() -> None:
    text = (
        "children:\n"
        "- {name: a, replicas: 2, actor: context}\n"
        "- {name: b, replicas: 2, first_instance: 2, actor: context}\n"
        "- {name: none, replicas: 0, actor: context}\n"
    )
    assert mistakes(text) == []


@pytest.mark.parametrize(
    ("restart", "auto_shutdown", "fragments"),
    [
        ("permanent", "never", ["transient or temporary", "auto_shutdown"]),
        ("permanent", "any_significant", ["transient or temporary"]),
        ("temporary", "never", ["auto_shutdown"]),
        ("transient", "all_significant", []),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_significance_needs_a_child_that_may_end_and_a_supervisor_that_minds(
    restart: str, auto_shutdown: str, fragments: list[str], nested: bool
) -> None:
    entry = f"{{actor: router, significant: true, restart: {restart}}}"
    text = f"supervision: {{auto_shutdown: {auto_shutdown}}}\nchildren: [{entry}]"
    if nested:
        text = f"children: [{{name: s, auto_shutdown: {auto_shutdown}, children: [{entry}]}}]"
    told = mistakes(text)
    assert len(told) == len(fragments)
    assert all(fragment in line for fragment, line in zip(fragments, told, strict=True))


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (
            "{actor: router, restart: temporary, standby: 1}",
            "expected restart permanent or transient for an entry with understudies; found temporary",
        ),
        (
            "{actor: ingress, standby: 2}",
            "expected no understudies for an ingress, which takes its port when it loads; found 2: give it replicas and reuse_port",
        ),
    ],
)
def test_understudies_are_refused_where_they_could_not_step_in(entry: str, wrong: str) -> None:
    [found] = mistakes(f"children: [{entry}]")

    assert "children[0].standby: " in found
    assert found.endswith(wrong)


def test_understudies_are_fine_elsewhere() -> None:
    assert mistakes("children: [{actor: context, standby: 2, restart: transient}]") == []


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (
            "options: {engine: {kind: transformers, model: m}}",
            "expected one engine of kind tensorrt_llm for trtllm-llmapi-launch; found transformers",
        ),
        (
            "world: servers, options: {engine: {kind: tensorrt_llm, model: m}}",
            "expected launcher mpi for nodes that share a world; found trtllm-llmapi-launch",
        ),
    ],
)
def test_the_script_of_tensorrt_llm_starts_one_engine_of_its(more: str, wrong: str) -> None:
    [found] = mistakes(f"children: [{{actor: context, launcher: trtllm-llmapi-launch, {more}}}]")

    assert found.endswith(wrong)


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ("world: servers", "expected launcher mpi for nodes that share a world; found local"),
        (
            "options: {engine: {kind: transformers, model: m, tensor_parallel_size: 2}}",
            "expected launcher mpi for tensor_parallel_size 2; found local",
        ),
    ],
)
def test_what_mpirun_has_to_start_is_not_started_without(more: str, wrong: str) -> None:
    [found] = mistakes(f"children: [{{actor: context, launcher: local, {more}}}]")

    assert found.endswith(wrong)
