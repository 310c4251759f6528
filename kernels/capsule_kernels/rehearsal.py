"""Runs in the zygote, over and over, what each fork runs first.

Python rewrites code that is called often for what it meets there, and remembers the methods that it has looked up. A
fork that had to do this itself would do it each time, and each step writes to memory that it shares. Only what leaves a
process with one thread as it is can be rehearsed.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
from typing import TYPE_CHECKING, Final

from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import FrameBuffer, pack
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES: Final = 40


def rehearse() -> None:
    """For a process with one thread. Costs 3 ms."""
    steps = [*_after_fork(), _read_and_write]
    for _ in range(TIMES):
        for step in steps:
            step()


def forget_classes() -> None:
    """Empty Python's table of what was found in classes: it is full of what importing has looked for.

    A worker that finds something else puts it in the place of that, and lets go of the name of what was there, which
    is in a page that it shares. Since Python 3.12 names are not counted.
    """
    if sys.version_info < (3, 12):
        sys._clear_type_cache()  # noqa: SLF001  # Python documents it


def _after_fork() -> list[Callable[[], object]]:
    """What these modules have Python call in a child; where they have it under another name, it is not rehearsed."""
    found = [
        getattr(threading, "_after_fork", None),
        getattr(logging, "_after_at_fork_child_reinit_locks", None),
        random.seed,
    ]
    return [step for step in found if step is not None]


def _read_and_write() -> None:
    """A message out and in."""
    hello = codec.encode(Envelope("hello", {"version": "1.0", "features": []}), DEFAULT_LIMITS)
    incoming = FrameBuffer(DEFAULT_LIMITS)
    for chunk in pack(hello, DEFAULT_LIMITS):
        incoming.feed(bytes(chunk))
    frames = incoming.next_message()
    assert isinstance(frames, list)
    codec.decode(frames, DEFAULT_LIMITS)
