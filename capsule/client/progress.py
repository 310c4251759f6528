"""Showing an execution while it runs: its output as it comes, and how long it has run."""

from __future__ import annotations

import contextvars
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from capsule.events import ClearOutput, Display, Event, Finished, Output
from capsule.events import Progress as Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

TICK = 0.2
"""Seconds between two looks at the clock."""
ERASE_LINE = "\r\x1b[2K"
BAR = 20
"""Characters of a bar."""


class Stage(Protocol):
    """Where an execution is shown. Calls never overlap."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def status(self, text: str) -> None:
        """Show how far it is; "" takes away what was shown."""

    def end(self, text: str) -> None:
        """Show how it ended."""


class Progress:
    """A context manager around one execution: `feed` it all events. A thread of its own lets the time go on."""

    def __init__(self) -> None:
        self._stage = _stage()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._began = 0.0
        self._step = ""
        self._asking = False
        self._ended = ""
        # A notebook finds out from the context which cell an output belongs to.
        context = contextvars.copy_context()
        self._clock = threading.Thread(target=context.run, args=(self._tick,), name="capsule-progress", daemon=True)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._clock.join()
        with self._lock:
            self._stage.status("")
            self._stage.end(f"{self._ended or 'left'} after {self._elapsed()}")

    def feed(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            self._stage.status("")
            if isinstance(event, Step):
                self._step = describe(event)
            elif isinstance(event, Finished):
                self._ended = _verdict(event)
            else:
                self._stage.event(event)
            # The clock shows the status again: who gets the events may print something of his own now.

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While somebody is asked for a line, which is typed where the status would stand."""
        with self._lock:
            self._asking = True
            self._stage.status("")
        try:
            yield
        finally:
            with self._lock:
                self._asking = False

    def _tick(self) -> None:
        while not self._over.wait(TICK):
            with self._lock:
                self._show()

    def _show(self) -> None:
        if not self._asking and not self._ended:
            self._stage.status(f"{self._elapsed()} {self._step}".rstrip())

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"


class Plain:
    """Streams that are no terminal get the code's own bytes, and one line at the end: no control character of ours."""

    def __init__(self) -> None:
        self.at_line_start = True

    def event(self, event: Event) -> None:
        """Output as it is, displays as text."""
        if isinstance(event, Output):
            stream, text = (sys.stdout if event.stream == "stdout" else sys.stderr), event.text
        elif isinstance(event, Display) and "text/plain" in event.data:
            stream, text = sys.stdout, f"{event.data['text/plain']}\n"
        else:
            return
        stream.write(text)
        stream.flush()
        self.at_line_start = text.endswith("\n")

    def status(self, text: str) -> None:
        """Nothing."""

    def end(self, text: str) -> None:
        """One line on stderr."""
        sys.stderr.write(f"{'' if self.at_line_start else chr(10)}capsule: {text}\n")
        sys.stderr.flush()


class Terminal(Plain):
    """The status stands below the output, on a line that is taken away before more comes."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = False

    def event(self, event: Event) -> None:
        """As on a pipe; the code may clear the line that it is on."""
        if isinstance(event, ClearOutput):
            sys.stdout.write(ERASE_LINE)
            sys.stdout.flush()
            self.at_line_start = True
        super().event(event)

    def status(self, text: str) -> None:
        """Only where no line has begun: it belongs to the code."""
        if not text and not self._shown:
            return
        if text and not self.at_line_start:
            return
        room = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"{ERASE_LINE}{text[:room]}")
        sys.stderr.flush()
        self._shown = bool(text)


class Notebook(Plain):
    """Output and displays of the cell that waits; the status is a display that changes."""

    def __init__(self) -> None:
        super().__init__()
        self._handle: Any = None
        self._text = ""

    def event(self, event: Event) -> None:
        """Displays in all their types."""
        from IPython.display import clear_output, display

        if isinstance(event, Display):
            names: dict[str, Any] = {"display_id": event.display_id, "update": event.update} if event.display_id else {}
            display(event.data, metadata=event.metadata, raw=True, **names)
        elif isinstance(event, ClearOutput):
            clear_output(wait=event.wait)
            self._handle = None  # it was cleared too
        else:
            super().event(event)

    def status(self, text: str) -> None:
        """It stays where it is, so there is nothing to be taken away."""
        if text and text != self._text:
            self._text = text
            self._put(f"running: {text}")

    def end(self, text: str) -> None:
        """The last state of the same display."""
        self._put(text)

    def _put(self, text: str) -> None:
        from IPython.display import display

        data = {"text/plain": text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def describe(step: Step) -> str:
    """One line, without its end, that says how far the code says it is."""
    text = "".join(c for c in step.text if c.isprintable())
    if step.total and step.current is not None:
        share = min(max(step.current / step.total, 0.0), 1.0)
        return f"[{'#' * round(share * BAR):<{BAR}}] {share:4.0%} {text}".rstrip()
    return f"{'' if step.current is None else f'{step.current:g} '}{text}".strip()


def _stage() -> Stage:
    if _in_notebook():
        return Notebook()
    return Terminal() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Plain()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs us. Who has not loaded IPython is not in one."""
    loaded = sys.modules.get("IPython")
    shell = None if loaded is None else loaded.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def _verdict(event: Finished) -> str:
    if event.error is None:
        return event.verdict
    text = "".join(c if c.isprintable() else " " for c in f"{event.error.name}: {event.error.message}")
    return f"{event.verdict} ({text.strip(': ')})"
