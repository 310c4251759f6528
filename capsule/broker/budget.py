"""The fault budget of one session at one provider: who fails too often is warned, slowed down, and then kept away.

The state is a matter of how many calls failed within the window, in percent of the budget. `isolated` is left by time:
then one call is let through, and what becomes of it decides. Nothing is counted while it is `isolated`, or isolation
would feed itself. No clock: the time comes in as an argument.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from capsule_protocol.errors import CapabilityDenied

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.broker.packs import BudgetSettings

State = Literal["calm", "warned", "throttled", "isolated", "probing"]
Event = Literal["calm", "warn", "throttle", "isolate", "rested", "failed", "succeeded"]
"""The first four: the percentage of now. `rested`: the pause is over. `failed`, `succeeded`: what the probe did."""

_COUNTED: dict[Event, State] = {"calm": "calm", "warn": "warned", "throttle": "throttled", "isolate": "isolated"}
TRANSITIONS: dict[State, dict[Event, State]] = {
    "calm": _COUNTED,
    "warned": _COUNTED,
    "throttled": _COUNTED,
    "isolated": {"rested": "probing"},
    "probing": {"failed": "isolated", "succeeded": "calm", "rested": "probing"},
}
"""All that can happen; an event that a state does not have changes nothing."""


class Step(NamedTuple):
    """A change of state. `faults` of the window, `percent` of the budget; `pause` in seconds where it is `isolated`."""

    before: State
    state: State
    faults: int
    percent: float
    pause: float = 0.0

    @property
    def why(self) -> str:
        """It in a sentence."""
        failed = f"{self.faults} calls failed within the window, {self.percent:.0f} % of what may"
        if self.before == "probing":
            return (
                "the call that was tried failed" if self.state == "isolated" else "the call that was tried did not fail"
            )
        return "the pause is over: one call is tried" if self.state == "probing" else failed


class Budget:
    """`tell` hears of every step, those that only time has brought about included."""

    def __init__(self, settings: BudgetSettings, tell: Callable[[Step], None] | None = None) -> None:
        self.state: State = "calm"
        self._settings = settings
        self._tell = tell
        self._faults: deque[float] = deque(maxlen=settings.faults)
        self._pause = settings.pause
        self._until = 0.0

    def configure(self, settings: BudgetSettings) -> None:
        """Go on with other settings: the policy was switched. What was counted stays."""
        self._settings = settings
        self._faults = deque(self._faults, maxlen=settings.faults)
        self._pause = min(max(self._pause, settings.pause), settings.longest_pause)

    def check(self, now: float) -> float:
        """Before a call: the seconds that it has to wait, mostly 0.

        Raises CapabilityDenied `capability_isolated`, which is no fault. After the pause the first call gets through,
        and others after what has become of it; if that is never told, the next one after another pause.
        """
        if self.state not in {"isolated", "probing"}:
            self._count(now)
            return self._settings.delay if self.state == "throttled" else 0.0
        if now < self._until:
            raise self._denial(now)
        self._until = now + self._pause
        self._take("rested", now)
        return 0.0

    def fault(self, now: float, *, probe: bool = True) -> Step | None:
        """A call has failed. `probe`: it is the one that was let through, if one is being tried."""
        if self.state == "isolated" or (self.state == "probing" and not probe):  # it was under way before
            return None
        if self.state == "probing":
            self._pause = min(2 * self._pause, self._settings.longest_pause)
            self._until = now + self._pause
            return self._take("failed", now)
        self._faults.append(now)
        return self._count(now)

    def success(self, now: float, *, probe: bool = True) -> Step | None:
        """A call has not failed; `probe` as above."""
        if self.state == "probing":
            if not probe:
                return None
            self._faults.clear()
            self._pause = self._settings.pause
            return self._take("succeeded", now)
        return self._count(now) if self.state != "isolated" else None

    def _count(self, now: float) -> Step | None:
        if not self._faults and self.state == "calm":  # as it is for honest code
            return None
        while self._faults and self._faults[0] <= now - self._settings.window:
            self._faults.popleft()
        percent = self._percent()
        reached: list[tuple[float, Event]] = [
            (self._settings.isolate, "isolate"),
            (self._settings.throttle, "throttle"),
            (self._settings.warn, "warn"),
        ]
        event: Event = next((event for bound, event in reached if percent >= bound), "calm")
        if event == "isolate":
            self._until = now + self._pause
        return self._take(event, now)

    def _take(self, event: Event, now: float) -> Step | None:
        state = TRANSITIONS[self.state].get(event, self.state)
        if state == self.state:
            return None
        pause = self._until - now if state == "isolated" else 0.0
        step = Step(self.state, state, len(self._faults), self._percent(), pause)
        self.state = state
        if self._tell is not None:
            self._tell(step)
        return step

    def _percent(self) -> float:
        return 100 * len(self._faults) / self._settings.faults

    def _denial(self, now: float) -> CapabilityDenied:
        wait = self._until - now
        if self.state == "probing":
            text = "too many calls failed; one is being tried, and what becomes of it decides"
        else:
            text = f"too many calls failed: {len(self._faults)} within {self._settings.window:g} s"
        details = {"state": self.state, "faults": len(self._faults), "retry_after": round(wait, 3)}
        return CapabilityDenied("capability_isolated", text, hint=f"Wait {wait:.1f} s, then try one.", details=details)
