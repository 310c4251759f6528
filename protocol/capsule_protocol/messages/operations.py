"""What an operator asks of a node: its sessions, to interrupt or end one of them, and to end the node."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from capsule_protocol.messages.base import Message

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


class Drain(Message):
    """Take nothing new, let what runs end, then end. Answered by `info_reply`, with `wait` by `shutdown`."""

    TYPE: ClassVar[str] = "drain"
    wait: bool = False
