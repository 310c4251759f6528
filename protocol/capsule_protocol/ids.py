"""Identifiers: a prefix that says what it names, and 96 random bits as 16 characters that suit URLs and files."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode

SESSION = "s_"
EXECUTION = "x_"
MESSAGE = "m_"
SUBSHELL = "b_"


def new_id(prefix: str) -> str:
    """A fresh identifier: `new_id(EXECUTION)` is `x_` and 16 characters.

    The bits come from the system each time: a batch kept in memory would be handed out twice after a fork.
    """
    return prefix + urlsafe_b64encode(os.urandom(12)).decode("ascii")


def stream_of(request: int) -> str:
    """The name of the streams of the bodies of a capability's call. It stands here because a worker needs it too."""
    return f"call:{request}"
