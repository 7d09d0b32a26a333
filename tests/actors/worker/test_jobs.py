"""Jobs: from what arrives at a worker and what its engine says to what is sent."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.engines.base import Finish, Handoff, Output, Outputs
from actors.messages.frame import PLAIN_FIELDS, Chunk, Frame
from actors.messages.key import RequestKey
from actors.messages.sampling import Sampling
from actors.messages.work import Decode, Fetched, Generate, Prefill
from actors.runtime.address import Address
from actors.worker.job import FRAME_TOKENS, Job, Work
from actors.worker.jobs import Jobs, Step, failure

ME = Address("context", 0, 3)
OTHER = Address("generation", 0, 4)
INGRESSES = (Address("ingress", 0, 1), Address("ingress", 1, 2))
SAMPLING = Sampling(max_tokens=10)
PROMPT = b"\1\0\0\0\2\0\0\0"


def key(number: int = 1, epoch: int = 0, ingress: Address = INGRESSES[0]) -> RequestKey:
    return RequestKey(ingress, number, epoch)


def chunks_of(jobs: Jobs) -> dict[Address, list[Chunk]]:
    """What is ready to be sent, which has to be a frame for each ingress without plain tokens."""
    frames = jobs.take_frames(ME)
    assert not any(frame.plain for _, frame in frames)
    assert len(dict(frames)) == len(frames)
    return {ingress: frame.chunks for ingress, frame in frames}


def generate(of: RequestKey) -> Generate:
    return Generate(of, "r", PROMPT, SAMPLING)


def prefill(of: RequestKey) -> Prefill:
    return Prefill(of, "r", PROMPT, SAMPLING, OTHER, resumed=1)


def decode(of: RequestKey) -> Decode:
    return Decode(of, "r", PROMPT, SAMPLING, OTHER, 77, b"ticket")


def added(jobs: Jobs, work: Work) -> int:
    """Take work on; the number the engine knows it by."""
    request, _ = jobs.add(work)
    assert request is not None
    return request.id


def test_a_whole_request_becomes_a_request_for_the_engine() -> None:
    request, superseded = Jobs().add(generate(key()))

    assert request is not None
    assert (request.phase, request.handoff, request.prompt) == ("whole", None, PROMPT)
    assert superseded == []


def test_a_decode_carries_the_handoff_and_counts_the_first_token_as_sent() -> None:
    jobs = Jobs()
    request, _ = jobs.add(decode(key()))
    assert request is not None

    jobs.step(Outputs([Output(request.id, [78])]), OTHER)

    assert (request.phase, request.handoff) == ("decode", Handoff(77, b"ticket"))
    assert chunks_of(jobs) == {INGRESSES[0]: [Chunk(1, 0, 1, [78])]}


def test_a_finished_prefill_sends_its_token_and_hands_the_sequence_over() -> None:
    jobs = Jobs()
    number = added(jobs, prefill(key()))

    step = jobs.step(
        Outputs([Output(number, [77], handoff=Handoff(77, b"ticket"), cached_tokens=1)]), ME
    )

    assert chunks_of(jobs) == {
        INGRESSES[0]: [Chunk(1, 0, 0, [77], cached_tokens=1, prompt_tokens=2)]
    }
    assert step.decodes == [
        (OTHER, Decode(key(), "r", PROMPT, SAMPLING, ME, 77, b"ticket", resumed=1))
    ]
    assert jobs.find(key()) is not None, "its blocks are kept until they are fetched"


def test_a_prefill_that_nobody_fetches_in_time_ends_without_another_chunk() -> None:
    jobs = Jobs()
    number = added(jobs, prefill(key()))
    jobs.step(Outputs([Output(number, [77], handoff=Handoff(77, b"ticket"))]), ME)
    jobs.take_frames(ME)

    step = jobs.step(Outputs([Output(number, [], finish=Finish.CANCELLED)]), ME)

    assert step == Step()
    assert jobs.take_frames(ME) == []
    assert len(jobs) == 0


def test_a_prefill_whose_first_token_ends_the_sequence_hands_nothing_over() -> None:
    jobs = Jobs()
    number = added(jobs, prefill(key()))

    step = jobs.step(Outputs([Output(number, [], finish=Finish.STOP)]), ME)

    assert chunks_of(jobs) == {INGRESSES[0]: [Chunk(1, 0, 0, [], "stop", prompt_tokens=2)]}
    assert step.decodes == []
    assert len(jobs) == 0
    assert jobs.take_unneeded() == [(key(), prefill(key()).generation)]
    assert jobs.take_unneeded() == []


def test_a_generation_worker_is_waited_for_after_a_handoff_and_not_after_an_early_end() -> None:
    jobs = Jobs()
    handed = added(jobs, prefill(key(1)))
    added(jobs, prefill(key(2)))
    added(jobs, generate(key(3)))

    jobs.step(Outputs([Output(handed, [7], handoff=Handoff(7, b"t"))]), ME)
    for number in (1, 2, 3):
        job = jobs.find(key(number))
        assert job is not None
        jobs.drop(job)

    assert [one for one, _ in jobs.take_unneeded()] == [key(2)]


def test_fetched_blocks_are_reported_to_the_context_worker_without_a_chunk() -> None:
    jobs = Jobs()
    number = added(jobs, decode(key()))

    step = jobs.step(Outputs([Output(number, [], fetched=True)]), ME)

    assert jobs.take_frames(ME) == []
    assert step.decodes == []
    assert step.fetched == [(OTHER, Fetched(key()))]


def test_a_decode_that_fails_before_the_fetch_lets_the_blocks_go() -> None:
    jobs = Jobs()
    number = added(jobs, decode(key()))

    step = jobs.step(Outputs([Output(number, [], finish=Finish.ERROR, error="no route")]), ME)

    assert chunks_of(jobs) == {INGRESSES[0]: [Chunk(1, 0, 1, [], "error", "no route")]}
    assert step.fetched == [(OTHER, Fetched(key()))]


def test_one_step_makes_one_list_of_chunks_for_each_ingress() -> None:
    jobs = Jobs()
    numbers = [added(jobs, generate(key(n, ingress=INGRESSES[n % 2]))) for n in range(6)]

    jobs.step(Outputs([Output(number, [number]) for number in numbers]), ME)

    assert {ingress: len(chunks) for ingress, chunks in chunks_of(jobs).items()} == {
        INGRESSES[0]: 3,
        INGRESSES[1]: 3,
    }


def test_tokens_with_nothing_else_to_say_go_without_a_chunk_each() -> None:
    jobs = Jobs()
    numbers = [added(jobs, generate(key(n, n, ingress=INGRESSES[n % 2]))) for n in range(4)]
    jobs.step(Outputs([Output(number, [1]) for number in numbers]), ME)
    jobs.take_frames(ME)

    jobs.step(Outputs([Output(number, [number * 10]) for number in numbers]), ME)

    assert jobs.take_frames(ME) == [
        (INGRESSES[0], Frame(ME, [], [0, 0, 1, 10, 2, 2, 1, 30])),
        (INGRESSES[1], Frame(ME, [], [1, 1, 1, 20, 3, 3, 1, 40])),
    ]
    jobs.step(Outputs([Output(numbers[0], [7], finish=Finish.LENGTH)]), ME)
    assert jobs.take_frames(ME) == [(INGRESSES[0], Frame(ME, [Chunk(0, 0, 2, [7], "length")]))]
    assert jobs.again(key(1, 1, INGRESSES[1]), 0) == Chunk(1, 1, 0, [1, 20], prompt_tokens=2)


def test_several_steps_are_sent_together_in_the_order_of_each_sequence() -> None:
    jobs = Jobs()
    one, two = (added(jobs, generate(key(n))) for n in (1, 2))
    jobs.step(Outputs([Output(one, [10])]), ME)
    jobs.step(Outputs([Output(two, [20])], [one, 11]), ME)
    jobs.step(Outputs([], [one, 12, two, 21]), ME)
    jobs.step(Outputs([Output(one, [13, 14])], [two, 22]), ME)
    jobs.step(Outputs([Output(two, [], finish=Finish.STOP)], [one, 15]), ME)

    begun, ended = [frame for _, frame in jobs.take_frames(ME)]

    assert [chunk.tokens for chunk in begun.chunks] == [[10], [20]]
    assert begun.plain[3::4] == [11, 12, 21, 22]
    assert [(c.number, c.offset, c.tokens, c.finish) for c in ended.chunks] == [
        (1, 3, [13, 14], ""),
        (2, 3, [], "stop"),
        (1, 5, [15], ""),
    ]
    jobs.step(Outputs([], [one, 16]), ME)
    assert jobs.take_frames(ME) == [(INGRESSES[0], Frame(ME, [], [1, 0, 6, 16]))]


def test_many_tokens_are_sent_in_frames_of_a_limited_size() -> None:
    jobs = Jobs()
    number = added(jobs, generate(key()))
    jobs.step(Outputs([Output(number, [0])]), ME)
    for token in range(2 * FRAME_TOKENS + 1):
        jobs.step(Outputs([], [number, token]), ME)

    frames = [frame for _, frame in jobs.take_frames(ME)]

    sizes = [(len(frame.chunks), len(frame.plain) // PLAIN_FIELDS) for frame in frames]
    assert sizes == [(1, 0), (0, FRAME_TOKENS), (0, FRAME_TOKENS), (0, 1)]
    tokens = [token for frame in frames[1:] for token in frame.plain[3::4]]
    assert tokens == list(range(2 * FRAME_TOKENS + 1))


def test_a_repeat_and_an_older_attempt_are_passed_over() -> None:
    jobs = Jobs()
    jobs.add(generate(key(epoch=2)))

    assert jobs.add(generate(key(epoch=2))) == (None, [])
    assert jobs.add(generate(key(epoch=1))) == (None, [])
    assert len(jobs) == 1


def test_a_later_attempt_supersedes_the_one_here() -> None:
    jobs = Jobs()
    first = added(jobs, generate(key(epoch=0)))

    request, superseded = jobs.add(generate(key(epoch=1)))

    assert superseded == [first]
    assert request is not None
    assert jobs.find(key(epoch=0)) is None
    assert jobs.find(key(epoch=1)) is not None


def test_a_failure_ends_the_attempt_after_what_was_sent() -> None:
    assert failure(key(7, 3), 1, "gone") == Chunk(7, 3, 1, [], "error", "gone")


class Interleaving(RuleBasedStateMachine):
    """Work, repeats, later attempts, cancels, lost ingresses and engine outputs in any order: the
    chunks of every attempt follow each other without gap, and at most the last one is final."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = Jobs()
        self.live: dict[int, Work] = {}
        """As an engine would know them; cancelled ones may still say something."""
        self.cancelled: list[int] = []
        self.handed_off: set[int] = set()
        self.sent: dict[RequestKey, int] = {}
        self.said: dict[RequestKey, list[int]] = {}
        """All tokens from here, whether they are sent already or not."""
        self.first: dict[RequestKey, int] = {}
        self.flowing: list[int] = []
        """Those of the last step in which an engine had nothing but plain tokens, in order."""
        self.tokens = 0
        self.final: set[RequestKey] = set()

    @rule(
        number=st.integers(0, 3),
        epoch=st.integers(0, 3),
        ingress=st.sampled_from(INGRESSES),
        make=st.sampled_from([generate, prefill, decode]),
    )
    def work(self, number: int, epoch: int, ingress: Address, make: type[Work]) -> None:
        of = key(number, epoch, ingress)
        if of in self.sent:
            # Such a message may come twice while the attempt is here; afterwards its sender, who
            # sends each once, is told apart from a newcomer by nobody.
            assert self.jobs.find(of) is None or self.jobs.add(make(of)) == (None, [])  # type: ignore[call-arg]
            return
        request, superseded = self.jobs.add(make(of))  # type: ignore[call-arg]
        for number_of in superseded:
            self.cancelled.append(number_of)
        if request is not None:
            job = self.jobs.find(of)
            assert job is not None
            self.live[request.id] = job.work
            self.sent[of] = self.first[of] = 1 if isinstance(job.work, Decode) else 0
            self.said[of] = []

    def say(self, number: int, count: int) -> list[int]:
        """So many tokens of a sequence, unlike all others; noted where somebody waits for them."""
        tokens = list(range(self.tokens, self.tokens + count))
        self.tokens += count
        for job in self.here():
            if job.id == number and not job.handed_off:
                self.said[job.key] += tokens
        return tokens

    def plainly(self, numbers: list[int]) -> list[int]:
        """One token of each, as in `Outputs.plain`."""
        return [field for number in numbers for field in (number, *self.say(number, 1))]

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tokens=st.integers(0, 3), finish=st.sampled_from([None, *Finish]))
    def output(self, data: st.DataObject, tokens: int, finish: Finish | None) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, unique=True))
        outputs = [Output(number, self.say(number, tokens), finish) for number in chosen]
        if finish is not None:
            self.end(chosen)
        self.jobs.step(Outputs(outputs), ME)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def plain(self, data: st.DataObject) -> None:
        """One token each, said as numbers by some and as an `Output` by others."""
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, unique=True))
        full = [Output(number, self.say(number, 1)) for number in chosen[::2]]
        self.jobs.step(Outputs(full, self.plainly(chosen[1::2])), ME)

    @precondition(lambda self: self.live)
    @rule(steps=st.integers(1, 4))
    def go_on(self, steps: int) -> None:
        """One token of each, in an order that stays."""
        for _ in range(steps):
            going_on = [number for number in self.flowing if number in self.live]
            new = [number for number in self.live if number not in going_on]
            self.flowing = going_on + new
            self.jobs.step(Outputs([], self.plainly(self.flowing)), ME)

    @rule()
    def ask_again(self) -> None:
        """What was said can be had from any offset on."""
        for job in self.here():
            first, said = self.first[job.key], self.said[job.key]
            for offset in {first, first + len(said) // 2, first + len(said)}:
                assert self.jobs.again(job.key, offset).tokens == said[offset - first :]

    @precondition(lambda self: any(self.open_prefills()))
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.open_prefills()))
        self.handed_off.add(number)
        [token] = self.say(number, 1)
        output = Output(number, [token], handoff=Handoff(token, b"t"))
        step = self.jobs.step(Outputs([output]), ME)
        assert len(step.decodes) == (number not in self.cancelled)

    @precondition(lambda self: len(self.jobs) > 0)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.here()))
        self.cancelled.append(self.jobs.drop(job).id)

    @rule(ingress=st.sampled_from(INGRESSES))
    def lose_an_ingress(self, ingress: Address) -> None:
        for job in self.jobs.of_ingress(ingress):
            self.cancelled.append(self.jobs.drop(job).id)
        assert not self.jobs.of_ingress(ingress)

    def open_prefills(self) -> list[int]:
        prefills = (n for n, work in self.live.items() if isinstance(work, Prefill))
        return sorted(set(prefills) - self.handed_off)

    def here(self) -> list[Job]:
        return [job for ingress in INGRESSES for job in self.jobs.of_ingress(ingress)]

    def end(self, numbers: list[int]) -> None:
        for number in numbers:
            del self.live[number]

    @rule()
    def send(self) -> None:
        """Until then what several steps have brought waits."""
        for ingress, frame in self.jobs.take_frames(ME):
            for chunk in frame.everything():
                of = key(chunk.number, chunk.epoch, ingress)
                assert of not in self.final, "a chunk after the last one"
                assert chunk.offset == self.sent[of], "a gap or a repeat"
                start = chunk.offset - self.first[of]
                assert chunk.tokens == self.said[of][start : start + len(chunk.tokens)]
                self.sent[of] += len(chunk.tokens)
                if chunk.finish:
                    self.final.add(of)

    @invariant()
    def every_job_has_its_engine_request(self) -> None:
        here = self.here()
        assert len(here) == len(self.jobs)
        for job in here:
            assert job.id in self.live
            assert job.id not in self.cancelled
            assert self.jobs.find(job.key) is job

    def teardown(self) -> None:
        """The engine ends everything it has, and nothing stays behind."""
        last = [Output(number, [], Finish.CANCELLED) for number in self.live]
        self.jobs.step(Outputs(last), ME)
        self.send()
        assert len(self.jobs) == 0


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_was_sent_can_be_sent_again_from_any_token_on() -> None:
    jobs = Jobs()
    id_ = added(jobs, generate(key()))
    jobs.step(Outputs([Output(id_, [5], cached_tokens=16), Output(id_, [6, 7])]), ME)

    assert jobs.again(key(), 0) == Chunk(1, 0, 0, [5, 6, 7], cached_tokens=16, prompt_tokens=2)
    assert jobs.again(key(), 2) == Chunk(1, 0, 2, [7])
    assert jobs.again(key(), 3) == Chunk(1, 0, 3, []), "nothing new, but alive"


