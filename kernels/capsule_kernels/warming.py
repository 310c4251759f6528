"""What a worker does before it has a session: import modules, where no zygote has, and run the warm-up code."""

from __future__ import annotations

import faulthandler
import gc
import importlib
from typing import TYPE_CHECKING, Any

from capsule_kernels.cells import Cell
from capsule_kernels.failures import describe
from capsule_kernels.leaving import note_threads
from capsule_kernels.streams import flush_c_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_kernels.capture import Outlet
    from capsule_kernels.cells import CellRunner
    from capsule_kernels.interrupts import Interrupts

SERIAL = -1
"""That of the warm-up code, which nobody can interrupt: executions are numbered from 1."""


class Warming:
    """That of one worker; what it does fails with a message and details, or has succeeded."""

    def __init__(self, runner: CellRunner, outlet: Outlet, interrupts: Interrupts) -> None:
        self._runner = runner
        self._outlet = outlet
        self._interrupts = interrupts
        self.code = ""
        self.modules: Sequence[str] = ()

    @property
    def is_asked_for(self) -> bool:
        """Whether the environment has anything of it, which the node waits for."""
        return bool(self.code or self.modules)

    def run(self) -> tuple[str, dict[str, Any]] | None:
        """Do what the environment asks for."""
        failure = self._import() if self.modules else None
        if failure is None and self.code:
            failure = self._run_code()
        note_threads()
        return failure

    def run_empty(self) -> None:
        """Have an empty cell touch what each cell does, if no other has."""
        if not self.code:
            self._run("None")

    def _import(self) -> tuple[str, dict[str, Any]] | None:
        gc.disable()  # as a zygote: what is imported stays
        try:
            for name in self.modules:
                importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 (SystemExit of a module is its failure too)
            told = describe(error)
            message = f"the environment's modules could not be imported: {told['name']}: {told['message']}"
            return message, {"traceback": told["traceback"]}
        faulthandler.cancel_dump_traceback_later()  # as a zygote does
        self._interrupts.install()  # the handlers are a session's, whatever a module has set
        self._flush()
        gc.freeze()
        gc.enable()
        return None

    def _run_code(self) -> tuple[str, dict[str, Any]] | None:
        answer = self._run(self.code)
        if answer["verdict"] == "ok":
            return None
        message = f"the environment's warm-up code failed: {answer['name']}: {answer['message']}"
        return message, {"traceback": "\n".join(answer["traceback"])}

    def _run(self, code: str) -> dict[str, Any]:
        answer = self._runner.run(Cell(SERIAL, code, quiet=True, store_history=False, name="warmup"))
        self._flush()
        return answer

    def _flush(self) -> None:
        flush_c_output()
        self._outlet.flush()
