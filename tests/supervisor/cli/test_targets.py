from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.cli.arguments import parse
from supervisor.cli.targets import NoTargetError, choose
from supervisor.layout import Layout
from supervisor.runstate import Lock, this_process


@contextmanager
def held(base: Path, namespace: str) -> Iterator[None]:
    layout = Layout(base / namespace, {})
    layout.create()
    lock = Lock(layout.lock, this_process(namespace, Path(f"{namespace}.yaml")))
    try:
        yield
    finally:
        lock.release()


def chosen(base: Path, *words: str) -> str:
    return choose(parse(["status", *words]), {"UNDERSTUDY_STATE_DIR": str(base)}).state.name


def test_the_only_one_that_runs_is_meant(tmp_path: Path) -> None:
    Layout(tmp_path / "stopped", {}).create()
    with held(tmp_path, "blue"):
        assert chosen(tmp_path) == "blue"


def test_of_several_one_has_to_be_named(tmp_path: Path) -> None:
    with held(tmp_path, "blue"), held(tmp_path, "green"):
        with pytest.raises(NoTargetError, match=r"(?s)--namespace NAME.*blue.*green"):
            chosen(tmp_path)

        assert chosen(tmp_path, "--namespace", "green") == "green"


def test_of_several_nodes_of_a_namespace_one_has_to_be_named(tmp_path: Path) -> None:
    with held(tmp_path, "blue@left"), held(tmp_path, "blue@right"):
        with pytest.raises(NoTargetError, match=r"(?s)--node NAME.*left.*right"):
            chosen(tmp_path, "--namespace", "blue")

        assert chosen(tmp_path, "--node", "right") == "blue@right"
    with held(tmp_path, "blue@left"):
        assert chosen(tmp_path, "--namespace", "blue") == "blue@left"


def test_a_file_means_its_namespace(tmp_path: Path) -> None:
    topology = tmp_path / "t.yaml"
    topology.write_text("namespace: green\nchildren: [{actor: router}]\n")
    with held(tmp_path, "blue"), held(tmp_path, "green"):
        assert chosen(tmp_path, str(topology)) == "green"
        assert chosen(tmp_path, str(topology), "--namespace", "blue") == "blue"


def test_when_the_named_one_does_not_run_those_that_do_are_listed(tmp_path: Path) -> None:
    with held(tmp_path, "blue"), pytest.raises(NoTargetError, match=r"(?s)'red'; these do:.*blue"):
        chosen(tmp_path, "--namespace", "red")


def test_when_nothing_runs_it_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(NoTargetError, match="supervise FILE"):
        chosen(tmp_path)
