"""Runs one cell: transform, parse once, compile once, run, show the last value; the answer is the verdict's body."""

from __future__ import annotations
import __future__ as future

import ast
import bdb
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult

from capsule_kernels import chosen
from capsule_kernels.caches import InputCache, SourceCache
from capsule_kernels.executors import AsyncExecutor, Executor, Piece, ThreadedExecutor
from capsule_kernels.expressions import outcomes
from capsule_kernels.pieces import ends_silently, module, split
from capsule_kernels.verdicts import failed, succeeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.aside import AsideInterrupts
    from capsule_kernels.display import CellDisplayHook
    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.shell import ZMQInteractiveShell
    from capsule_protocol.envelope import Envelope

_TOLD_OTHERWISE = (UsageError, bdb.BdbQuit)
"""What a front end is told of in other ways than by an error."""
_FUTURES = [getattr(future, name) for name in future.all_feature_names]


class Cell(NamedTuple):
    """What `execute` asks for."""

    serial: int
    code: str
    quiet: bool = False
    store_history: bool = True
    name: str | None = None
    expressions: dict[str, str] | None = None
    payloads: bool = False


def cell_of(envelope: Envelope) -> Cell:
    """The cell that an `execute` asks for."""
    body = envelope.body
    quiet, store = body.get("quiet", False), body.get("store_history", True)
    return Cell(
        envelope.sequence,
        body["code"],
        quiet,
        store,
        body.get("cell"),
        body.get("user_expressions"),
        body.get("payloads", False),
    )


