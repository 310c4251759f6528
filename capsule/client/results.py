"""What an execution came to: its events, collected into one `Result`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from capsule.events import ClearOutput, CommMessage, Display, ErrorInfo, Event, Finished, Gap, Output, Verdict
from capsule.wire import size_of
from capsule_protocol.errors import ExecutionError

RESULT_LIMIT = 256 * 1024 * 1024
"""Characters (and bytes of displays) that one result holds; what comes after is dropped and counted."""

SHOWN = 60
"""Characters of a text or message that the repr of a result shows."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an execution ended, and all that it showed.

    `text` is the repr of the last expression (`""` for None) and `data` its MIME bundle. `stdout` and `stderr` are all
    that was written there, `displays` what was displayed, with updates applied; `clear_output` forgets all three.
    An update of a display that another execution made is kept, with `update` true. `duration` is in seconds;
    `dropped` counts what a full buffer lost (bytes) or what went beyond `RESULT_LIMIT`, `missing` the events that the
    node had forgotten. `user_expressions` and `payload` are as in Jupyter's `execute_reply`, if they were asked for.
    `comms` is what the code said on comms. `shown`: the value, or the error, is among what was shown already. `epoch`
    is that of the session whose state the code has changed, for `if_epoch` of what builds on it; 0: no worker had it.
    """

    verdict: Verdict
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    displays: list[Display] = field(default_factory=list)
    error: ErrorInfo | None = None
    execution_id: str = ""
    execution_count: int = 0
    duration: float = 0.0
    dropped: int = 0
    missing: int = 0
    user_expressions: dict[str, Any] = field(default_factory=dict)
    payload: list[dict[str, Any]] = field(default_factory=list)
    comms: list[CommMessage] = field(default_factory=list)
    shown: bool = False
    epoch: int = 0

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.verdict == "ok"

    def raise_for_error(self) -> Result:
        """The result itself if its verdict is `ok`; else raises `ExecutionError`, which has it as `.result`."""
        if self.verdict == "ok":
            return self
        raise execution_error(self)

    def __repr__(self) -> str:
        parts = [self.execution_id or "x_?", self.verdict]
        if self.text:
            parts.append(f"text={shorten(self.text)}")
        if self.stdout:
            parts.append(f"stdout={len(self.stdout)}")
        if self.stderr:
            parts.append(f"stderr={len(self.stderr)}")
        if self.displays:
            parts.append(f"displays={len(self.displays)}")
        if self.error is not None:
            parts.append(f"error={shorten(f'{self.error.name}: {self.error.message}')}")
        if self.missing:
            parts.append(f"missing={self.missing}")
        if self.dropped:
            parts.append(f"dropped={self.dropped}")
        return f"<Result {' '.join(parts)}>"


def execution_error(result: Result) -> ExecutionError:
    """The exception that stands for a result whose verdict is not `ok`."""
    info = result.error or ErrorInfo(result.verdict, "", code=f"execution_{result.verdict}")
    message = f"{info.name}: {info.message}" if info.message else info.name
    error = ExecutionError(info.code, message, hint=info.hint or None, retryable=info.retryable, details=info.details)
    error.result = result
    return error


def shorten(text: str) -> str:
    """The repr of a text, cut to what one line can show."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


class Collector:
    """Builds the result of one execution from its events, in order; pure."""

    __slots__ = (
        "_clear_next",
        "_comms",
        "_displays",
        "_dropped",
        "_held",
        "_limit",
        "_missing",
        "_streams",
        "_torn",
        "result",
    )

    def __init__(self, limit: int = RESULT_LIMIT) -> None:
        self.result: Result | None = None
        self._comms: list[CommMessage] = []
        self._limit = limit
        self._dropped = 0
        self._missing = 0
        self._torn = False  # something is missing since the last value or error that was shown
        self._forget()

    def feed(self, event: Event) -> None:
        """Take one event; `result` is there as soon as the verdict was taken."""
        if isinstance(event, Output):
            self._output(event)
        elif isinstance(event, Finished):
            self.result = self._finish(event)
        elif isinstance(event, Display):
            self._display(event)
        elif isinstance(event, CommMessage):
            if self._fits(size_of(event)):
                self._comms.append(event)
        elif isinstance(event, Gap):
            self._missing += event.missing
            self._torn = True
        elif isinstance(event, ClearOutput):
            self._clear_next = event.wait
            if not event.wait:
                self._forget()

    def _forget(self) -> None:
        self._clear_next = False
        self._held = 0
        self._streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._displays: list[Display] = []

    def _fits(self, size: int, freed: int = 0) -> bool:
        if self._held - freed + size > self._limit:
            self._dropped += size
            self._torn = True
            return False
        self._held += size - freed
        return True

    def _output(self, event: Output) -> None:
        if self._clear_next:
            self._forget()
        if self._fits(len(event.text)):
            self._streams[event.stream].append(event.text)

    def _display(self, event: Display) -> None:
        if self._clear_next:
            self._forget()
        shown = self._shown(event.display_id) if event.update and event.display_id is not None else []
        freed = sum(_size(self._displays[index]) for index in shown)
        if not self._fits(_size(event) * max(1, len(shown)), freed):
            return
        for index in shown:
            self._displays[index] = replace(self._displays[index], data=event.data, metadata=event.metadata)
        if not shown:
            self._displays.append(event)
        if event.is_outcome:
            self._torn = False

    def _shown(self, display_id: str) -> list[int]:
        return [index for index, display in enumerate(self._displays) if display.display_id == display_id]

    def _finish(self, event: Finished) -> Result:
        return Result(
            verdict=event.verdict,
            text=event.text,
            data=event.data,
            metadata=event.metadata,
            stdout="".join(self._streams["stdout"]),
            stderr="".join(self._streams["stderr"]),
            displays=self._displays,
            error=event.error,
            execution_id=event.execution_id,
            execution_count=event.execution_count,
            duration=event.duration,
            dropped=event.dropped + self._dropped,
            missing=self._missing,
            user_expressions=event.user_expressions,
            payload=event.payload,
            comms=self._comms,
            shown=event.shown and not self._torn,
            epoch=event.epoch,
        )


def _size(event: Display) -> int:
    return sum(len(value) for value in event.data.values() if isinstance(value, (str, bytes)))
