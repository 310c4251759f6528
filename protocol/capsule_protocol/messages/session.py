"""A session as a whole: opening, closing, its state, its checkpoints."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict

from capsule_protocol.messages.base import Count, Data, Message, Part


class OpenOptions(Part):
    """Bounds of a session's caches and of its open files (nil: the system's), and arguments for IPython.

    Options of later versions are kept.
    """

    model_config = ConfigDict(extra="allow")

    out_cache: Count = 1000
    source_cache: Count = 1000
    max_open_files: Count | None = None
    ipython: list[str] = []


class Open(Message):
    """Open a session in an environment. A variable that is None is removed; `path` goes in front of `sys.path`.

    `files` are names below the working directory; the message's buffers are their contents, in the same order.
    The same `key` from the same client opens one session, however often it is sent. `epoch` is told to a worker only.
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
    key: str | None = None
    epoch: Count = 0


class Close(Message):
    """Close the session in the header; its state is gone."""

    TYPE: ClassVar[str] = "close"


class Attach(Message):
    """Take over a session, by id or name: its events come here from now on. Answered by `ready`.

    With `watch` it stays whose it is, and only what its executions tell comes here too. With `share` it does too, and
    this client has code of its own run in it.
    """

    TYPE: ClassVar[str] = "attach"
    name: str
    watch: bool = False
    share: bool = False


class Detach(Message):
    """Let the session in the header live on without this client; answered by `status`."""

    TYPE: ClassVar[str] = "detach"


class Restart(Message):
    """Give the session in the header a new worker; answered by `ready`."""

    TYPE: ClassVar[str] = "restart"


class Info(Message):
    """Tell of the session in the header, or without one of the node."""

    TYPE: ClassVar[str] = "info"


class InfoReply(Message):
    """What it is like at this moment."""

    TYPE: ClassVar[str] = "info_reply"
    reply_to: str = ""
    info: Data = {}


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
    """What a session does now; with an execution in the header: a step of that execution, `busy` when it starts.

    `execution_count` of a start is the number that the code will have, 0 if that is not known.
    """

    TYPE: ClassVar[str] = "status"
    state: State
    reason: str = ""
    reply_to: str = ""
    execution_count: Count = 0


class Checkpoint(Message):
    """Keep the session's state under a name; answered by `status` or `error`."""

    TYPE: ClassVar[str] = "checkpoint"
    name: str


class Restore(Message):
    """Go back to a checkpoint; answered by `status` or `error`."""

    TYPE: ClassVar[str] = "restore"
    name: str
