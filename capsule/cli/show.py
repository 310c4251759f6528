"""Showing the events of executions: as a screen of text, or as JSON lines."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from capsule.cli import render
from capsule.cli.exits import is_system_exit, of_system_exit
from capsule.client.progress import describe
from capsule.events import ERROR, ClearOutput, Display, Event, Finished, Gap, Output, Progress, Status
from capsule.text import question

if TYPE_CHECKING:
    from capsule.cli.sink import Sink
    from capsule.events import InputRequest
    from capsule_protocol.errors import CapsuleError

ERASE_LINE = "\r\x1b[2K"


class Presenter(Protocol):
    """Where events go. `cell` and `note` belong to notebooks: a cell begins, a text stands between cells."""

    async def show(self, event: Event) -> None:
        """Show one event."""

    async def cell(self, number: int, source: str) -> None:
        """The cell of this number is about to run."""

    async def note(self, markdown: str) -> None:
        """A notebook's markdown cell."""

    async def fail(self, error: CapsuleError) -> None:
        """An error that is not the code's own."""

    async def prompt(self, request: InputRequest) -> None:
        """A question of the code, which waits for a line; or the same again, with what was wrong with the answer."""


class Screen:
    """Text on stdout and stderr: the code's own bytes untouched; what we add is plain on a pipe, rich on a terminal.

    `echo`: values of last expressions are shown. `script`: `SystemExit` is no failure to be shown.
    """

    def __init__(self, out: Sink, err: Sink, *, echo: bool, script: bool = False) -> None:
        self._out = out
        self._err = err
        self._echo = echo
        self._script = script
        self._progress = False

    async def show(self, event: Event) -> None:
        """Show one event."""
        if self._progress:
            await self._err.write(ERASE_LINE)
            self._progress = False
        match event:
            case Output():
                await self._output(event)
            case Display() if ERROR in event.data:
                await self._tell_line(_as_text(event.data, self._err))
            case Display():
                await self._bundle(event.data)
            case ClearOutput() if self._out.terminal:
                await self._out.write(ERASE_LINE)
            case Progress() if self._err.terminal:
                await self._err.write(describe(event))
                self._progress = True
            case Status() if self._err.terminal:
                await self.tell(f"{event.state}: {event.reason}" if event.reason else event.state)
            case Gap():
                lost = f"{event.missing} events are" if event.missing else "events may be"
                await self.tell(f"{lost} missing here")
            case Finished():
                await self._finished(event)
            case _:
                return

    async def cell(self, number: int, source: str) -> None:  # noqa: ARG002 - JSON lines use the number
        """On a terminal, the source of the cell."""
        if self._out.terminal:
            await self._out.fresh_line()
            await self._out.write(render.rich_cell(source))

    async def note(self, markdown: str) -> None:
        """On a terminal, the text."""
        if self._out.terminal:
            await self._out.fresh_line()
            await self._out.write(render.rich_markdown(markdown))

    async def fail(self, error: CapsuleError) -> None:
        """One line on stderr."""
        await self._tell_line(render.message(error.message, error.code, error.hint))

    async def prompt(self, request: InputRequest) -> None:
        """The question, with what is allowed."""
        await self._out.write(question(request))
        if self._out.terminal:
            self._out.at_line_start = True  # the user's Enter ends the line

    async def _output(self, event: Output) -> None:
        if event.dropped:
            await self.tell(f"{event.dropped} bytes of {event.stream} were dropped")
        await (self._out if event.stream == "stdout" else self._err).write(event.text)

    async def _finished(self, event: Finished) -> None:
        if event.dropped:
            await self.tell(f"{event.dropped} bytes of output were dropped")
        if self._echo and event.data and not event.shown:
            await self._bundle(event.data)
        if event.error is None or event.shown:
            return
        if self._script and is_system_exit(event):
            _, text = of_system_exit(event.error)
            await self._tell_line(f"{text}\n" if text else "")
        else:
            rich = self._err.terminal
            await self._tell_line(render.rich_error(event.error) if rich else render.plain_error(event.error))

    async def _bundle(self, data: dict[str, Any]) -> None:
        await self._out.fresh_line()
        await self._out.write(_as_text(data, self._out))

    async def tell(self, text: str) -> None:
        """A remark of ours, on stderr."""
        await self._tell_line(f"capsule: {text}\n")

    async def _tell_line(self, text: str) -> None:
        """Something of our own on stderr, on a line of its own (on a terminal both streams share the screen)."""
        if not text:
            return
        if self._out.terminal and self._err.terminal:
            await self._out.fresh_line()
        await self._err.fresh_line()
        await self._err.write(text)


class JsonLines:
    """One JSON object per line on stdout for each event, and one for an error of Capsule itself."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._cell: int | None = None

    async def show(self, event: Event) -> None:
        """One line."""
        await self._line(as_json(event))

    async def cell(self, number: int, source: str) -> None:  # noqa: ARG002 - the reader has the notebook
        """The lines from here on carry the number of the cell."""
        self._cell = number

    async def note(self, markdown: str) -> None:
        """Nothing: the reader has the notebook."""

    async def fail(self, error: CapsuleError) -> None:
        """One line of the kind `failure`."""
        await self._line({"event": "failure", "error": error.as_dict()})

    async def prompt(self, request: InputRequest) -> None:
        """One line if it is asked again: the first time the event tells of it."""
        if request.refused:
            await self._line(as_json(request))

    async def _line(self, content: dict[str, Any]) -> None:
        if self._cell is not None:
            content["cell"] = self._cell
        await self._out.write(json.dumps(content, ensure_ascii=False, default=_plain) + "\n")


def _as_text(data: dict[str, Any], to: Sink) -> str:
    return render.rich_bundle(data) if to.terminal else render.plain_bundle(data)


def as_json(event: Event) -> dict[str, Any]:
    """An event as a JSON object: its kind as `event` (`input_request` for InputRequest), then its fields."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": kind, **{field.name: getattr(event, field.name) for field in fields(event)}}


def _plain(value: object) -> object:
    """What JSON does not know: bytes become base64, dataclasses their fields, anything else its repr."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return repr(value)
