"""The link itself: greeting, liveness, end."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from capsule_protocol.messages.base import MAX_SUBSHELL, MAX_SUBSHELLS, Count, Message, Part


class LinkLimits(Part):
    """The limits that two ends agree on: the smaller value of both."""

    message_bytes: Annotated[int, Field(ge=1)]


class Hello(Message):
    """The first message of a link: what its sender speaks. `versions` holds the highest minor of each major.

    `client` is a secret of the client's own making, which it says again when it comes back. `token` says who it is.
    """

    TYPE: ClassVar[str] = "hello"
    versions: Annotated[list[str], Field(min_length=1)]
    features: list[str] = []
    limits: LinkLimits | None = None
    role: Literal["client", "node"]
    client: str = ""
    token: Annotated[str, Field(max_length=200, repr=False)] = ""


class Welcome(Message):
    """The answer to `hello`: what both ends use from now on. `epoch` grows each time a session gets a new worker."""

    TYPE: ClassVar[str] = "welcome"
    version: str
    features: list[str] = []
    limits: LinkLimits | None = None
    epoch: Count = 0


class Ack(Message):
    """An execution was accepted (its id is in the header); precedes all its events.

    If it tells of the start as well, `execution_count` is as in `status`.
    """

    TYPE: ClassVar[str] = "ack"
    execution_count: Count = 0


class Ready(Message):
    """A session can execute: the answer to `open`, `attach` and `restart`."""

    TYPE: ClassVar[str] = "ready"
    pid: Count = 0
    python: str = ""
    implementation: str = ""
    worker: str = ""
    name: str = ""
    environment: str = ""
    epoch: Count = 0
    reply_to: str = ""


class Heartbeat(Message):
    """A sign of life; the answer repeats the number, a worker adds its memory in bytes, what it runs, its threads."""

    TYPE: ClassVar[str] = "heartbeat"
    number: Count
    rss: Count = 0
    busy: bool = False
    serial: Count = 0
    threads: Count = 0


class Shutdown(Message):
    """No new requests after this one; what is under way is finished. `restart`: the sender will come back."""

    TYPE: ClassVar[str] = "shutdown"
    restart: bool = False


class Adopt(Message):
    """The first message of a node that takes the place of one which died: what it speaks, and what it knows.

    `after`: the messages up to this number have been dealt with; those behind it are sent again.
    """

    TYPE: ClassVar[str] = "adopt"
    versions: Annotated[list[str], Field(min_length=1)]
    features: list[str] = []
    limits: LinkLimits | None = None
    epoch: Count = 0
    after: Count = 0


class PendingInput(Part):
    """A request for input that has no answer yet: its name, its number as a message, whose code asks, if it waits."""

    request: str
    number: Count = 0
    execution: str = ""
    waits: bool = True


class OpenSubshell(Part):
    """An open subshell: the number of the code that it runs, or will run next, and for how long that has run."""

    name: Annotated[str, Field(max_length=MAX_SUBSHELL)]
    execution_count: Count = 1
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Adopted(Message):
    """The answer to `adopt`: as `welcome`, what the code waits for, and the number of the last message sent so far.

    `execution_count` is the number of the code that runs, or will run next; `subshells` are those that are open, in the
    order in which they were opened.
    """

    TYPE: ClassVar[str] = "adopted"
    version: str
    features: list[str] = []
    limits: LinkLimits | None = None
    last: Count = 0
    execution_count: Count = 0
    inputs: list[PendingInput] = []
    subshells: Annotated[list[OpenSubshell], Field(max_length=MAX_SUBSHELLS)] = []


class Confirm(Message):
    """The messages up to this number have been dealt with for good: they need not be kept for another node."""

    TYPE: ClassVar[str] = "confirm"
    number: Count
