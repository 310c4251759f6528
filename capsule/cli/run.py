"""`capsule run`: a script, a notebook or a piece of code, in a session that ends with it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.background import Background
from capsule.cli.elapsed import Elapsed
from capsule.cli.interrupts import Interrupts
from capsule.cli.options import one_session, session_options, working_directory
from capsule.cli.program import Program, load
from capsule.cli.show import JsonLines, Presenter, Screen
from capsule.cli.sink import Sink
from capsule.cli.stdin import Stdin
from capsule.events import Finished, Output
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule.client.session import AsyncSession


_LEAVE = '__import__("capsule_kernels.leaving").leaving.leave()'
"""What the interpreter does at its end: wait for threads, then the exit functions."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `capsule run` that are not the session's."""

    timeout: float | None
    json: bool
    allow_errors: bool
    output: Path | None
    progress: bool


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("arguments", metavar="FILE|- [ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-c", "code", metavar="CODE", help="Run this code; all arguments are its own.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End the code (each cell of a notebook) after this time.",
)
@click.option("--progress", is_flag=True, help="Show how long the code has run, and in the end how long it took.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per event and line.")
@click.option("--allow-errors", is_flag=True, help="Notebooks: go on after a cell that failed.")
@click.option(
    "--output",
    metavar="OUT.ipynb",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Notebooks: write the notebook with its outputs to this file.",
)
@session_options
def run(
    arguments: tuple[str, ...],
    code: str | None,
    timeout: float | None,
    progress: bool,
    as_json: bool,
    allow_errors: bool,
    output: Path | None,
    **session: Any,
) -> int:
    """Run FILE.py, FILE.ipynb, CODE, or the code on stdin (-), and show its output as it comes.

    ARGS become the code's sys.argv. Exit code: 0 the code ended, 1 it raised, 2 wrong usage, 3 Capsule or the worker
    failed, 124 time-out, 130 interrupted; a script's own sys.exit(n) gives n.
    """
    program = load(code, arguments)
    if progress and as_json:
        raise click.UsageError("--progress is for people, --json for programs.")
    if program.notebook is None and (allow_errors or output is not None):
        raise click.UsageError("--allow-errors and --output are for notebooks (FILE.ipynb).")
    if output is not None and not output.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder of {str(output)!r} does not exist.", param_hint="--output")
    settings = Settings(timeout, as_json, allow_errors, output, progress)
    return asyncio.run(Run(program, settings).main(session))


class Run:
    """One invocation of `capsule run`."""

    def __init__(self, program: Program, settings: Settings) -> None:
        self._program = program
        self._settings = settings
        self._interrupts = Interrupts()
        self._out = Sink(1)
        notebook = program.notebook is not None
        err = Sink(2)
        plain = Screen(self._out, err, echo=notebook, script=not notebook)
        self._elapsed = Elapsed(plain, self._out, err) if settings.progress else None
        screen = self._elapsed or plain
        self._presenter: Presenter = JsonLines(self._out) if settings.json else screen
        self._stdin = Stdin(self._presenter.prompt)

    async def main(self, options: dict[str, Any]) -> int:
        """The exit code."""
        try:
            async with self._interrupts:
                with self._interrupts.armed():
                    return await self._session(options)
        except asyncio.CancelledError:
            if not self._interrupts.quit:
                raise
            return exits.Exit.INTERRUPTED
        except CapsuleError as error:
            await self._presenter.fail(error)
            return exits.of_error(error)
        except BrokenPipeError:
            return exits.Exit.BROKEN_PIPE

    async def _session(self, options: dict[str, Any]) -> int:
        from capsule import AsyncClient

        program = self._program
        folder = Path.cwd() if program.notebook is None else program.notebook.parent
        config = one_session(options.pop("config"))
        options["cwd"] = options["cwd"] or working_directory(config, options["environment"], folder)
        notebook = None if program.notebook is None else _read(program.notebook)
        async with (
            Background(self._presenter.show) as late,
            AsyncClient(config=config) as client,
            client.session(**options, argv=program.argv, path=(program.path,), on_background=late) as session,
            AsyncExitStack() as shown,
        ):
            if program.file is not None:
                await session.run(f"__file__ = {program.file!r}", quiet=True, store_history=False)
            self._interrupts.session = session
            if self._elapsed is not None:
                await shown.enter_async_context(self._elapsed)
            finished = await (self._code(session) if notebook is None else self._notebook(session, notebook))
        return self._exit_code(finished)

    async def _code(self, session: AsyncSession) -> Finished | None:
        program, settings = self._program, self._settings
        stream = session.stream(
            program.code, timeout=settings.timeout, on_input=self._stdin.answer, quiet=True, cell=program.name
        )
        finished = None
        async with stream as events:
            async for event in events:
                await self._presenter.show(event)
                if isinstance(event, Finished):
                    finished = event
                    break  # going on would raise the end of our stdin, which was the code's matter
        if finished is None or finished.verdict not in {"ok", "error"}:
            return finished
        return await self._leave(session, finished)

    async def _leave(self, session: AsyncSession, finished: Finished) -> Finished:
        """End the code as the end of a Python process does, within what is left of the time."""
        timeout = self._settings.timeout
        left = None if timeout is None else max(timeout - finished.duration, 0.1)
        async with session.stream(_LEAVE, timeout=left, quiet=True, store_history=False) as events:
            async for event in events:
                if isinstance(event, Output):
                    await self._presenter.show(event)
                elif isinstance(event, Finished) and event.verdict != "ok":
                    await self._presenter.show(event)
                    return event
        return finished

    async def _notebook(self, session: AsyncSession, notebook: Any) -> Finished | None:
        from capsule import notebooks

        settings = self._settings
        cells = notebooks.NotebookRun(
            session, notebook, timeout=settings.timeout, allow_errors=settings.allow_errors, on_input=self._stdin.answer
        )
        try:
            async with aclosing(cells.events()) as events:
                async for number, cell, event in events:
                    if event is not None:
                        await self._presenter.show(event)
                    elif cell.cell_type == "code":
                        await self._presenter.cell(number, cell.source)
                    elif cell.cell_type == "markdown":
                        await self._presenter.note(cell.source)
        finally:
            if settings.output is not None:
                _write(notebook, settings.output)
        return cells.failure

    def _exit_code(self, finished: Finished | None) -> int:
        if finished is None:
            return exits.Exit.OK
        if self._program.notebook is None and exits.is_system_exit(finished) and finished.error is not None:
            return exits.of_system_exit(finished.error)[0]
        return exits.of_verdict(finished.verdict, interrupted=self._interrupts.pressed > 0)


def _read(path: Path) -> Any:
    from capsule import notebooks  # here and below: nbformat takes a quarter of a second to import

    return notebooks.read(path)


def _write(notebook: Any, path: Path) -> None:
    from capsule import notebooks

    try:
        notebooks.write(notebook, path)
    except OSError as error:
        raise OutputError(f"Cannot write {str(path)!r}: {error.strerror}.") from error


class OutputError(click.ClickException):
    """The notebook with its outputs cannot be written."""

    exit_code = exits.Exit.FAILED
