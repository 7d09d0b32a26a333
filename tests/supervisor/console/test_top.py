from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import events
from supervisor.calls import Status
from supervisor.console.columns import bar
from supervisor.console.paint import Paint
from supervisor.console.text import cells
from supervisor.console.top import last_skip, render_top
from tests.supervisor.rows import actor, row, status

NO_DEADLINE = settings(deadline=None)  # the machine may be busy
PLAIN = Paint(colours=False)
FELL = events.ChildEnded(
    at=1060.0, id="context/0", run=1, reason="killed by SIGKILL", expected=False, log=""
)


def service(clock_s: float, tokens: float, cpu_s: float) -> Status:
    return status(
        row("supervisor/plane", is_supervisor=True),
        row("nats", "supervisor/plane", pid=1, cpu_s=cpu_s, memory_bytes=12_000_000),
        row(
            "context/0",
            pid=2,
            cpu_s=2 * cpu_s,
            memory_bytes=340_000_000,
            restarts=1,
            beat_age_s=0.2,
            lag_s=0.002,
            actors=(
                actor("context/0", mailbox=0, running=3, waiting=1, kv_used=0.44, tokens=tokens),
            ),
        ),
        row("generation/0", state="restarting", restarts=4),
        row(
            "front/0",
            pid=3,
            beat_age_s=0.2,
            lag_s=0.3,
            actors=(
                actor("ingress/0", mailbox=0, open=4, requests=tokens / 10),
                actor("router/0", mailbox=2, depth=7),
            ),
        ),
        clock_s=clock_s,
        web="http://127.0.0.1:9090",
    )


BEFORE, NOW = service(10.0, 100, 1.0), service(12.0, 340, 1.5)

FRAME = """\
blue  running  up 1 min 5 s  3/4 up  5 restarts  75% cpu  352 MB  120 tok/s  12 req/s  4 open
http://127.0.0.1:8080/v1  page http://127.0.0.1:9090  capitals

NAME             STATE       RST   CPU%     MEM   MBOX   OPEN    RUN   WAIT  KV USED        TOK/S  REQ/S     LAG
supervisor       running       0
├─ plane         running       0
│  └─ nats       running       0     25   12 MB
├─ context/0     running       1     50  340 MB      0             3      1  ███▌····  44%    120            2ms
├─ generation/0  restarting    4
└─ front/0       running       0                                                                           300ms
    · ingress/0                                      0      4                                         12
    · router/0                                       2  depth 7

"""  # noqa: E501 - the frame is as wide as that


def frame(width: int = 120, height: int | None = None, skip: int = 0) -> list[str]:
    return render_top(
        BEFORE, NOW, [FELL], now=1065.0, width=width, height=height, paint=PLAIN, skip=skip
    )


def test_a_frame_shows_the_tree_its_rates_and_what_happened() -> None:
    lines = [line.rstrip() for line in frame()]

    assert lines[:-1] == FRAME.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  context/0              ended: killed by SIGKILL", lines[-1]
    )


@NO_DEADLINE
@given(width=st.integers(1, 200), height=st.integers(1, 60), skip=st.integers(0, 20))
def test_a_frame_fits_every_screen(width: int, height: int, skip: int) -> None:
    lines = frame(width, height, skip)

    assert len(lines) <= height
    assert max(cells(line) for line in lines) <= width


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_screen_still_has_names_and_states(width: int) -> None:
    text = "\n".join(frame(width))

    for name in ("context/0", "generation/0", "· router/0"):
        assert name in text
    assert "restarting" in text


def test_of_a_tree_too_high_for_the_screen_the_rest_is_announced_and_scrolled_to() -> None:
    lines = frame(height=10)
    assert any("more below" in line for line in lines)
    assert not any("router/0" in line for line in lines)

    scrolled = frame(height=10, skip=last_skip(NOW, 1, 10))

    assert any("router/0" in line for line in scrolled)
    assert not any("more below" in line for line in scrolled)


def test_a_screen_that_is_high_enough_does_not_scroll() -> None:
    assert last_skip(NOW, 1, 60) == 0


def test_columns_that_nobody_fills_are_left_out_for_what_actors_tell_themselves() -> None:
    now = status(row("w/0", lag_s=0.001, actors=(actor("w/0", mailbox=0, temperature=21.5),)))

    lines = render_top(None, now, [], now=1065.0, width=80, height=None, paint=PLAIN)

    assert lines[3].split() == ["NAME", "STATE", "RST", "CPU%", "MEM", "MBOX", "LAG"]
    assert lines[-1].endswith("1ms  temperature 21.5")


def test_a_column_stays_while_the_only_one_that_filled_it_is_down() -> None:
    before = status(row("w/0", actors=(actor("w/0", running=1),)))
    now = status(row("w/0", state="restarting"))

    lines = render_top(before, now, [], now=1065.0, width=80, height=None, paint=PLAIN)

    assert "RUN" in lines[3]


def test_the_first_look_knows_no_rates() -> None:
    [head, *_] = render_top(None, NOW, [], now=1065.0, width=120, height=None, paint=PLAIN)

    assert "tok/s" not in head
    assert "cpu" not in head


def test_colours_change_nothing_but_the_colours() -> None:
    painted = render_top(
        BEFORE, NOW, [FELL], now=1065.0, width=120, height=None, paint=Paint(colours=True)
    )

    assert painted != frame()
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in painted] == frame()


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0, "····"), (1, "████"), (0.5, "██··"), (0.28, "█▏··"), (-1, "····"), (7, "████")],
)
def test_a_bar_is_drawn_in_eighths(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
