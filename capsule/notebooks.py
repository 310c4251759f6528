"""Notebooks: running their cells in a session, and recording what these show as notebook outputs (nbformat 4)."""

from __future__ import annotations

import base64
import os
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat
from nbformat.v4 import new_output
from nbformat.validator import iter_validate

from capsule.events import ClearOutput, Display, Event, Finished, Output
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from capsule.client.inputs import OnInput
    from capsule.client.session import AsyncSession

RAISES = "raises-exception"
"""The tag of a cell that may fail without ending the run."""

SKIP = "skip-execution"
"""The tag of a cell that is not run."""


class CellEvent(NamedTuple):
    """An event of a notebook: the number of its cell among all cells, the cell, and the event itself.

    The first of a cell has no event: a code cell is about to run, or it was a cell of another kind's turn.
    """

    number: int
    cell: Any
    event: Event | None


def read(path: str | Path) -> Any:
    """The notebook in a file, in nbformat 4; raises `ArgumentError` for anything that is not a Python notebook."""
    try:
        text = Path(path).read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old notebooks lack cell ids, which `reads` adds
            notebook = nbformat.reads(text, as_version=4)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        raise _not_a_notebook(path, error) from error
    for flaw in iter_validate(notebook):
        # Metadata that breaks the schema is common and harms nothing here.
        if not flaw.path or flaw.path[0] != "metadata":
            raise _not_a_notebook(path, flaw) from flaw
    language = _language(notebook)
    if language != "python":
        raise ArgumentError("path", f"{str(path)!r} is written in {language}", allowed="notebooks in Python")
    return notebook


