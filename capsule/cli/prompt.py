"""The prompt of the console on a terminal: lines until the session calls them complete, completion, history."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.styles import Style

from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from prompt_toolkit.application import Application
    from prompt_toolkit.document import Document
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.key_binding import KeyPress

    from capsule.client.session import AsyncSession

PATIENCE = 2.0
"""Seconds that a question to the session may take; a task of the user's may keep it busy."""


class Prompt:
    """Asks for cells. Enter ends a cell that is complete, and begins a new line in one that is not."""

    def __init__(self, session: AsyncSession) -> None:
        from IPython.lib.lexers import IPython3Lexer

        self._session = session
        self._held: list[KeyPress] | None = None  # keys that came while the session was asked about the last Enter
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(),
            completer=SessionCompleter(session),
            complete_while_typing=False,
            key_bindings=self._bindings(),
            lexer=PygmentsLexer(IPython3Lexer),
            multiline=True,
            prompt_continuation=_continuation,
            style=Style.from_dict({"prompt": "bold ansigreen", "continuation": "ansigreen"}),
        )

    async def cell(self) -> str | None:
        """The next cell; None on Ctrl-D. Ctrl-C begins it anew."""
        while True:
            self._held = None
            try:
                code = await self._prompt.prompt_async([("class:prompt", ">>> ")])
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None
            if code.strip():
                return code

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        asking = Condition(lambda: self._held is not None)
        editing = has_focus(DEFAULT_BUFFER) & ~asking
        bindings.add(Keys.Any, filter=asking, eager=True)(self._hold)
        bindings.add(Keys.Enter, filter=editing)(self._enter)
        bindings.add(Keys.Tab, filter=editing & Condition(_in_indentation))(_indent)
        return bindings

    def _hold(self, event: KeyPressEvent) -> None:
        if self._held is not None:
            self._held += event.key_sequence

    def _enter(self, event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_state = None  # the menu only; the completion is in the text already
        elif buffer.document.text_after_cursor.strip():
            buffer.newline(copy_margin=True)
        else:
            self._held = []
            event.app.create_background_task(self._decide(event.app, buffer.text))

    async def _decide(self, app: Application[str], text: str) -> None:
        try:
            answer = await self._session.is_complete(text + "\n", timeout=PATIENCE)
            indent = answer.indent if answer.status == "incomplete" else None
        except CapsuleError:
            indent = None  # running the cell tells what is wrong
        held, self._held = self._held or [], None
        buffer = app.current_buffer
        if indent is None:
            buffer.append_to_history()
            app.exit(result=text)
        else:
            buffer.insert_text("\n" + indent)
        app.key_processor.feed_multiple(held)
        app.key_processor.process_keys()


class SessionCompleter(Completer):
    """Completion by the session, which knows the values."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    def get_completions(
        self,
        document: Document,  # noqa: ARG002 - the interface of prompt_toolkit
        complete_event: CompleteEvent,  # noqa: ARG002
    ) -> Iterator[Completion]:
        """Nothing: the session can only be asked asynchronously."""
        return iter(())

    async def get_completions_async(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002
    ) -> AsyncGenerator[Completion, None]:
        """What may stand at the cursor."""
        try:
            answer = await self._session.complete(document.text, document.cursor_position, timeout=PATIENCE)
        except CapsuleError:
            return
        start = answer.start - document.cursor_position
        for match in answer.matches:
            yield Completion(match, start_position=start, display=match.rpartition(".")[2] or match)


def _in_indentation() -> bool:
    return not get_app().current_buffer.document.current_line_before_cursor.strip()


def _indent(event: KeyPressEvent) -> None:
    column = event.current_buffer.document.cursor_position_col
    event.current_buffer.insert_text(" " * (4 - column % 4))


def _continuation(width: int, _line: int, _wraps: int) -> StyleAndTextTuples:
    return [("class:continuation", "... ".rjust(width))]


def _history() -> History:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = Path(state) / "capsule" / "history"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:  # a home that cannot be written: what is typed is kept as long as the console lives
        return InMemoryHistory()
    return FileHistory(file)
