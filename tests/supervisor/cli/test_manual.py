from __future__ import annotations

import re

import pytest

from supervisor.cli.grammar import grammar
from supervisor.cli.main import main
from supervisor.cli.manual import MANUALS

COMMANDS = [command.name for command in grammar()]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_the_parts_of_a_manual_page(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = help_of(command, capsys)

    assert shown.startswith(f"usage: supervise {command} ")
    parts = re.findall(r"^(usage|options|exit codes|environment|examples?):", shown, re.MULTILINE)
    expected = ["usage", "options", "exit codes"]
    expected += ["environment"] if MANUALS[command].environment else []
    assert [part.removesuffix("s") for part in parts] == [
        part.removesuffix("s") for part in [*expected, "example"]
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_of_a_manual_is_too_wide_to_read(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")

    assert max(map(len, help_of(command, capsys).splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_success_is(command: str) -> None:
    codes = [code for code, _ in MANUALS[command].exits]

    assert codes == sorted(set(codes))
    assert codes[0] == 0
