"""`time.sleep` where it can be interrupted only by asking: in threads of subshells, which get no signals."""

from __future__ import annotations

import threading
import time
from functools import wraps
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.aside import AsideInterrupts

_here = threading.local()
_installed: Callable[[Any], None] | None = None


def sleep_by(interrupts: AsideInterrupts) -> None:
    """The calling thread sleeps so that these interrupts wake it."""
    _here.interrupts = interrupts


def install() -> None:
    """Put it in the place of `time.sleep`. Idempotent."""
    global _installed  # noqa: PLW0603  # there is one `time.sleep`
    if time.sleep is _installed:
        return
    plain: Callable[[Any], None] = time.sleep

    @wraps(plain)
    def sleep(seconds: Any, /) -> None:
        interrupts = getattr(_here, "interrupts", None)
        if interrupts is None or not isinstance(seconds, Real) or float(seconds) <= 0:
            plain(seconds)
        else:
            interrupts.sleep(float(seconds))

    time.sleep = _installed = sleep