def test_the_end_of_a_sequence_can_be_sent_again_too() -> None:
    jobs = Jobs()
    id_ = added(jobs, generate(key()))
    jobs.step(Outputs([Output(id_, [5], finish=Finish.LENGTH)]), ME)

    assert jobs.again(key(), 1) == Chunk(1, 0, 1, [], "length")


def test_the_first_token_can_be_sent_again_after_the_handoff() -> None:
    jobs = Jobs()
    id_ = added(jobs, prefill(key()))
    jobs.step(Outputs([Output(id_, [5], handoff=Handoff(5, b"t"))]), ME)
    job = jobs.find(key())
    assert job is not None
    jobs.drop(job, remember=True)

    assert jobs.again(key(), 0) == Chunk(1, 0, 0, [5], prompt_tokens=2)


def test_what_is_not_known_is_answered_with_an_error() -> None:
    jobs = Jobs()
    added(jobs, decode(key(epoch=3)))

    assert jobs.again(key(number=2), 4).finish == "error"
    assert jobs.again(key(epoch=2), 4).finish == "error"
    assert jobs.again(key(epoch=3), 0).finish == "error", "its first token is another's"
    assert jobs.again(key(epoch=3), 1).finish == ""


def test_a_job_is_overdue_when_the_time_of_its_request_is_over() -> None:
    jobs = Jobs()
    request, _ = jobs.add(Generate(key(), "r", PROMPT, SAMPLING, budget_s=5.0), 100.0)
    jobs.add(generate(key(2)), 100.0)

    assert jobs.overdue(104.9) == []
    assert [job.id for job in jobs.overdue(105.0)] == [request.id if request else 0]


def test_a_handoff_passes_on_what_is_left_of_the_time() -> None:
    jobs = Jobs()
    request, _ = jobs.add(Prefill(key(), "r", PROMPT, SAMPLING, OTHER, budget_s=5.0), 100.0)
    assert request is not None

    step = jobs.step(Outputs([Output(request.id, [5], handoff=Handoff(5, b"t"))]), ME, 102.0)

    assert step.decodes[0][1].budget_s == 3.0
