"""Calls of a provider as the broker makes them, without a broker: checked, admitted, with bodies and their caps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from capsule.broker.sdk import CHUNK_BYTES, Asker, Call, Services
from capsule.node import asking
from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule.broker.sdk import Chunk, Limits, Provider, Schema

ASKER = Asker("s-1", "one", "tester", "default", "e-1")
Body: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]

_keys = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What a call gave: the fields of its response, and its body."""

    value: Any
    data: bytes


@dataclass
class Caller:
    """Calls one provider under one scope. `on_chunk` is awaited with each chunk of a body that comes out."""

    provider: Provider
    scope: Any = field(default_factory=dict)
    asker: Asker = ASKER
    limits: dict[str, Any] = field(default_factory=dict)
    on_chunk: Callable[[bytes], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.scope = self.provider.descriptor.scope.model_validate(self.scope)
        self.provider.check(self.scope)

    async def __call__(self, operation: str, data: Body = b"", **fields: Any) -> Answer:
        """Check, admit, call; the call is cancelled when its time is up."""
        declared = self.provider.descriptor.operations[operation]
        request = declared.request.model_validate(fields)
        self.provider.admit(operation, request, self.scope)
        limits = replace(declared.limits, **self.limits)
        out = bytearray()

        async def send(chunk: Chunk) -> None:
            assert declared.gives_body
            assert 0 < len(chunk) <= CHUNK_BYTES
            _cap("the response", len(out) + len(chunk), limits.response_bytes)
            out.extend(chunk)
            if self.on_chunk is not None:
                await self.on_chunk(bytes(chunk))

        assert declared.takes_body or data == b""
        async with aclosing(_body(data, limits)) as body:
            call = Call(operation, request, self.scope, self.asker, f"key-{next(_keys)}", limits, body, send)
            async with asyncio.timeout(limits.timeout):
                value: Schema = await self.provider.call(call)
        assert isinstance(value, declared.response)
        return Answer(value, bytes(out))


def services(**secrets: str) -> Services:
    """What a node gives, with these secrets configured."""

    def secret(name: str) -> str:
        if name not in secrets:
            raise CapabilityFailed("secret_unknown", f"the node has no secret {name!r}")
        return secrets[name]

    async def ask(session: str, execution: str, question: asking.Question) -> asking.Answer:
        return asking.Answer(None, "eof")

    return Services(secret, ask)


async def _body(data: Body, limits: Limits) -> AsyncGenerator[bytes, None]:
    seen = 0
    async with aclosing(_pieces(data)) as pieces:
        async for piece in pieces:
            seen += len(piece)
            _cap("the request", seen, limits.request_bytes)
            for start in range(0, len(piece), CHUNK_BYTES):
                yield piece[start : start + CHUNK_BYTES]


async def _pieces(data: Body) -> AsyncGenerator[bytes, None]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, AsyncIterable):
        async for piece in data:
            yield piece
    else:
        for piece in data:
            yield piece


def _cap(what: str, size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise CapabilityFailed("capability_too_large", f"{what} has more than {most} bytes")
