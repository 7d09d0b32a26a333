"""How a supervisor asks its nodes what they count."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.runtime.link import MEASURED_POINTS, Link, Measure, Measured, measured
from actors.runtime.metrics import Family, Metrics, Point
from supervisor import events, measuring
from supervisor.measuring import Asking, Gathered


def family(name: str, points: int) -> Family:
    return Family(
        name=name,
        kind="gauge",
        help="Help.",
        labels=("x",),
        points=tuple(Point((str(number),), 1.0) for number in range(points)),
    )


def test_a_long_answer_travels_in_notes_that_are_not() -> None:
    families = [family("a", 10), family("b", MEASURED_POINTS), family("c", 500), family("d", 400)]

    notes = list(measured(7, families))

    assert [[one.name for one in note.families] for note in notes] == [["a"], ["b"], ["c", "d"]]
    assert [note.last for note in notes] == [False, False, True]
    assert {note.number for note in notes} == {7}


def test_a_node_that_counts_nothing_answers_too() -> None:
    assert list(measured(1, [])) == [Measured(1, (), last=True)]


async def test_an_answer_of_several_notes_is_put_together(tmp_path: Path) -> None:
    asking = Asking()
    families = [family(name, MEASURED_POINTS) for name in "abc"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node = Link(reader, writer)
        note = await node.hear()
        assert isinstance(note, Measure)
        for part in measured(note.number, families):
            node.say(part)
        await node.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    link = await Link.connect(tmp_path / "s")
    asked = asyncio.create_task(asking.ask(link))
    for _ in families:
        note = await link.hear()
        assert isinstance(note, Measured)
        asking.hear(note)

    assert await asked == tuple(families)
    await link.close()
    server.close()
    await server.wait_closed()


async def test_a_node_that_does_not_answer_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "ANSWER_TIMEOUT_S", 0.01)
    asking = Asking()
    server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), tmp_path / "s")
    link = await Link.connect(tmp_path / "s")

    assert await asking.ask(link) is None
    asking.hear(Measured(1, (family("late", 1),), last=True))  # harms nobody

    await link.close()
    server.close()
    await server.wait_closed()


def counted(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    [found] = [one for one in metrics.collect() if one.name == name]
    return {point.labels: point.value for point in found.points}


def test_restarts_are_counted_by_what_made_them_necessary() -> None:
    gathered = Gathered()

    def ended(cause: str) -> events.ChildEnded:
        return events.ChildEnded(id="a/0", run=1, reason="", cause=cause, expected=False, log="")

    starting = events.ChildStarting(id="a/0", run=1, pid=1)
    for event in (starting, ended("killed"), starting, ended("watchdog"), starting, ended("x")):
        gathered.tell(event)

    restarts = counted(gathered.metrics, "understudy_child_restarts_total")
    assert restarts == {("a/0", "killed"): 1, ("a/0", "watchdog"): 1}
