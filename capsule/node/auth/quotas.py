"""Quotas: how much one principal may use at once. Pure: what is used, and the time, come as arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from capsule.settings.service import QuotaConfig

BURST = 1.0
"""Seconds whose bytes may be used at once after a rest."""
MAX_BUCKETS = 10_000
"""Principals whose rate is remembered: as many as there are keys."""

RATED: Final = frozenset({"open", "execute", "upload", "download", "files", "save", "load"}) | {
    "complete",
    "inspect",
    "is_complete",
    "history",
    "namespace_summary",
    "comm_info",
    "subshell",
    "debug",
}
"""Messages that are refused over `bytes_per_second`; each has an answer.

The others end, steer or go on with what there is, and always come through.
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a principal uses now: `executions` run, `queued` wait behind them; memory in bytes."""

    sessions: int = 0
    executions: int = 0
    queued: int = 0
    memory: int = 0


def check_open(quota: QuotaConfig, usage: Usage) -> None:
    """Whether it may have one more session. Raises SessionError `quota_exceeded`."""
    _check("sessions", usage.sessions + 1, usage.sessions, quota.sessions)
    _check("memory_bytes", usage.memory + 1, usage.memory, quota.memory_bytes)


def check_execute(quota: QuotaConfig, usage: Usage, *, busy: bool) -> None:
    """Whether it may submit code to a session, which is busy or not. Raises SessionError `quota_exceeded`."""
    if busy:
        _check("queued", usage.queued + 1, usage.queued, quota.queued)
    else:
        _check("executions", usage.executions + 1, usage.executions, quota.executions)
    _check("memory_bytes", usage.memory + 1, usage.memory, quota.memory_bytes)


class Bucket:
    """The bytes that a principal may still use. A message may be larger than what is left: what follows it waits."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._left = rate * BURST
        self._seen = now

    def spend(self, size: int, now: float) -> None:
        """So many bytes were carried."""
        self._fill(now)
        self._left -= size

    def check(self, now: float) -> None:
        """Whether it may ask for more. Raises SessionError `quota_exceeded`."""
        self._fill(now)
        if self._left < 1:
            wait = (1 - self._left) / self.rate
            used = round(self.rate * BURST - self._left)
            raise _exceeded("bytes_per_second", used, self.rate, retry_after=round(wait, 3))

    def _fill(self, now: float) -> None:
        self._left = min(self.rate * BURST, self._left + max(0.0, now - self._seen) * self.rate)
        self._seen = now


def _check(limit: str, wanted: int, used: int, allowed: int | None) -> None:
    if allowed is not None and wanted > allowed:
        raise _exceeded(limit, used, allowed)


def _exceeded(limit: str, used: int, allowed: int, **more: Any) -> SessionError:
    message = f"the quota {limit} is used up: {used} in use, {allowed} allowed"
    return SessionError("quota_exceeded", message, details={"limit": limit, "used": used, "allowed": allowed, **more})
