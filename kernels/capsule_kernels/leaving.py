"""The end of a script: what an interpreter does between the last line and the end of its process, in a session."""

from __future__ import annotations

import atexit
import sys
import threading
from typing import Any

_earlier: list[threading.Thread] = []
"""Those that were there before the session, of its environment's modules and warm-up code: they are no script's."""


def note_threads() -> None:
    """What runs now is no script's."""
    _earlier[:] = threading.enumerate()
    executors: Any = sys.modules.get("concurrent.futures.thread")
    if executors is not None:  # its exit function waits for all that it knows
        for thread in _earlier:
            executors._threads_queues.pop(thread, None)  # noqa: SLF001  # there is no public name


def leave() -> None:
    """Wait for the threads that the script left, then call its exit functions.

    `threading._shutdown` does that in a process that ends. It cannot be interrupted since Python 3.13, and takes the
    main thread for ended afterwards.
    """
    pools: list[Any] = threading._threading_atexits  # type: ignore[attr-defined]  # noqa: SLF001  # ends idle pools
    while pools:
        pools.pop()()
    while left := [thread for thread in threading.enumerate() if _is_waited_for(thread)]:
        left[0].join()
    atexit._run_exitfuncs()  # noqa: SLF001  # there is no public name


def _is_waited_for(thread: threading.Thread) -> bool:
    return thread is not threading.main_thread() and not thread.daemon and thread not in _earlier
