from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from actors.runtime.pids import is_alive
from supervisor.launchers.local import Exit, LocalProcess

DEADLINE_S = 20.0

pytestmark = pytest.mark.process


async def launch(
    tmp_path: Path, script: str, **env: str
) -> tuple[LocalProcess, asyncio.Future[Exit]]:
    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    process = LocalProcess.spawn(
        (sys.executable, "-c", script),
        env={**os.environ, **env},
        cwd=tmp_path,
        log=tmp_path / "log",
        on_exit=ended.set_result,
    )
    return process, ended


async def run(tmp_path: Path, script: str, **env: str) -> Exit:
    _, ended = await launch(tmp_path, script, **env)
    return await asyncio.wait_for(ended, DEADLINE_S)


async def said(path: Path, *, of: LocalProcess) -> str:
    """What the process wrote to a FIFO, which it does when it is as far as the test needs it."""
    assert of.pid
    return await asyncio.to_thread(path.read_text)


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("pass", Exit(code=0)),
        ("raise SystemExit(73)", Exit(code=73)),
        ("import os; os.kill(os.getpid(), 11)", Exit(signal=11)),
    ],
)
def test_an_exit_is_told_as_it_was(tmp_path: Path, script: str, ending: Exit) -> None:
    assert asyncio.run(run(tmp_path, script)) == ending


def test_both_outputs_go_to_the_log_after_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    script = "import os, sys; print(os.getcwd(), os.environ['X']); sys.stderr.write('oops')"

    asyncio.run(run(tmp_path, script, X="x", PYTHONUNBUFFERED="1"))

    assert (tmp_path / "log").read_text() == f"before\n{tmp_path} x\noops"


def test_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    """So the terminal's Ctrl-C is not for it."""
    asyncio.run(run(tmp_path, "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"))

    assert (tmp_path / "log").read_text() == "True\n"


def test_a_stop_can_be_handled_and_a_kill_cannot(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('fifo', 'w').write('deaf')\n"
        "signal.pause(); signal.pause()"
    )

    async def scenario() -> Exit:
        process, ended = await launch(tmp_path, script)
        assert await said(fifo, of=process) == "deaf"
        process.send(signal.SIGTERM)
        process.kill()
        return await asyncio.wait_for(ended, DEADLINE_S)

    assert asyncio.run(scenario()) == Exit(signal=signal.SIGKILL)


def test_what_a_process_started_itself_ends_with_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "open('fifo', 'w').write(str(child.pid))"
    )

    async def scenario() -> int:
        process, ended = await launch(tmp_path, script)
        grandchild = int(await said(fifo, of=process))
        pidfd = os.pidfd_open(grandchild)
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        assert await asyncio.wait_for(ended, DEADLINE_S) == Exit(code=0)
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
        loop.remove_reader(pidfd)
        os.close(pidfd)
        return process.pid

    asyncio.run(scenario())


def test_orders_after_the_end_do_nothing(tmp_path: Path) -> None:
    async def scenario() -> bool:
        process, ended = await launch(tmp_path, "pass")
        await asyncio.wait_for(ended, DEADLINE_S)
        process.send(signal.SIGTERM)
        process.kill()
        return is_alive(process.pid, process.started)

    assert asyncio.run(scenario()) is False


def test_what_cannot_be_executed_is_an_error_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        LocalProcess.spawn(
            ("no-such-program",),
            env={},
            cwd=tmp_path,
            log=tmp_path / "log",
            on_exit=lambda _: None,
        )

    with pytest.raises(FileNotFoundError):
        asyncio.run(scenario())
