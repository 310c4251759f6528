"""Which execution caused what: a context variable that threads and tasks carry on from the cell that started them."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OWNER: ContextVar[int] = ContextVar("capsule_owner", default=0)
"""The serial of the execution that the running code belongs to; 0: not known here."""

NOBODY = -1
"""In the place of a serial: what the code that a question asks (`__dir__`, a completer) writes is of no execution."""

_INHERITED = "_capsule_owner"


def owner() -> int:
    """The serial of the execution that the calling code belongs to; 0: not known here, or NOBODY.

    Tasks copy the context of the code that makes them. A thread begins with an empty one (until Python 3.14), so what
    `Thread.start` noted is taken over at the thread's first question.
    """
    serial = OWNER.get()
    if serial == 0:
        serial = getattr(threading.current_thread(), _INHERITED, 0)
        if serial:
            OWNER.set(serial)
    return serial


def follow_threads() -> None:
    """Have threads, and what is given to a pool of threads, note the execution it comes from. Call it once."""
    start: Any = threading.Thread.start
    submit: Any = ThreadPoolExecutor.submit

    @wraps(start)
    def noting_start(self: threading.Thread) -> None:
        setattr(self, _INHERITED, owner())
        start(self)

    @wraps(submit)
    def noting_submit(
        self: ThreadPoolExecutor, function: Callable[..., Any], /, *arguments: Any, **keywords: Any
    ) -> Future[Any]:
        future: Future[Any] = submit(self, _owned, owner(), function, arguments, keywords)
        return future

    threading.Thread.start = noting_start  # type: ignore[method-assign]  # the one place where every thread begins
    ThreadPoolExecutor.submit = noting_submit  # type: ignore[assignment]  # a pool's threads outlive the cell


def _owned(serial: int, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Run a pool's work for the execution that gave it."""
    before = OWNER.set(serial)
    try:
        return function(*arguments, **keywords)
    finally:
        OWNER.reset(before)
