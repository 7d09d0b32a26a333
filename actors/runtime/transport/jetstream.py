"""A bucket in NATS JetStream, whose API is requests in JSON on subjects of its own.

https://docs.nats.io/reference/reference-protocols/nats_api_reference

It is what NATS calls a key-value bucket (the `nats` command shows it as one), with one difference:
when it is full the oldest value goes, where NATS's own clients would have the newest refused.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

import msgspec

from actors.runtime.errors import AskTimeout, NoSuchActor, PlaneUnavailable, Refused
from actors.runtime.transport.buckets import Bucket, BucketLimits, BucketUnavailable, ValueTooLong

Ask = Callable[[str, bytes, float], Awaitable[bytes]]
"""`Transport.request`: subject, content, seconds."""

ATTEMPT_S = 2.0
"""For the server to answer once."""
PATIENCE_S = 6.0
"""For it to answer at all: longer than a restart of NATS takes."""
PAUSE_S = 0.1
"""Between two attempts."""
NOT_FOUND = 404
NOT_NOW = 503
NO_STREAM = 10059
OTHER_LIMITS = 10058
"""JetStream's codes for a stream that is not there, and for one that is there with another
configuration."""


class _NotNowError(Exception):
    """The server says why it cannot do it as yet."""


class _Message(msgspec.Struct):
    data: str = ""
    """Base64."""


class _Error(msgspec.Struct):
    code: int
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """Of any request of the API."""

    error: _Error | None = None
    message: _Message | None = None


class JetStreamBucket(Bucket):
    """Made on the server when it is first used, and again should the server have lost its data."""

    def __init__(self, ask: Ask, name: str, limits: BucketLimits) -> None:
        """`name`: letters, digits, - and _."""
        self._ask = ask
        self._name = name
        self._limits = limits
        self._stream = f"KV_{name}"
        self._is_made = False

    async def put(self, key: str, value: bytes) -> None:
        if len(value) > self._limits.value_bytes:
            raise ValueTooLong(f"{len(value)} bytes are more than {self._limits.value_bytes}")
        await self._do(self._subject(key), value)

    async def get(self, key: str) -> bytes | None:
        wanted = msgspec.json.encode({"last_by_subj": self._subject(key)})
        message = (await self._do(f"$JS.API.STREAM.MSG.GET.{self._stream}", wanted)).message
        return None if message is None else base64.b64decode(message.data)

    async def delete(self, key: str) -> None:
        which = msgspec.json.encode({"filter": self._subject(key)})
        await self._do(f"$JS.API.STREAM.PURGE.{self._stream}", which)

    def _subject(self, key: str) -> str:
        return f"$KV.{self._name}.{key}"

    async def _do(self, subject: str, content: bytes) -> _Answer:
        """Ask until there is an answer. Everything asked here may be asked again. Raises
        BucketUnavailable."""
        why = "it does not answer"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        return await self._once(subject, content)
                    except NoSuchActor:
                        # The stream is not there, and nor may JetStream itself be.
                        self._is_made = False
                        why = "NATS has no JetStream"
                    except _NotNowError as error:
                        self._is_made = False
                        why = str(error)
                    except (AskTimeout, PlaneUnavailable) as error:
                        why = str(error)
                    except Refused as error:
                        raise BucketUnavailable(self._name, str(error)) from error
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            raise BucketUnavailable(self._name, why) from None

    async def _once(self, subject: str, content: bytes) -> _Answer:
        if not self._is_made:
            await self._make()
        answer = await self._call(subject, content)
        error = answer.error
        if error is None:
            return answer
        if error.err_code == NO_STREAM:
            raise _NotNowError("the server has lost it")
        if error.code == NOT_FOUND:
            return _Answer()
        raise BucketUnavailable(self._name, error.description)

    async def _make(self) -> None:
        config = msgspec.json.encode(
            {
                "name": self._stream,
                "subjects": [self._subject(">")],
                "retention": "limits",
                "storage": "file",
                "discard": "old",
                "max_age": int(self._limits.ttl_s * 1e9),
                "max_bytes": self._limits.total_bytes,
                "max_msgs_per_subject": 1,
                # No window in which repeats are looked for, or it might outlast the values.
                "duplicate_window": int(min(self._limits.ttl_s, 120.0) * 1e9),
                "num_replicas": 1,
                "allow_direct": True,
                "allow_rollup_hdrs": True,
            }
        )
        error = (await self._call(f"$JS.API.STREAM.CREATE.{self._stream}", config)).error
        if error is not None and error.err_code == OTHER_LIMITS:
            # The latest comer's hold.
            error = (await self._call(f"$JS.API.STREAM.UPDATE.{self._stream}", config)).error
        if error is not None:
            raise BucketUnavailable(self._name, error.description)
        self._is_made = True

    async def _call(self, subject: str, content: bytes) -> _Answer:
        answer = msgspec.json.decode(await self._ask(subject, content, ATTEMPT_S), type=_Answer)
        if answer.error is not None and answer.error.code == NOT_NOW:
            raise _NotNowError(answer.error.description)
        return answer
