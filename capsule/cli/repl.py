"""`capsule repl`: a console on a session."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.background import Background
from capsule.cli.interrupts import Interrupts
from capsule.cli.options import one_session, session_options
from capsule.cli.show import Screen
from capsule.cli.sink import Sink
from capsule.cli.stdin import Stdin
from capsule.events import Event, Finished
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule.cli.prompt import Prompt
    from capsule.client.session import AsyncSession

FAREWELLS = frozenset({"exit", "quit", "exit()", "quit()"})
"""Cells that leave the console."""


@click.command()
@session_options
def repl(**session: Any) -> int:
    """Open a console on a session.

    On a terminal: several lines, completion (Tab), history; Ctrl-C interrupts the cell or clears the line, Ctrl-D
    leaves. On a pipe it reads cells from stdin and prints what they show.
    """
    return asyncio.run(Console().main(session))


class Console:
    """One invocation of `capsule repl`."""

    def __init__(self) -> None:
        self._out = Sink(1)
        self._err = Sink(2)
        self._screen = Screen(self._out, self._err, echo=True, script=True)
        self._stdin = Stdin(self._screen.prompt)
        self._interrupts = Interrupts(patient=True)

    async def main(self, options: dict[str, Any]) -> int:
        """The exit code."""
        from capsule import AsyncClient

        options["cwd"] = options["cwd"] or str(Path.cwd())
        try:
            async with (
                self._interrupts,
                Background(self._show_late) as late,
                AsyncClient(config=one_session(options.pop("config"))) as client,
                client.session(**options, argv=("",), path=("",), on_background=late) as session,
            ):
                self._interrupts.session = session
                return await self._loop(session, self._source(session))
        except CapsuleError as error:
            await self._screen.fail(error)
            return exits.of_error(error)
        except BrokenPipeError:
            return exits.Exit.BROKEN_PIPE

    async def _show_late(self, event: Event) -> None:
        if not self._stdin.terminal:
            await self._screen.show(event)
            return
        from prompt_toolkit.application.run_in_terminal import in_terminal

        async with in_terminal():  # above the prompt, where there is one
            await self._screen.show(event)
            await self._out.fresh_line()

    def _source(self, session: AsyncSession) -> Prompt | Lines:
        if self._stdin.terminal and self._out.terminal:
            from capsule.cli.prompt import Prompt

            return Prompt(session)
        return Lines(session, self._stdin)

    async def _loop(self, session: AsyncSession, source: Prompt | Lines) -> int:
        while (code := await source.cell()) is not None:
            if code.strip() in FAREWELLS:
                break
            finished = await self._run(session, code)
            if exits.is_system_exit(finished) and finished.error is not None:
                return exits.of_system_exit(finished.error)[0]
            if session.state == "dead":
                await session.restart()
                await self._screen.tell("a new worker runs; the state of the old one is gone")
        return exits.Exit.OK

    async def _run(self, session: AsyncSession, code: str) -> Finished:
        with self._interrupts.armed():
            async with session.stream(code, on_input=self._stdin.answer) as events:
                async for event in events:
                    await self._screen.show(event)
                    if isinstance(event, Finished):
                        await self._out.fresh_line()
                        return event
        raise AssertionError("a stream ended without its verdict")


class Lines:
    """Cells from lines of text, as `python -i` takes them from a pipe: one ends where it is complete."""

    def __init__(self, session: AsyncSession, stdin: Stdin) -> None:
        self._session = session
        self._stdin = stdin

    async def cell(self) -> str | None:
        """The lines up to a complete cell, or up to the end of the input."""
        code = ""
        while (line := await self._stdin.line()) is not None:
            code += line + "\n"
            if code.strip() and (await self._session.is_complete(code)).status != "incomplete":
                return code
        return code if code.strip() else None