def write(notebook: Any, path: str | Path) -> None:
    """Write a notebook to a file, which is replaced as a whole or not at all."""
    target = Path(os.path.realpath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(nbformat.writes(notebook).rstrip("\n") + "\n")
        Path(temporary).chmod(_mode(target))
        Path(temporary).replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


class NotebookRun:
    """Runs the code cells in order and puts what they show into the notebook; iterate over `events()`.

    All old outputs go first. The run ends after the first cell that fails, unless `allow_errors` or its tag
    `raises-exception` says otherwise; an interrupt and the end of the worker always end it. `failure` is the verdict
    that ended it early. `timeout` is for each cell.
    """

    def __init__(
        self,
        session: AsyncSession,
        notebook: Any,
        *,
        timeout: float | None = None,
        allow_errors: bool = False,
        on_input: OnInput | None = None,
    ) -> None:
        self.failure: Finished | None = None
        self._session = session
        self._notebook = notebook
        self._timeout = timeout
        self._allow_errors = allow_errors
        self._on_input = on_input

    async def events(self) -> AsyncGenerator[CellEvent, None]:
        """Every event as it comes; a slow reader slows the code."""
        recorder = Recorder(self._notebook)
        try:
            for number, cell in enumerate(self._notebook.cells):
                if cell.cell_type == "code" and (not cell.source.strip() or SKIP in _tags(cell)):
                    continue
                yield CellEvent(number, cell, None)
                if cell.cell_type != "code":
                    continue
                recorder.begin(cell)
                async for event in self._cell_events(cell):
                    recorder.feed(event)
                    yield CellEvent(number, cell, event)
                    if isinstance(event, Finished) and not self._may_go_on(cell, event):
                        self.failure = event
                        return
        finally:
            recorder.end()

    async def _cell_events(self, cell: Any) -> AsyncGenerator[Event, None]:
        async with self._session.stream(cell.source, timeout=self._timeout, on_input=self._on_input) as events:
            async for event in events:
                yield event
                if isinstance(event, Finished):
                    # Going on would raise what `on_input` raised: an end of input is the code's matter, not ours.
                    return

    def _may_go_on(self, cell: Any, finished: Finished) -> bool:
        if finished.verdict == "ok":
            return True
        tolerated = self._allow_errors or RAISES in _tags(cell)
        return tolerated and finished.verdict in {"error", "timeout"} and self._session.state != "dead"


class Recorder:
    """Turns the events of cells into their outputs; pure. Creating one takes all old outputs out of the notebook."""

    def __init__(self, notebook: Any) -> None:
        self._cell: Any = None
        self._clear_next = False
        self._text: list[str] = []  # of the last output, while that is a stream which may go on
        self._shown: dict[str, list[Any]] = {}  # the outputs of each display id, in all cells
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
                cell.execution_count = None

    def begin(self, cell: Any) -> None:
        """What is fed from now on belongs to this cell."""
        self.end()
        self._cell = cell
        self._clear_next = False

    def end(self) -> None:
        """Complete the output that was still growing."""
        if self._text:
            self._cell.outputs[-1].text = "".join(self._text)
            self._text = []

    def feed(self, event: Event) -> None:
        """Take one event of the current cell."""
        match event:
            case Output():
                self._stream(event)
            case Display():
                self._display(event)
            case ClearOutput(wait=True):
                self._clear_next = True
            case ClearOutput():
                self._clear()
            case Finished():
                self._finish(event)
            case _:
                return

    def _stream(self, event: Output) -> None:
        if self._clear_next:
            self._clear()
        outputs = self._cell.outputs
        if not (self._text and outputs[-1].name == event.stream):
            self.end()
            outputs.append(new_output("stream", name=event.stream, text=""))
        self._text.append(event.text)

    def _display(self, event: Display) -> None:
        data, metadata = _bundle(event.data), nbformat.from_dict(event.metadata)
        if event.update:
            for output in self._shown.get(event.display_id or "", []):
                output.data, output.metadata = data, metadata
            return
        if event.execution_count:
            self._add("execute_result", data=data, metadata=metadata, execution_count=event.execution_count)
            return
        output = self._add("display_data", data=data, metadata=metadata)
        if event.display_id is not None:
            self._shown.setdefault(event.display_id, []).append(output)

    def _finish(self, event: Finished) -> None:
        self._cell.execution_count = count = event.execution_count or None
        if event.data:
            data, metadata = _bundle(event.data), nbformat.from_dict(event.metadata)
            self._add("execute_result", data=data, metadata=metadata, execution_count=count)
        if event.error is not None:
            error = event.error
            self._add("error", ename=error.name, evalue=error.message, traceback=list(error.traceback))
        self.end()

    def _add(self, kind: str, **content: Any) -> Any:
        if self._clear_next:
            self._clear()
        self.end()
        output = new_output(kind, **content)
        self._cell.outputs.append(output)
        return output

    def _clear(self) -> None:
        self._clear_next = False
        self._text = []
        gone = {id(output) for output in self._cell.outputs}
        for outputs in self._shown.values():
            outputs[:] = [output for output in outputs if id(output) not in gone]
        self._cell.outputs = []


def _bundle(data: dict[str, Any]) -> Any:
    """A MIME bundle as notebooks keep it: bytes as base64 text, and anything else but JSON as text."""
    return nbformat.from_dict({mime: _content(mime, value) for mime, value in data.items()})


def _content(mime: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if isinstance(value, str) or mime.endswith("json") else repr(value)


def _not_a_notebook(path: str | Path, error: Exception) -> ArgumentError:
    reason = str(error).strip().partition("\n")[0]
    return ArgumentError("path", f"{str(path)!r} is not a notebook: {reason}", allowed="nbformat 4 or older")


def _tags(cell: Any) -> list[str]:
    tags = cell.metadata.get("tags", [])
    return tags if isinstance(tags, list) else []


def _language(notebook: Any) -> str:
    metadata = notebook.metadata
    kernel, info = metadata.get("kernelspec", {}), metadata.get("language_info", {})
    return str(info.get("name") or kernel.get("language") or "python").lower()


def _mode(target: Path) -> int:
    """The permissions of the file to be replaced, or those that a new file gets."""
    with suppress(FileNotFoundError):
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
