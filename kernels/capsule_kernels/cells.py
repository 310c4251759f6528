"""Runs one cell: transform, parse once, compile once, run, show the last value; the answer is the verdict's body."""

from __future__ import annotations
import __future__ as future

import ast
import sys
import time
import tokenize
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult

from capsule_kernels import chosen
from capsule_kernels.caches import InputCache, SourceCache
from capsule_kernels.executors import AsyncExecutor, Executor, Piece, ThreadedExecutor
from capsule_kernels.expressions import outcomes
from capsule_kernels.verdicts import failed, succeeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capsule_kernels.aside import AsideInterrupts
    from capsule_kernels.display import CellDisplayHook
    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.shell import ZMQInteractiveShell
    from capsule_protocol.envelope import Envelope

Kind = Literal["exec", "eval", "single"]
"""Of code: statements, an expression whose value is shown, or statements that show the values within them."""

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
        self._shown_error: BaseException | None = None
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

    def call(self, serial: int, function: Callable[[], object]) -> dict[str, Any]:
        """Call what is no cell as if it were one, which is not counted."""
        start = time.perf_counter()
        body = self._armed(serial, self._call, function)
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
            shown, self._shown_error = self._shown_error is error, None
            return failed(self._shell, error, asked=asked, shown=shown)

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
        self._begin_showing(result)
        pieces: list[Piece] | None = None
        try:
            if error is not None:
                raise error  # noqa: TRY301  # as if the code had raised it
            pieces = self._compile(cell, source, count)
            self._run(pieces)
            self._remember(result, succeeded=True)
        except BaseException as raised:
            self._note_error(result, raised, ran=pieces is not None)
            raise
        finally:
            self._trigger("post_execute")
            if not cell.quiet:
                self._trigger("post_run_cell", result)
        body = succeeded(self._hook.value)
        if cell.expressions:
            body["user_expressions"] = outcomes(shell, cell.expressions)
        return body

    def _run(self, pieces: list[Piece]) -> None:
        executor: Executor = self._async if any(piece.is_async for piece in pieces) else self._threaded
        executor.run(pieces, self._shell.user_ns)

    def _note_error(self, result: ExecutionResult, error: BaseException, *, ran: bool) -> None:
        """The cell has failed, and the error is being handled."""
        if ran:
            result.error_in_exec = error
        else:
            result.error_before_exec = error
        self._remember(result, succeeded=False)
        if chosen.show(self._shell, error):
            self._shown_error = error

    def _begin_showing(self, result: ExecutionResult) -> None:
        """Values are this cell's from here on."""
        self._hook.value = None
        sys.displayhook = self._hook  # code of an earlier cell may have put its own there
        self._result = result

    def _remember(self, result: ExecutionResult, *, succeeded: bool) -> None:
        """The cell is over, and is what IPython calls the last one."""
        self._shell.last_execution_succeeded, self._shell.last_execution_result = succeeded, result

    def _show(self, value: Any) -> None:
        """Show a value of the cell, where its code wants to have it."""
        self._result.result = value
        sys.displayhook(value)

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
        mode = "none" if cell.quiet or _ends_silently(source) else shell.ast_node_interactivity
        pieces = []
        for nodes, kind in _split(tree.body, mode):
            code = self._code(_module(nodes, kind, tree.type_ignores), name, kind)
            pieces.append(Piece(code, self._show if kind == "eval" else None))
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
                self._shell.showtraceback()


def _split(body: list[ast.stmt], mode: str) -> Iterator[tuple[list[Any], Kind]]:
    """Runs of statements, and expressions whose value is shown."""
    if mode == "last_expr_or_assign" and body:
        body = [*body, *_target(body[-1])]
    shown_from = 0 if mode == "all" else len(body) - 1 if mode != "none" else len(body)
    within: Kind = "single" if mode in ("all", "last") else "exec"
    run: list[ast.stmt] = []
    kind: Kind = "exec"
    for number, node in enumerate(body):
        before, kind = kind, _kind(node, within) if number >= shown_from else "exec"
        if run and (kind != before or kind == "eval"):
            yield run, before
            run = []
        run.append(node)
    if run:
        yield run, kind


def _kind(node: ast.stmt, within: Kind) -> Kind:
    return "eval" if isinstance(node, ast.Expr) else within


def _module(nodes: list[Any], kind: Kind, ignores: list[ast.TypeIgnore]) -> ast.mod:
    if kind == "eval":
        return ast.Expression(nodes[0].value)
    return ast.Interactive(nodes) if kind == "single" else ast.Module(nodes, ignores)


def _target(node: ast.stmt) -> list[ast.stmt]:
    """An expression that gives what an assignment to one name has assigned."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and isinstance(targets[0], ast.Name):
        value = ast.Expr(ast.Name(targets[0].id, ast.Load()))
        return [ast.fix_missing_locations(ast.copy_location(value, node))]
    return []


def _ends_silently(source: str) -> bool:
    """Whether the last token is a semicolon, which hides the value."""
    if ";" not in source:
        return False
    skipped = (tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)
    try:
        tokens = [token for token in tokenize.generate_tokens(StringIO(source).readline) if token.type not in skipped]
    except (tokenize.TokenError, SyntaxError):
        return False
    return bool(tokens) and tokens[-1].string == ";"
