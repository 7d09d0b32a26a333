"""`supervise models`: what is written, and what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.calls import ModelName
from supervisor.cli.main import main
from supervisor.cli.models import render


@pytest.mark.parametrize(
    "words",
    [
        ("list", "chat"),
        ("add", "chat", "name"),
        ("add",),
        ("remove", "chat"),
        ("remove", "chat", "name", "target"),
    ],
)
def test_words_too_many_or_too_few_are_wrong_usage(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *words]) == 2
    assert f"usage: supervise models {words[0]}" in capsys.readouterr().err


def test_without_a_supervisor_there_is_nobody_to_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "list", "--state-dir", str(tmp_path)]) == 3
    assert "no supervisor runs" in capsys.readouterr().err


def test_names_are_shown_with_what_they_stand_for() -> None:
    names = [
        ModelName(name="fast", kinds=("chat",), target="gone", served=False),
        ModelName(
            name="org/model",
            kinds=("chat", "completion"),
            workers=("context/0", "generation/0"),
            served=True,
        ),
    ]

    assert render(names) == [
        "NAME       FOR              STANDS FOR",
        "fast       chat             gone (no worker has it)",
        "org/model  chat completion  itself, on context/0, generation/0",
    ]
    assert render([]) == ["no model is served, and no name was added"]
