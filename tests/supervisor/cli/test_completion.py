from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.commands import NAMES_COMMAND, SHELLS, make_parser
from supervisor.cli.completion import script
from supervisor.cli.grammar import Value, grammar
from supervisor.cli.main import main

COMMANDS = [command.name for command in grammar()]


def complete(tmp_path: Path, *words: str) -> list[str]:
    """What a real bash makes of a Tab behind the last word."""
    path = tmp_path / "completion.bash"
    path.write_text(script("bash"))
    shell = (
        'source "$0"; compopt() { :; }; supervise() { "$PYTHON" -m supervisor "$@"; }\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _supervise\n'
        '((${#COMPREPLY[@]})) && printf "%s\\n" "${COMPREPLY[@]}" || true\n'
    )
    done = subprocess.run(
        ["bash", "-c", shell, str(path), "supervise", *words],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "UNDERSTUDY_STATE_DIR": str(tmp_path / "state"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return sorted(done.stdout.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_accepts_its_script(tmp_path: Path, shell: str) -> None:
    # bash is everywhere; the others are asked where they are.
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    path = tmp_path / "script"
    path.write_text(script(shell))

    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_every_option_is_in_every_script(shell: str) -> None:
    text = script(shell)

    for command in grammar():
        assert re.search(rf"\b{command.name}\b", text)
        for flag in command.flags:
            for name in flag.names:
                long = name.startswith("--")
                in_fish = f"-l {name[2:]} " if long else f"-s {name[1:]} "
                assert (in_fish if shell == "fish" else name) in text


def test_the_hidden_command_is_not_offered() -> None:
    _, commands = make_parser()

    assert NAMES_COMMAND in commands
    assert NAMES_COMMAND not in COMMANDS


def test_what_can_be_guessed_is_known_for_every_positional() -> None:
    positionals = {command.name: command.positional for command in grammar()}

    assert positionals["up"] is Value.TOPOLOGY
    assert positionals["logs"] is Value.CHILD
    assert positionals["scale"] is Value.CHILD
    assert positionals["completion"] is Value.CHOICE
    assert positionals["events"] is Value.NOTHING


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], ["status"]),
        (["completion", ""], sorted(SHELLS)),
        (["status", "--js"], ["--json"]),
        (["top", "--interval", ""], []),
        (["--log-level", "w"], ["warning"]),
        (["up", "--log-level", "e"], ["error"]),
        (["check", "blue"], ["blue.yaml", "blue.yml"]),
        (["restart", ""], []),
    ],
)
def test_a_tab_offers_what_fits(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    for name in ("blue.yaml", "blue.yml", "blue.txt"):
        (tmp_path / name).touch()

    assert complete(tmp_path, *words) == offered


def test_a_first_word_may_be_a_command_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").touch()

    assert complete(tmp_path, "t") == ["t.yaml", "top"]


def test_the_script_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0

    assert capsys.readouterr().out == script("bash")
