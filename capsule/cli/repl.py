"""`capsule repl`: a console on a session of its own; `capsule attach`: one on a session of a node elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.background import Background
from capsule.cli.interrupts import Interrupts
from capsule.cli.options import address_option, json_option, one_session, session_options, working_directory
from capsule.cli.show import JsonLines, Presenter, Screen
from capsule.cli.sink import Sink
from capsule.cli.stdin import Stdin
from capsule.cli.watch import Onlooker
from capsule.events import Event, Finished
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@click.command()
@click.argument("name")
@click.option("--watch", is_flag=True, help="Take nothing over: show what its executions tell, until Ctrl-C.")
@address_option
@json_option
def attach(name: str, watch: bool, address: str, as_json: bool) -> int:
    """Open a console on the session NAME (or of this id) of a running node.

    It takes the session over: whoever had it is told. On leaving, the session stays, with all that runs in it.
    """
    if watch:
        return Onlooker(name, address, as_json=as_json).run()
    return asyncio.run(Guest(name, address, as_json=as_json).main({}))


class Console:
    """One invocation of `capsule repl`."""

    def __init__(self, *, as_json: bool = False) -> None:
        self._out = Sink(1)
        self._err = Sink(2)
        self._as_json = as_json
        self._screen = Screen(self._out, self._err, echo=True, script=True)
        self._presenter: Presenter = JsonLines(self._out) if as_json else self._screen
        self._stdin = Stdin(self._presenter.prompt)
        self._interrupts = Interrupts(patient=True)

    async def main(self, options: dict[str, Any]) -> int:
        """The exit code."""
        try:
            async with (
                self._interrupts,
                Background(self._show_late) as late,
                self._session(options, late) as session,
            ):
                self._interrupts.session = session
                return await self._loop(session, self._source(session))
        except CapsuleError as error:
            await self._presenter.fail(error)
            return exits.of_error(error)
        except BrokenPipeError:
            return exits.Exit.BROKEN_PIPE

    @asynccontextmanager
    async def _session(self, options: dict[str, Any], late: Background) -> AsyncIterator[AsyncSession]:
        from capsule import AsyncClient

        config = one_session(options.pop("config"))
        options["cwd"] = options["cwd"] or working_directory(config, options["environment"], Path.cwd())
        async with (
            AsyncClient(config=config) as client,
            client.session(**options, argv=("",), path=("",), on_background=late) as session,
        ):
            yield session

    async def _show_late(self, event: Event) -> None:
        if not self._stdin.terminal or self._as_json:
            await self._presenter.show(event)
            return
        from prompt_toolkit.application.run_in_terminal import in_terminal

        async with in_terminal():  # above the prompt, where there is one
            await self._screen.show(event)
            await self._out.fresh_line()

    def _source(self, session: AsyncSession) -> Prompt | Lines:
        if self._stdin.terminal and self._out.terminal and not self._as_json:
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
                if not self._as_json:
                    await self._screen.tell("a new worker runs; the state of the old one is gone")
        return exits.Exit.OK

    async def _run(self, session: AsyncSession, code: str) -> Finished:
        with self._interrupts.armed():
            async with session.stream(code, on_input=self._stdin.answer) as events:
                async for event in events:
                    await self._presenter.show(event)
                    if isinstance(event, Finished):
                        await self._out.fresh_line()
                        return event
        raise AssertionError("a stream ended without its verdict")


class Guest(Console):
    """One invocation of `capsule attach`."""

    def __init__(self, name: str, address: str, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self._name = name
        self._address = address

    @asynccontextmanager
    async def _session(self, options: dict[str, Any], late: Background) -> AsyncIterator[AsyncSession]:  # noqa: ARG002 - the session has its own
        from capsule import AsyncClient

        async with AsyncClient(self._address) as client:
            session = await client.attach(self._name, on_background=late)
            try:
                yield session
            finally:
                if session.state != "closed":  # taken over, or killed, meanwhile
                    await session.detach()


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
