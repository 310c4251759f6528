"""The clocks. Time limits do not hang on the date, but tokens, logs and certificates do."""

from __future__ import annotations

import asyncio
import time

from capsule.doctor.finding import Finding

EARLIEST = 1_735_689_600.0
"""2025: before this program was written."""
LATEST = 4_102_444_800.0
"""2100."""
LOOK = 0.25
"""Seconds between two looks at both clocks."""
STEP = 0.05
"""Seconds that they may drift apart meanwhile; adjusting a clock slowly moves it by less than a thousandth of that."""


async def examine() -> list[Finding]:
    """What is to be said of them."""
    before = time.time() - time.monotonic()
    await asyncio.sleep(LOOK)
    return [date(time.time()), steady(time.time() - time.monotonic() - before)]


def date(now: float) -> Finding:
    """Whether the date can be."""
    if EARLIEST <= now <= LATEST:
        return Finding("clock_date", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))
    hint = "Set the clock, or have it set (systemd-timesyncd, chrony)."
    return Finding("clock_date", "error", f"the clock says {now:.0f} seconds since 1970", hint)


def steady(moved: float) -> Finding:
    """Whether the date went on as the monotonic clock did, but for so many seconds."""
    if abs(moved) <= STEP:
        return Finding("clock_steady", "ok", "both clocks go at the same pace")
    hint = "Something sets the clock in steps. Times in logs are off; sessions and their time limits do not notice."
    return Finding("clock_steady", "warning", f"the clock moved by {moved:+.3f} s within {LOOK} s", hint)