class CellRunner:
    """Runs the cells of one session, one after another, on the main thread."""

    def __init__(
        self,
        shell: ZMQInteractiveShell,
        interrupts: Interrupts | AsideInterrupts,
        executors: tuple[ThreadedExecutor, AsyncExecutor],
        hook: CellDisplayHook | None = None,
    ) -> None:
        self._shell = shell
        self._hook: CellDisplayHook = shell.displayhook if hook is None else hook
        self._interrupts = interrupts
        self._threaded, self._async = executors
        self._shown_error: tuple[BaseException, list[str]] | None = None
        self.bound(SourceCache(shell, 1000), InputCache(shell, 1000))

    def bound(self, sources: SourceCache, inputs: InputCache) -> None:
        """Set what is kept of past cells."""
        self._sources, self._inputs = sources, inputs

    def share(self, other: CellRunner) -> None:
        """Keep the sources of cells where another one keeps them."""
        self.bound(other._sources, other._inputs)

    @property
    def count(self) -> int:
        """The number of the next cell that is counted."""
        return int(self._shell.execution_count)

    @count.setter
    def count(self, value: int) -> None:
        self._shell.execution_count = value

    def run(self, cell: Cell) -> dict[str, Any]:
        """Run a cell; whatever it does, the answer is the body of `result` or `error`."""
        start = time.perf_counter()
        count = self.count
        if cell.payloads:
            self._shell.payloads.begin(wanted=True)
        body = self._armed(cell.serial, self._evaluate, cell, count)
        if cell.payloads:
            body["payload"] = self._shell.payloads.take()
        if cell.store_history and not cell.quiet:
            self.count = count + 1
        body["execution_count"] = count
        body["duration"] = time.perf_counter() - start
        return body

    def call(self, serial: int, function: Callable[[], object], *, payloads: bool = False) -> dict[str, Any]:
        """Call what is no cell as if it were one, which is not counted."""
        start = time.perf_counter()
        if payloads:
            self._shell.payloads.begin(wanted=True)
        body = self._armed(serial, self._call, function)
        if payloads:
            body["payload"] = self._shell.payloads.take()
        body["execution_count"] = 0
        body["duration"] = time.perf_counter() - start
        return body

    def _armed(self, serial: int, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
        """Work that can be interrupted, and whose end is the body of a verdict."""
        try:
            try:
                self._interrupts.arm(serial)
                return work(*arguments)
            finally:
                self._interrupts.disarm()
        except BaseException as error:  # noqa: BLE001  # whatever the code raises becomes its verdict
            asked = self._interrupts.asked
            self._interrupts.disarm()  # the interrupt may have come in the line above
            shown, self._shown_error = self._shown_error, None
            lines = shown[1] if shown is not None and shown[0] is error else None
            return failed(self._shell, error, asked=asked, shown=lines)

    def _call(self, function: Callable[[], object]) -> dict[str, Any]:
        self._shell.restore_names()
        self._threaded.call(function)
        return succeeded(None)

    def _evaluate(self, cell: Cell, count: int) -> dict[str, Any]:
        shell = self._shell
        shell.restore_names()
        store = cell.store_history and not cell.quiet
        source, error = self._transform(cell.code)
        if store:
            self._note(count, source, cell.code)
        result = ExecutionResult(ExecutionInfo(cell.code, store, cell.quiet, True, None))  # noqa: FBT003
        result.execution_count = count
        self._trigger("pre_execute")
        if not cell.quiet:
            self._trigger("pre_run_cell", result.info)
        self._result = result
        self._hook.begin(count, at_once=cell.payloads)
        self._take_values()
        pieces: list[Piece] | None = None
        try:
            if error is not None:
                raise error  # noqa: TRY301  # as if the code had raised it
            pieces = self._compile(cell, source, count)
            self._run(pieces)
            self._remember(result, succeeded=True)
        except BaseException as raised:
            self._note_error(cell, result, raised, ran=pieces is not None)
            raise
        else:
            if self._is_followed(cell) or (cell.payloads and (cell.expressions or self._hook.broken is not None)):
                self._hook.show_kept()
        finally:
            ended = self._hook.end()
            self._trigger("post_execute")
            if not cell.quiet:
                self._trigger("post_run_cell", result)
        if cell.payloads and ended.broken is not None:
            self._shown_error = ended.broken
            raise ended.broken[0]
        body = succeeded(ended.value, shown=ended.is_shown)
        if cell.expressions:
            body["user_expressions"] = outcomes(shell, cell.expressions)
        return body

    def _run(self, pieces: list[Piece]) -> None:
        executor: Executor = self._async if any(piece.is_async for piece in pieces) else self._threaded
        executor.run(pieces, self._shell.user_ns)

    def _note_error(self, cell: Cell, result: ExecutionResult, error: BaseException, *, ran: bool) -> None:
        """The cell has failed, and the error is being handled."""
        if ran:
            result.error_in_exec = error
        else:
            result.error_before_exec = error
        self._remember(result, succeeded=False)
        self._hook.show_kept()
        lines = chosen.show(self._shell, error)
        if lines is None and cell.payloads and (isinstance(error, _TOLD_OTHERWISE) or self._is_followed(cell)):
            lines = self._shell.show_error(error)
        if lines is not None:
            self._shown_error = error, lines

    def _is_followed(self, cell: Cell) -> bool:
        """Whether something is called behind the code that a front end expects behind its value, or its error.

        Figures are shown that way. Otherwise the verdict tells of either.
        """
        callbacks = self._shell.events.callbacks
        own = getattr(self._shell.own_display, "_on_post_execute", None)  # IPython's: it shows nothing
        return cell.payloads and any(one != own for one in (*callbacks["post_execute"], *callbacks["post_run_cell"]))

    def _take_values(self) -> None:
        """Have what the code shows of its values; an earlier cell may have put its own hook there."""
        sys.displayhook = self._hook

    def _remember(self, result: ExecutionResult, *, succeeded: bool) -> None:
        """The cell is over, and is what IPython calls the last one."""
        self._shell.last_execution_succeeded, self._shell.last_execution_result = succeeded, result

    def _show(self, value: Any) -> None:
        """Show a value of the cell, where its code wants to have it."""
        self._result.result = value
        sys.displayhook(value)

    def _show_last(self, value: Any) -> None:
        """Show the value with which the cell ends: the verdict can tell of it."""
        self._hook.at_once = False
        self._show(value)

    def _note(self, count: int, source: str, code: str) -> None:
        """The cell is one of those that the session knows by their numbers."""
        self._inputs.add(count, source, code)
        if self._shell.past.has_file:
            self._shell.past.add(count, source, code)

    def _transform(self, code: str) -> tuple[str, Exception | None]:
        try:
            return self._shell.transform_cell(code), None
        except Exception as error:  # noqa: BLE001  # a transformer of the user's may raise anything
            return code, error

    def _compile(self, cell: Cell, source: str, count: int) -> list[Piece]:
        """The statements as one piece, and the last expression, whose value is shown, as another."""
        shell = self._shell
        name = shell.compile.cache(source, count, raw_code=cell.code)
        if cell.name is not None:
            shell.compile.names[name] = cell.name
        self._sources.add(name)
        try:
            tree = shell.transform_ast(shell.compile.ast_parse(source, filename=name))
        except SyntaxError as error:
            raise error.with_traceback(None)  # noqa: B904  # the frames of the parser say nothing to the user
        mode = "none" if cell.quiet or ends_silently(source) else shell.ast_node_interactivity
        pieces = []
        for nodes, kind in split(tree.body, mode):
            code = self._code(module(nodes, kind, tree.type_ignores), name, kind)
            pieces.append(Piece(code, self._show if kind == "eval" else None))
        if pieces and pieces[-1].show is not None:
            pieces[-1] = pieces[-1]._replace(show=self._show_last)
        return pieces

    def _code(self, tree: ast.AST, name: str, mode: str) -> Any:
        compiler = self._shell.compile
        code = compile(tree, name, mode, compiler.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)  # type: ignore[call-overload]
        for feature in _FUTURES:  # `from __future__ import …` holds for the cells that follow
            if code.co_flags & feature.compiler_flag:
                compiler.flags |= feature.compiler_flag
        return code

    def _trigger(self, event: str, *arguments: Any) -> None:
        """Call an event's callbacks; their errors are shown, an interrupt is the cell's."""
        callbacks: list[Callable[..., Any]] = self._shell.events.callbacks[event]
        for callback in tuple(callbacks):
            try:
                callback(*arguments)
            except Exception:  # noqa: BLE001  # as IPython: a broken callback does not end the cell
                print(f"Error in callback {callback} (for {event}):", file=sys.stderr)
                self._shell.showtraceback(tb_offset=1)
