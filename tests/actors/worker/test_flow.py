"""Sequences that say one plain token a step: what is sent of them and kept."""

from __future__ import annotations

from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.messages.work import Generate
from actors.runtime.address import Address
from actors.worker.flow import Flow
from actors.worker.history import TOKENS_KEPT, Sent
from actors.worker.job import Job, Parcel

ONE, OTHER = Parcel(Address("ingress", 0, 1)), Parcel(Address("ingress", 1, 2))


def job(id_: int, ingress: Address, *, first: int = 0) -> Job:
    key = RequestKey(ingress, 100 + id_, epoch=2)
    work = Generate(key, "r", b"\1\0\0\0", Sampling(max_tokens=10))
    return Job(id_, work, Sent(key, first), Parcel(ingress))


def flowing(*parcels: Parcel) -> tuple[Flow, list[Job]]:
    """A job for each of these parcels, numbered from 1."""
    flow, jobs = Flow(), []
    for id_, parcel in enumerate(parcels, 1):
        jobs.append(job(id_, parcel.ingress))
        jobs[-1].parcel = parcel
        flow.join(jobs[-1])
    return flow, jobs


def test_a_token_of_each_is_put_into_its_parcel_and_kept() -> None:
    one, other = Parcel(ONE.ingress), Parcel(OTHER.ingress)
    flow, jobs = flowing(one, other, one)

    assert flow.take([1, 2, 3], [11, 21, 31]) == 3
    assert flow.take([1, 2, 3], [12, 22, 32]) == 3

    assert one.plain == [101, 2, 0, 11, 103, 2, 0, 31, 101, 2, 1, 12, 103, 2, 1, 32]
    assert other.plain == [102, 2, 0, 21, 102, 2, 1, 22]
    assert [one.history.tokens for one in jobs] == [[11, 12], [21, 22], [31, 32]]
    assert list(flow.parcels) == [one, other]


def test_those_behind_are_left_to_the_caller() -> None:
    flow, [known] = flowing(Parcel(ONE.ingress))

    assert flow.take([1, 7, 8], [11, 71, 81]) == 1
    assert known.history.tokens == [11]


def test_who_leaves_is_not_waited_for() -> None:
    one, other = Parcel(ONE.ingress), Parcel(OTHER.ingress)
    flow, jobs = flowing(one, other, one)

    flow.leave(jobs[0])
    flow.leave(jobs[1])
    flow.leave(jobs[1])

    assert flow.take([3], [31]) == 1
    assert one.plain == [103, 2, 0, 31]
    assert list(flow.parcels) == [one]


def test_when_the_order_is_another_nothing_is_taken_and_all_have_left() -> None:
    one = Parcel(ONE.ingress)
    for ids in ([2, 1], [1], [2], [1, 3, 2], []):
        flow, jobs = flowing(one, one)

        assert flow.take(ids, ids) == 0
        assert len(flow) == 0
        assert not one.plain
        assert not any(one.history.tokens for one in jobs)


def test_histories_are_trimmed_and_offsets_go_on() -> None:
    parcel = Parcel(ONE.ingress)
    flow, [long] = flowing(parcel)
    for token in range(5 * TOKENS_KEPT):
        if not flow.take([1], [token]):
            long.history.tokens.append(token)
            flow.join(long)
        elif token > 1:
            assert parcel.plain[-2:] == [token, token]
        assert len(long.history.tokens) <= 3 * TOKENS_KEPT
        parcel.plain.clear()

    assert long.sent == 5 * TOKENS_KEPT
    assert long.history.first >= TOKENS_KEPT
