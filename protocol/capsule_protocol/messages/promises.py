"""Promises that wait for somebody: which there are, and to settle one. All are answered by `info_reply`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from capsule_protocol.messages.base import Message

PromiseId = Annotated[str, Field(min_length=1, max_length=1000)]
Reason = Annotated[str, Field(max_length=1000)]


class Promises(Message):
    """Which wait for a verdict? Some that the sender may see are told: `promises`, and `after` to go on with."""

    TYPE: ClassVar[str] = "promises"
    after: Annotated[str, Field(max_length=1000)] = ""


class Promise(Message):
    """One of them, settled or not: `promise` is a map."""

    TYPE: ClassVar[str] = "promise"
    promise: PromiseId


class Settle(Message):
    """Give a verdict, which the answer has as `promise`; `decided`: it is this one, and not one from before.

    An `input` is resolved with its answer as the `value`, rejected (none will come) or canceled (the question is void),
    for a reason. An `execute` can only be canceled: its code is interrupted.
    """

    TYPE: ClassVar[str] = "settle"
    promise: PromiseId
    action: Literal["resolve", "reject", "cancel"]
    value: Any = None
    message: Reason = ""
