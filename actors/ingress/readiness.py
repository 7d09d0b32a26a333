"""Whether a token could be produced now: found out by producing one.

A probe is a request of two tokens that takes the way of every other: preprocessor, router, context
worker, handoff, generation worker. What a registry says can be true of a process that is frozen,
or of an engine that is stuck; a token cannot. The answer holds for `FRESH_S`, and while a probe is
under way everybody who asks waits for the same one, so that asking costs two tokens a second and
model at the most. Tokens that clients get meanwhile are no substitute: they may come from a worker
that was chosen by a router now dead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.ingress.exchange import Exchange
from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.responses import FinishReason
from actors.ingress.reading import Reading
from actors.ingress.session import Policy
from actors.ingress.sinks import Sink
from actors.messages.sampling import Logprobs, Sampling
from actors.messages.submit import TokenPrompt
from actors.text.answers.parts import Part

if TYPE_CHECKING:
    from actors.ingress.actor import Ingress

FRESH_S = 1.0
TOKENS = 2
"""The first one may come from a context worker alone."""
ONCE = Policy(attempts=0, recovery_s=0.0, restart_s=0.0)
"""A probe is not tried again: that it was lost is the answer."""


class Verdict(msgspec.Struct, frozen=True):
    """Of one model."""

    ready: bool
    why: str = ""
    """One sentence, when it is not."""
    took_ms: float | None = None
    """Of the probe, when there was one."""


class Health(msgspec.Struct, frozen=True):
    """A body of GET /ready and /health."""

    status: Literal["ready", "not ready", "draining"]
    models: dict[str, bool]
    missing: list[str]
    """Roles without which nothing is served."""
    why: dict[str, str]
    """Of models that are not ready: one sentence."""


class _NoSink(Sink):
    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        pass

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        pass

    def finish(self, index: int, reason: FinishReason) -> None:
        pass


class Readiness:
    """Probes, and what they have found."""

    def __init__(self, ingress: Ingress, timeout_s: float) -> None:
        self._ingress = ingress
        self._timeout_s = timeout_s
        self._found: dict[str, tuple[float, Verdict]] = {}
        self._probing: dict[str, asyncio.Task[Verdict]] = {}

    def forget(self) -> None:
        """Somebody has come or gone: what was found may not be so any more."""
        self._found.clear()

    async def of(self, model: str) -> Verdict:
        """Whether the model could answer now; at most so long as a probe may take."""
        if not self._ingress.fleet.can_serve(model):
            return Verdict(ready=False, why="no worker is ready")
        found = self._found.get(model)
        if found is not None and self._ingress.clock.now() - found[0] < FRESH_S:
            return found[1]
        probe = self._probing.get(model)
        if probe is None:
            name = f"{self._ingress.address.name}:probe"
            probe = asyncio.get_running_loop().create_task(self._probe(model), name=name)
            self._probing[model] = probe
            probe.add_done_callback(lambda _: self._probing.pop(model, None))
        # Who has asked may leave; the others still want to know.
        return await asyncio.shield(probe)

    async def close(self) -> None:
        probes = list(self._probing.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def _probe(self, model: str) -> Verdict:
        ingress = self._ingress
        began_at = ingress.clock.precise()
        exchange = Exchange(model, "probe", _NoSink())
        exchange.is_probe = True
        try:
            async with asyncio.timeout(self._timeout_s):
                tokenizer = await ingress.tokenizer_of(model)
                prompt = TokenPrompt(tokenizer.encode("1", add_special_tokens=True))
                sampling = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
                ingress.open(
                    exchange,
                    tokenizer,
                    [(prompt, sampling)],
                    Reading(),
                    replay=ONCE,
                )
                await exchange.ended.wait()
        except TimeoutError:
            verdict = Verdict(ready=False, why=f"no token came within {self._timeout_s:g} s")
        except ApiError as error:
            verdict = Verdict(ready=False, why=error.message)
        else:
            took_ms = (ingress.clock.precise() - began_at) * 1000
            verdict = Verdict(ready=True, took_ms=round(took_ms, 2))
            if exchange.error is not None:
                verdict = Verdict(ready=False, why=exchange.error.message)
        finally:
            ingress.close(exchange)
        self._found[model] = ingress.clock.now(), verdict
        outcome: Literal["ready", "not_ready"] = "ready" if verdict.ready else "not_ready"
        ingress.measures.probes.labels(model, outcome).add()
        return verdict
