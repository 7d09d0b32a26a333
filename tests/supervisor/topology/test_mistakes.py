"""What a user is told, word by word. One line of YAML each; `C` stands for a correct child."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import pytest

from supervisor.topology import TopologyError, read_text, render
from tests.supervisor.topology.files import HERE, NO_ENVIRON, mistakes

_DURATION = 'a duration such as "300ms", "5s", "2m", "1h" or a number of seconds, a year at most'
_ROLES = "ingress, preprocessor, router, context, generation, aggregated"


def child(keys: str) -> str:
    """A file whose only child has these keys after `actor: context`."""
    return f"children:\n- {{actor: context, {keys}}}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("childs: []\nchildren: [{actor: router}]", "x.yaml:1:1: childs: unknown key 'childs'; expected one of namespace, nodes, certificates, nats, etcd, supervision, orphan_timeout, node_timeout, tracing, children (did you mean 'children'?)"),
        ("namespace: a", "x.yaml:1:1: missing key 'children'"),
        ("children: []", "x.yaml:1:11: children: expected a list of length >= 1; found a list"),
        ("children: {a: 1}", "x.yaml:1:11: children: expected a list; found a mapping"),
        ("children: [context]", "x.yaml:1:12: children[0]: expected a mapping; found 'context'"),
        ("just text", "x.yaml:1:1: expected a mapping; found 'just text'"),
        (child("restart: permanant"), "x.yaml:2:29: children[0].restart: expected one of permanent, transient, temporary; found 'permanant' (did you mean 'permanent'?)"),
        (child("restart: 5"), "x.yaml:2:29: children[0].restart: expected one of permanent, transient, temporary; found 5"),
        (child("replica: 2"), "x.yaml:2:20: children[0].replica: unknown key 'replica'; expected one of replicas, first_instance, standby, restart, significant, start_deadline, drain, shutdown, backoff, launcher, world, fork, watchdog, max_failures, surge, nice, cpus, memory, gpus, open_files, env, cwd, node, actor, name, role, options (did you mean 'replicas'?)"),
        (child("replicas: two"), "x.yaml:2:30: children[0].replicas: expected an integer; found 'two'"),
        (child("replicas: -1"), "x.yaml:2:30: children[0].replicas: expected an integer >= 0; found -1"),
        (child("replicas: true"), "x.yaml:2:30: children[0].replicas: expected an integer; found true"),
        (child("name: Context"), "x.yaml:2:26: children[0].name: expected a name of lower-case letters, digits, - and _, a letter first, 63 at most; found 'Context'"),
        (child("drain: 5 s"), f"x.yaml:2:27: children[0].drain: expected {_DURATION}; found '5 s'"),
        (child("shutdown: never"), f"x.yaml:2:30: children[0].shutdown: expected infinity, brutal_kill or {_DURATION}; found 'never'"),
        (child("backoff: {initial: 1m}"), "x.yaml:2:29: children[0].backoff: expected max to be at least initial"),
        (child("backoff: {factor: 0.5}"), "x.yaml:2:38: children[0].backoff.factor: expected a number >= 1.0; found 0.5"),
        (child("env: {A B: 1}"), "x.yaml:2:26: children[0].env.A B: expected the name of an environment variable; found 'A B'"),
        (child("env: {A: [1]}"), "x.yaml:2:29: children[0].env.A: expected an integer or a number or a string; found a list"),
        (child("options: [1]"), "x.yaml:2:29: children[0].options: expected a mapping or null; found a list"),
        ("supervision: {period: 0s}\n" + child(""), "x.yaml:1:23: supervision.period: expected a number > 0.0; found 0.0"),
        ("supervision: {strategy: one_for_al}\n" + child(""), "x.yaml:1:25: supervision.strategy: expected one of one_for_one, one_for_all, rest_for_one; found 'one_for_al' (did you mean 'one_for_all'?)"),
        ("namespace: My Service\n" + child(""), "x.yaml:1:12: namespace: expected a namespace of lower-case letters, digits and -, 63 at most; found 'My Service'"),
        ("children: [{actr: context}]", "x.yaml:1:13: children[0].actr: expected one of actor, actors, disaggregated_config, children; found 'actr' (did you mean 'actor'?)"),
        ("children: [{name: a}]", "x.yaml:1:12: children[0]: expected one of actor, actors, disaggregated_config, children; found none of them"),
        ("children: [{actor: context, children: []}]", "x.yaml:1:29: children[0].children: expected only one of actor, actors, disaggregated_config, children; found actor and children"),
        ("children: [{name: a, replicas: 2, children: [{actor: context}]}]", "x.yaml:1:22: children[0].replicas: unknown key 'replicas'; expected one of strategy, intensity, period, auto_shutdown, name, restart, significant, node, children"),
        ("children: [{actors: [{actor: context}]}]", "x.yaml:1:12: children[0]: missing key 'name'"),
        ("children: [{actor: contxt}]", f"x.yaml:1:20: children[0].actor: expected a built-in role ({_ROLES}) or package.module:Class; found 'contxt' (did you mean 'context'?)"),
        ("children: [{actor: 'mine:Own'}]", "x.yaml:1:20: children[0].actor: expected a name for mine:Own, as no built-in role gives one; found none"),
        ("children: [{name: n, actors: [{actor: 'mine:Own'}]}]", "x.yaml:1:39: children[0].actors[0].actor: expected a role for mine:Own, as no built-in role gives one; found none"),
        (child("name: ${WHO}"), "x.yaml:2:27: expected ${...} in quotes, as it stands between {} or []"),
        (child("name: '${WHO}'"), "x.yaml:2:26: children[0].name: expected environment variable WHO, or a default; found it unset"),
        ("children:\n\t- actor: context", "x.yaml:2:1: expected spaces; found a tab, which is no space in YAML"),
        (child("name: a, name: b"), "x.yaml:2:29: children[0].name: duplicate key 'name'; found first on line 2"),
    ],
)  # fmt: skip
def test_a_mistake_is_told(text: str, line: str) -> None:
    assert mistakes(text) == [line]


def test_all_mistakes_of_a_file_are_told_in_its_order() -> None:
    text = (
        "nats: ftp://x\n"
        "etcd: embeded\n"
        "children:\n"
        "- {actor: context, replicas: x, drain: y}\n"
        "- {name: s, intensty: 1, children: [{actor: rooter}]}\n"
        "- {actor: context}\n"
    )
    told = [line.partition(": ")[0] for line in mistakes(text)]
    assert told == ["x.yaml:1:7", "x.yaml:2:7", "x.yaml:4:30", "x.yaml:4:40", "x.yaml:5:13", "x.yaml:5:45"]  # fmt: skip


def test_an_anchor_used_twice_is_wrong_once() -> None:
    text = "x-b: &b {factor: 0}\nchildren:\n- {actor: context, backoff: *b}\n- {actor: router, backoff: *b}"
    assert mistakes(text) == [
        "x.yaml:1:18: children[0].backoff.factor: expected a number >= 1.0; found 0"
    ]


def test_a_rendered_mistake_shows_its_line_and_column() -> None:
    text = "children:\n  - actor: context\n    restart: permanant\n"
    with pytest.raises(TopologyError) as caught:
        read_text(text, HERE, environ=NO_ENVIRON)
    expected = (
        "/srv/x.yaml:3:14: children[0].restart: expected one of permanent, transient, temporary;"
        " found 'permanant' (did you mean 'permanent'?)\n"
        "    3 |     restart: permanant\n"
        "      |              ^"
    )
    assert render(caught.value, text) == expected
    assert render(caught.value) == expected


def test_a_caret_stands_under_its_character_behind_tabs_too() -> None:
    text = 'children: [{cwd: "a\t", actor: contxt}]'
    with pytest.raises(TopologyError) as caught:
        read_text(text, HERE, environ=NO_ENVIRON)
    assert render(caught.value).splitlines()[-1] == "      | " + " " * 19 + "\t" + " " * 10 + "^"


def test_a_mistake_outside_the_file_is_rendered_without_a_line() -> None:
    with pytest.raises(TopologyError) as caught:
        read_text("children: [{actor: context}]", HERE, environ={"NATS_SERVER": "ftp://x"})
    assert render(caught.value) == str(caught.value)


@pytest.mark.parametrize("key", ["password", "token"])
def test_a_secret_is_not_shown(key: str) -> None:
    text = f"nats: {{urls: [a], user: u, {key}: '${{SECRET}}'}}\n".replace("'", '"')
    (line, *_) = mistakes(text + child(""), environ={"SECRET": "31337"})
    assert "31337" not in line
    assert "in single quotes" in line
