"""What code writes, in few messages: a front end redraws for each, and servers drop what comes too often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from capsule.jupyter.translate import Shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.jupyter.messages import Message

HELD: Final = 0.05
"""Seconds that text waits for more of its kind; ipykernel's takes 0.2."""
MOST: Final = 2**18
"""Characters that are held; behind them a message begins anew."""


class Streams:
    """Publishes in order, by `publish`. What is held goes out before anything else does."""

    def __init__(self, publish: Callable[[Shown, Message], None]) -> None:
        self._publish = publish
        self._parts: list[str] = []
        self._size = 0
        self._stream = ""
        self._parent: Message = {}
        self._timer: asyncio.TimerHandle | None = None

    def show(self, told: Shown, parent: Message) -> None:
        """Text waits a moment; anything else goes out now, behind it."""
        if told.kind != "stream":
            self.flush()
            self._publish(told, parent)
            return
        if told.content["name"] != self._stream or parent is not self._parent or self._size > MOST:
            self.flush()
            self._stream, self._parent = told.content["name"], parent
        self._parts.append(told.content["text"])
        self._size += len(told.content["text"])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HELD, self.flush)

    def flush(self) -> None:
        """Publish what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parts:
            text, self._parts, self._size = "".join(self._parts), [], 0
            self._publish(Shown("stream", {"name": self._stream, "text": text}), self._parent)
