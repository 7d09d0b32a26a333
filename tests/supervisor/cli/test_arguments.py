from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.arguments import parse
from supervisor.cli.examples import EXAMPLES
from supervisor.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["t.yaml"],
        ["up", "t.yaml"],
        ["t.yaml", "--port", "81", "--set", "a.b=1", "--set", "c=2"],
        ["--port", "81", "--set", "a.b=1", "t.yaml", "--set", "c=2"],
        ["up", "--port", "81", "--set", "a.b=1", "--set", "c=2", "t.yaml"],
    ],
)
def test_a_file_alone_is_brought_up(words: list[str]) -> None:
    options = parse(words)

    assert (options.command, options.file) == ("up", Path("t.yaml"))
    if "--port" in words:
        assert (options.port, options.sets) == (81, ["a.b=1", "c=2"])


@pytest.mark.parametrize(
    ("words", "port"),
    [
        (["t.yaml"], None),
        (["t.yaml", "--web"], 0),
        (["--web", "t.yaml"], 0),
        (["up", "--web", "t.yaml"], 0),
        (["--web", "81", "t.yaml"], 81),
        (["t.yaml", "--web=81"], 81),
        (["t.yaml", "--web", "--port", "80"], 0),
    ],
)
def test_the_port_of_the_page_may_be_left_out(words: list[str], port: int | None) -> None:
    options = parse(words)

    assert (options.command, options.file, options.web) == ("up", Path("t.yaml"), port)


@pytest.mark.parametrize(
    "words",
    [
        ["t.yaml", "--web", "70000"],
        ["top", "--interval", "0"],
        ["top", "--interval", "nan"],
        ["logs", "-n", "-1"],
        ["scale", "hello", "-1"],
    ],
)
def test_a_number_that_makes_no_sense_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(words)

    assert left.value.code == 2
    if "-1" in words:  # the same of replicas as of lines
        assert "-1 is less than 0" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status", "--namespace", "b"], ["--namespace", "b", "status"]])
def test_a_command_may_come_after_the_global_options(words: list[str]) -> None:
    options = parse(words)

    assert (options.command, options.namespace) == ("status", "b")


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_the_help_of_every_command_has_examples_that_can_be_read(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])

    shown = capsys.readouterr().out
    assert left.value.code == 0
    lines = re.findall(r"^  supervise (.*)$", shown, re.MULTILINE)
    commands = [parse(shlex.split(re.split(r"\s+[#|<>]", line)[0])).command for line in lines]
    assert commands[0] == command


@pytest.mark.parametrize("words", [[], ["up"], ["status", "--bogus"], ["t.yaml", "--port", "x"]])
def test_wrong_usage_leaves_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)

    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["status"],
        ["version"],
        ["check", "no-such-file"],
        ["completion", "bash"],
        ["names", "children"],
        ["top"],
    ],
)
def test_small_commands_import_nothing_that_speaks_to_a_network(
    tmp_path: Path, words: list[str]
) -> None:
    """They answer at once because of it."""
    script = (
        "import sys\n"
        "from supervisor.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'aetcd', 'nats', 'aiohttp', 'structlog', 'uvloop'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "UNDERSTUDY_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "heavy: []"
