"""What a provider is: operations with schemas, a lifecycle, and one method that does what was asked.

A provider runs on the node's side and acts for code that it must not trust. What it is asked has passed the broker: the
operation is declared, a grant allows it, the request fits its schema, rate and concurrency are kept. It looks at what
only it understands, whether the request is within the scope of the grant, and acts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler

from capsule_protocol.errors import ArgumentError, CapabilityTimeout
from capsule_protocol.failing import stop_early

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from pydantic_core import CoreSchema

    from capsule.node.asking import Answer, Question


SDK_VERSION = "1.0"
"""Of this interface. A provider names the version that it was written for: same major, minor not above this one."""

Chunk: TypeAlias = bytes | memoryview
"""Part of a body; at most CHUNK_BYTES."""
CHUNK_BYTES = 2**20
ANSWER_SECONDS = 120.0
"""How long `check` and `admit` may take: what a provider's own process may need to start and to answer, and no more."""
BodyKind: TypeAlias = Literal["bytes", "outputs"]


class Schema(BaseModel):
    """The base of requests, responses and scopes. Strict: no text for a number, no field that is not known.

    A field declared with `secret()` is not written into the audit trail.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """What is wrong with a request costs no more than what is right."""
        checked: CoreSchema = stop_early(handler(source))
        return checked


class ScopeSchema(Schema):
    """The base of scopes, which people write in TOML: a path is text there, a tuple is a list."""

    model_config = ConfigDict(strict=False)


class Empty(Schema):
    """A request or a response without fields."""


class EmptyScope(ScopeSchema):
    """The scope of a provider whose grants have nothing to say but which operations they allow."""


def secret(default: Any = ...) -> Any:
    """A field whose value is only told as its size where calls are recorded."""
    return Field(default, json_schema_extra={"x-secret": True})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the calls of one operation in one session; None: no bound. A grant may set others.

    `timeout` of one call in seconds, without the time in which it waits for an approval. `per_second`: calls, on
    average, with a burst of as many. `concurrent`: calls at once. `request_bytes` and `response_bytes`: of one call,
    its arguments or fields and its body. `total_bytes`: of all of these of the session under the grant.
    """

    timeout: float | None = 30.0
    per_second: float | None = None
    concurrent: int | None = 16
    request_bytes: int | None = 2**26
    response_bytes: int | None = 2**28
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for.

    `returns`: what a call gives in the session, all of the response or only its body, which is then bytes. `body_kind`:
    how the body is to be read, of those that the session knows: plain bytes, or the outputs of a program (as
    capsule_protocol.program_output has them). `effects`: it changes something; one that does not may be asked again if
    its answer was lost. `takes_body`, `gives_body`: bytes travel with the request, or with the response, beside the
    fields of their schemas.
    """

    summary: str
    request: type[Schema]
    response: type[Schema]
    effects: bool = True
    takes_body: bool = False
    gives_body: bool = False
    returns: Literal["response", "body"] = "response"
    body_kind: BodyKind = "bytes"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Who a provider is. `name` is the first part of its capabilities: `files` of `files.read`.

    `scope` is the schema of what a grant says to it. `untrusted`: it runs in a process of its own. `needs`: names of
    features that the node must have.
    """

    name: str
    version: str
    operations: Mapping[str, Operation]
    scope: type[ScopeSchema] = EmptyScope
    sdk: str = SDK_VERSION
    untrusted: bool = False
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a call is made: the session, whose it is, the execution that asks, the process of its worker.

    `submitters`: principals beside the owner who have had code run in that process.
    """

    session: str
    session_name: str
    principal: str
    environment: str
    execution: str
    pid: int = 0
    directory: str = ""
    """The session's own files, which its code sees as its first working directory; "" if it has none."""
    submitters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `key` names it: when the node has died it may come again under the same one.

    `body` are the bytes that came with the request; `send` hands over some of those that go with the response, and
    waits while the code does not take them: it may be called only while the call runs. Both are bounded by `limits`.
    """

    operation: str
    request: Any
    scope: Any
    asker: Asker
    key: str
    limits: Limits
    body: AsyncIterator[bytes]
    send: Callable[[Chunk], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a provider can act now, and if not, why."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """What the node gives to a provider when it starts.

    `secret(name)` is the value of a secret that the operator has configured; it raises CapabilityFailed
    `secret_unknown`. `ask(session, execution, question)` puts a question to whoever answers those of the session.
    """

    secret: Callable[[str], str]
    ask: Callable[[str, str, Question], Awaitable[Answer]]


class Provider(Protocol):
    """What the broker calls. All of it runs in the node's event loop: what blocks belongs into a thread."""

    @property
    def descriptor(self) -> Descriptor:
        """Always the same."""

    async def start(self, services: Services) -> None:
        """Make ready; called once. What it raises keeps the node from starting."""

    async def health(self) -> Health:
        """Whether it can act now."""

    async def stop(self) -> None:
        """Let go of everything. No call is under way any more. Idempotent."""

    def check(self, scope: Any) -> Awaitable[None] | None:
        """A grant is about to be in force: raise ArgumentError if its scope cannot be served (a root is missing).

        As `admit` it says so at once, or is awaited: then `async def`.
        """

    def admit(self, operation: str, request: Any, scope: Any) -> Awaitable[None] | None:
        """Raise CapabilityDenied if the request is outside the scope, or CapabilityFailed `capability_invalid`.

        Without effects: `capsule policy` asks too. Calls wait for it, so it should not take long.
        """

    async def call(self, call: Call) -> Schema:
        """Do it. Raises CapabilityDenied for what turns out to be outside the scope, and CapabilityFailed.

        It may be cancelled at any await, and has then left nothing behind.
        """


async def answered(said: Awaitable[None] | None) -> None:
    """Wait for a provider that does not say at once what it has to say. Raises what it does, and CapabilityTimeout."""
    if said is None:
        return
    try:
        async with asyncio.timeout(ANSWER_SECONDS) as clock:
            await said
    except TimeoutError as error:
        if not clock.expired():
            raise
        message = f"the provider did not answer within {ANSWER_SECONDS:g} s; nothing was done"
        details = {"timeout": ANSWER_SECONDS}
        raise CapabilityTimeout("capability_timeout", message, retryable=True, details=details) from error


async def checked(provider: Provider, scope: Any) -> None:
    """Have a provider look whether it can serve a scope. Raises ArgumentError, also if it does not say so in time."""
    try:
        await answered(provider.check(scope))
    except CapabilityTimeout as error:
        raise ArgumentError("scope", error.message, allowed="what the provider can serve") from error
