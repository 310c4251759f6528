"""A session as a whole: opening, closing, its state, its checkpoints."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict

from capsule_protocol.messages.base import Count, Message, Part


class OpenOptions(Part):
    """Bounds of a session's caches and of its open files (nil: the system's). Options of later versions are kept."""

    model_config = ConfigDict(extra="allow")

    out_cache: Count = 1000
    source_cache: Count = 1000
    max_open_files: Count | None = None


class Open(Message):
    """Open a session in an environment. A variable that is None is removed; `path` goes in front of `sys.path`.

    `files` are names below the working directory; the message's buffers are their contents, in the same order.
    """

    TYPE: ClassVar[str] = "open"
    environment: str = "default"
    name: str = ""
    env: dict[str, str | None] = {}
    cwd: str | None = None
    argv: list[str] = []
    path: list[str] = []
    files: list[str] = []
    options: OpenOptions = OpenOptions()


class Close(Message):
    """Close the session in the header; its state is gone."""

    TYPE: ClassVar[str] = "close"


State = Literal[
    "starting",
    "ready",
    "busy",
    "interrupting",
    "interrupting_again",
    "killing",
    "restarting",
    "unresponsive",
    "dead",
    "closed",
]


class Status(Message):
    """What a session does now; with an execution in the header: a step of that execution, `busy` when it starts."""

    TYPE: ClassVar[str] = "status"
    state: State
    reason: str = ""
    reply_to: str = ""


class Checkpoint(Message):
    """Keep the session's state under a name; answered by `status` or `error`."""

    TYPE: ClassVar[str] = "checkpoint"
    name: str


class Restore(Message):
    """Go back to a checkpoint; answered by `status` or `error`."""

    TYPE: ClassVar[str] = "restore"
    name: str
