"""The provider `ask`: questions to people, which whoever may answer the session's questions answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from capsule.broker.sdk import Descriptor, EmptyScope, Health, Limits, Operation, Schema, Services
from capsule.node.asking import CALL, Answer, Question
from capsule_protocol.answers import MAX_SECONDS, Terms
from capsule_protocol.errors import ArgumentError, CapabilityFailed, CapabilityTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule.broker.sdk import Call

    Ask = Callable[[str, str, Question], Awaitable[Answer]]

NEVER = MAX_SECONDS
"""Seconds for which a question is open where nobody says otherwise: people take their time, and code can be ended."""


class Asked(Schema):
    """A question: for one of the `choices`, for JSON that fits a `json_schema`, or for a line of text."""

    prompt: Annotated[str, Field(max_length=100_000)] = ""
    choices: list[Any] | None = None
    json_schema: dict[str, Any] | None = None
    timeout: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None


class Answered(Schema):
    """What was answered."""

    value: Any


class AskProvider:
    """Asks where the session's own questions are asked, so its client, or a promise, has them."""

    descriptor = Descriptor(
        "ask",
        "1.0",
        {
            "question": Operation(
                "Ask a person", Asked, Answered, effects=False, limits=Limits(timeout=NEVER, concurrent=8)
            )
        },
        EmptyScope,
    )

    def __init__(self) -> None:
        self._ask: Ask

    async def start(self, services: Services) -> None:
        """Questions go where the node says."""
        self._ask = services.ask

    async def health(self) -> Health:
        """Always: whether somebody answers is another matter."""
        return Health(ok=True)

    async def stop(self) -> None:
        """Nothing is held."""

    def check(self, scope: EmptyScope) -> None:
        """There is nothing to be wrong."""

    def admit(self, operation: str, request: Asked, scope: EmptyScope) -> None:
        """Whoever may ask may ask anything."""

    async def call(self, call: Call) -> Schema:
        """Ask, and wait. Raises CapabilityTimeout, and CapabilityFailed where nobody answers."""
        request: Asked = call.request
        terms = Terms(request.choices, request.json_schema)
        try:
            terms.check()
        except ArgumentError as error:
            raise CapabilityFailed("capability_invalid", error.message, details=error.details) from error
        question = Question(
            request=f"{CALL}{call.key}",
            prompt=request.prompt,
            choices=terms.choices,
            schema=terms.schema,
            timeout=request.timeout,
        )
        answer = await self._ask(call.asker.session, call.asker.execution, question)
        if answer.error == "timeout":
            message = answer.message or "nobody answered in time"
            raise CapabilityTimeout("input_timeout", message, retryable=True)  # to have asked did nothing
        if answer.error == "canceled":
            raise CapabilityFailed("input_canceled", answer.message or "the question was taken back")
        if answer.value is None:
            raise CapabilityFailed("no_input_client", answer.message or "nobody can answer: run the code with on_input")
        return Answered(value=json.loads(answer.value) if terms.typed else answer.value)


def provider() -> AskProvider:
    """The provider of this node."""
    return AskProvider()
