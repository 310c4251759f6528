"""What an operator asks of a node: its sessions, to interrupt or end one of them, and to end the node."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from capsule_protocol.messages.base import Count, Message

Name = Annotated[str, Field(min_length=1, max_length=200)]
"""A session's name or id."""


class Sessions(Message):
    """Which sessions are there? Answered by `info_reply`: `sessions` has a map for each that the sender may see."""

    TYPE: ClassVar[str] = "sessions"


class InterruptSession(Message):
    """Interrupt what a session runs, whoever reads it. Answered by `info_reply` with `done`."""

    TYPE: ClassVar[str] = "interrupt_session"
    name: Name


class KillSession(Message):
    """End a session, whoever reads it: that one is told (`session_killed`). Answered by `info_reply` with `session`."""

    TYPE: ClassVar[str] = "kill_session"
    name: Name


class ReadLog(Message):
    """What did an execution tell behind event `after`? Answered by `read_log_reply`.

    With `wait`, an answer without events comes only after some time, or never. The sender need not have the session.
    """

    TYPE: ClassVar[str] = "read_log"
    execution: Name
    after: Count = 0
    wait: bool = False


class ReadLogReply(Message):
    """A part of a log. `first`: the oldest number that is kept; `count` events begin behind `after`, or there.

    They are in the buffer: msgpack arrays of type, body and buffers of the message that tells of each, one behind the
    other. `ended`: the verdict is the last.
    """

    TYPE: ClassVar[str] = "read_log_reply"
    reply_to: str
    first: Count
    count: Count
    ended: bool


class CancelExecution(Message):
    """Interrupt an execution, or take it out of the queue, whoever has its session. `info_reply` has `done`."""

    TYPE: ClassVar[str] = "cancel_execution"
    execution: Name


class Drain(Message):
    """Take nothing new, let what runs end, then end. Answered by `info_reply`, with `wait` by `shutdown`."""

    TYPE: ClassVar[str] = "drain"
    wait: bool = False
