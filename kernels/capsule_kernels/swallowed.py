"""Interrupts that Python swallows: raised inside a destructor or a weak reference's callback, they would get lost."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
