"""A store as one would explain it: a second, slower and simpler account of what the contract says.

It shares no code with `capsule_bridge.rules`, or it would share their mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

STATES = {"resolve": "resolved", "reject": "rejected", "cancel": "rejected_canceled"}


class Refusal(Exception):
    """Carries the code."""


@dataclass
class Known:
    """One promise."""

    key: str | None
    fingerprint: bytes
    parent: str | None
    timeout_at: int | None
    state: str = "pending"
    value: bytes = b""
    settled_at: int | None = None
    starts: list[int] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    trimmed: int = 0


class Model:
    """Promises by name, and the names that have been buried with the time until which that is remembered."""

    def __init__(self) -> None:
        self.promises: dict[str, Known] = {}
        self.buried: dict[str, tuple[int, str | None]] = {}

    def create(
        self,
        name: str,
        key: str | None,
        fingerprint: bytes,
        parent: str | None,
        timeout_at: int | None,
        now: int,
        *,
        epoch: int | None = None,
        log: Sequence[bytes] = (),
    ) -> tuple[str, bool]:
        """The name of the promise, and whether it is new."""
        same = [n for n, known in self.promises.items() if key is not None and known.key == key]
        found = same[0] if same else name if name in self.promises else None
        if found is not None:
            known = self.promises[found]
            if (known.fingerprint, known.parent) != (fingerprint, parent) or known.key != key:
                raise Refusal("idempotency_conflict")
            self.look(found, now)
            return found, False
        if name in self.buried or any(key is not None and key == other for _, other in self.buried.values()):
            raise Refusal("promise_expired")
        if parent is not None:
            if parent not in self.promises:
                raise Refusal("promise_unknown")
            above = self.promises[parent]
            # To look at the parent here would write its time-out down; whether it has timed out is all that matters.
            if above.state != "pending" or self._is_due(above, now):
                raise Refusal("promise_settled")
        self.promises[name] = Known(key, fingerprint, parent, timeout_at, log=list(log))
        self.look(name, now)
        if epoch is not None:
            self.start(name, epoch, now)
        return name, True

    def look(self, name: str, now: int) -> Known:
        """The promise at that time."""
        known = self.find(name)
        if self._is_due(known, now):
            assert known.timeout_at is not None
            self._end(name, "rejected_timedout", b"", known.timeout_at)
        return known

    def start(self, name: str, epoch: int, now: int) -> bool:
        known = self.look(name, now)
        if known.state != "pending":
            return False
        if known.starts and epoch < known.starts[-1]:
            raise Refusal("promise_fenced")
        known.starts.append(epoch)
        return len(known.starts) == 1

    def settle(
        self,
        name: str,
        action: str,
        value: bytes,
        fence: tuple[int, int] | None,
        now: int,
        log: Sequence[bytes] = (),
        after: int = 0,
    ) -> bool:
        known = self.look(name, now)
        if known.state != "pending":
            return False
        self._check(known, fence)
        if log:
            self.append(name, log, after, fence)
        self._end(name, STATES[action], value, now)
        return True

    def append(self, name: str, events: Sequence[bytes], after: int, fence: tuple[int, int] | None) -> int:
        known = self.find(name)
        if after > len(known.log):
            raise Refusal("sequence_gap")
        for place, event in enumerate(events, start=after):
            if self.trimmed_or_same(known, place, event):
                continue
            raise Refusal("sequence_gap")
        added = events[len(known.log) - after :]
        if added:
            if known.state != "pending":
                raise Refusal("promise_settled")
            self._check(known, fence)
            known.log += added
        return len(known.log)

    def trimmed_or_same(self, known: Known, place: int, event: bytes) -> bool:
        return place < known.trimmed or place >= len(known.log) or known.log[place] == event

    def trim(self, name: str, upto: int) -> None:
        known = self.find(name)
        known.trimmed = max(known.trimmed, min(upto, len(known.log)))

    def pending(self, now: int) -> list[str]:
        return [n for n, known in self.promises.items() if known.state == "pending" and not self._is_due(known, now)]

    def expire(self, now: int, results: int, tombstones: int) -> None:
        for name in list(self.promises):
            self.look(name, now)
        for name, known in list(self.promises.items()):
            if known.settled_at is not None and known.settled_at + results <= now:
                del self.promises[name]
                self.buried[name] = now + tombstones, known.key
        self.buried = {name: (until, key) for name, (until, key) in self.buried.items() if until > now}

    def find(self, name: str) -> Known:
        if name in self.promises:
            return self.promises[name]
        raise Refusal("promise_expired" if name in self.buried else "promise_unknown")

    def _end(self, name: str, state: str, value: bytes, at: int) -> None:
        known = self.promises[name]
        known.state, known.value, known.settled_at = state, value, at
        for child, below in list(self.promises.items()):
            if below.parent == name and below.state == "pending":
                if self._is_due(below, at):
                    assert below.timeout_at is not None
                    self._end(child, "rejected_timedout", b"", below.timeout_at)
                else:
                    self._end(child, "rejected_canceled", b"", at)

    @staticmethod
    def _is_due(known: Known, now: int) -> bool:
        return known.state == "pending" and known.timeout_at is not None and known.timeout_at <= now

    @staticmethod
    def _check(known: Known, fence: tuple[int, int] | None) -> None:
        owner = (known.starts[-1], len(known.starts)) if known.starts else (0, 0)
        if fence is not None and fence != owner:
            raise Refusal("promise_fenced")
