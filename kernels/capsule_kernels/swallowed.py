"""Interrupts that are swallowed: raised inside a destructor or a weak reference's callback, they would get lost.

Python does that; and IPython's completer shows what is raised in one of its parts, and goes on with the next one.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from capsule_kernels.interrupts import Interrupts


def ask_again(interrupts: Interrupts) -> None:
    """Have an interrupt that was swallowed signalled once more, and not reported on stderr."""
    report = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        if unraisable.exc_type is KeyboardInterrupt and interrupts.armed and interrupts.asked:
            interrupts.ask_again()
        else:
            report(unraisable)

    sys.unraisablehook = hook


@contextmanager
def let_through(interrupts: Interrupts) -> Iterator[None]:
    """On the main thread: an interrupt is not shown as an error that something has got over, but ends that too."""
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None, /) -> None:
        interrupts.insist()
        report(kind, error, traceback)

    sys.excepthook = hook
    try:
        yield
    finally:
        if sys.excepthook is hook:  # and not one that a user's object has put there
            sys.excepthook = report
