"""Saves what a session has to a file, and brings it back: in its turn like a cell, and interrupted like one."""

from __future__ import annotations

import os
import re
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

from capsule_kernels.verdicts import succeeded
from capsule_protocol.codes import CODES
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError
from capsule_protocol.limits import CHECKPOINT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.restoring import Restoring
    from capsule_kernels.shell import ZMQInteractiveShell

MAX_NAME = 200
"""Characters of a name."""
REASON = 300
"""Characters of the reason why something could not be saved or restored."""
FILE = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What files of checkpoints are called in the box's directory."""

_OF_THE_ENGINE = re.compile(r"_+|_i*[0-9]*|_[iod]h|__.*__")
"""Names that belong to the session itself, whatever is in them: past inputs and results, and what modules have."""


class Checkpoints:
    """Made when the worker is; loads what it needs when it is first used. `folder` is where the files are."""

    def __init__(self, shell: ZMQInteractiveShell, interrupts: Interrupts) -> None:
        self._shell = shell
        self._interrupts = interrupts
        self._first_names = set(shell.user_ns) | set(shell.user_ns_hidden)
        self._restoring: Restoring | None = None
        self.folder = ""
        self.kinds: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "write_state": self._write,
            "read_state": self._read,
        }

    def run(self, kind: str, serial: int, body: dict[str, Any]) -> dict[str, Any]:
        """Do it; whatever happens, the answer is the body of `result` or `error`."""
        start = time.perf_counter()
        self._restoring = None
        try:
            try:
                self._interrupts.arm(serial)
                report = self.kinds[kind](body)
            finally:
                self._interrupts.disarm()
        except BaseException as error:  # noqa: BLE001  # objects of the user's take part
            self._interrupts.disarm()  # the interrupt may have come in the line above
            if self._restoring is not None:
                self._restoring.undo()
            answer = _failed(error)
        else:
            answer = succeeded((report, {}))
        answer["execution_count"] = self._shell.execution_count
        answer["duration"] = time.perf_counter() - start
        return answer

    def is_own(self, name: object) -> bool:
        """Whether a name is the user's, and not the session's."""
        if type(name) is not str or name in self._first_names or name in self._shell.user_ns_hidden:
            return False
        return _OF_THE_ENGINE.fullmatch(name) is None

    def _write(self, body: dict[str, Any]) -> dict[str, Any]:
        from capsule_kernels.saving import Saving  # late: it loads pickle's relatives

        namespace: dict[str, Any] = self._shell.user_ns
        wanted = body.get("names")
        names = [name for name in list(namespace) if self.is_own(name)] if wanted is None else wanted
        self._check(names, namespace)
        saving = Saving(namespace, self.is_own, self._interrupts, self._path(body))
        return saving.run(names, body["max_bytes"])

    def _read(self, body: dict[str, Any]) -> dict[str, Any]:
        from capsule_kernels.restoring import Restoring

        self._restoring = Restoring(self._shell.user_ns, self.is_own, self._interrupts)
        report = self._restoring.run(self._path(body), body)
        self._shell.restore_names()
        return report

    def _check(self, names: list[str], namespace: dict[str, Any]) -> None:
        check_number(names)
        for name in names:
            if name not in namespace:
                raise ArgumentError("names", f"has {name[:MAX_NAME]!r}, which the session does not know", allowed=_OWN)
            if not self.is_own(name):
                raise ArgumentError("names", f"has {name[:MAX_NAME]!r}, which is the session's own", allowed=_OWN)

    def _path(self, body: dict[str, Any]) -> str:
        if FILE.fullmatch(body["file"]) is None:
            raise ArgumentError("file", f"is {body['file'][:MAX_NAME]!r}", allowed="letters, digits, '_' and '-'")
        return f"{self.folder}/{body['file']}"


def check_number(names: Sized) -> None:
    """Raise SessionError `checkpoint_too_large` if there are too many names."""
    if len(names) > CHECKPOINT_NAMES:
        message = f"{len(names)} names are to be saved, and a checkpoint has room for {CHECKPOINT_NAMES}"
        raise SessionError("checkpoint_too_large", message)


_OWN = "names that the session's code has defined"


def versions_of(modules: set[str]) -> dict[str, str]:
    """The version of each package that is not Python's own or Capsule's, `""` if nobody knows."""
    from importlib import metadata

    left_out = sys.stdlib_module_names | {"__main__", "capsule_kernels", "__mp_main__"}
    found: dict[str, str] = {}
    for name in sorted(modules - left_out):
        module = sys.modules.get(name)
        given = module.__dict__.get("__version__") if type(module) is ModuleType else None
        if type(given) is not str:
            try:
                given = metadata.version(name)
            except (metadata.PackageNotFoundError, ValueError):
                given = ""
        found[text(name, MAX_NAME)] = text(given, MAX_NAME)
    return found


def text(value: str, limit: int) -> str:
    """One line that every message can carry."""
    line = " ".join(value.encode(errors="backslashreplace").decode().split())
    return line if len(line) <= limit else f"{line[:limit]} …"


def _failed(error: BaseException) -> dict[str, Any]:
    """The body of `error`. Nothing of the error is kept: its frames hold all that was to be saved."""
    body = {"verdict": "error", "name": type(error).__name__, "traceback": [], "hint": "", "details": {}}
    if isinstance(error, KeyboardInterrupt):
        message = "saving or restoring the session was interrupted"
        return body | {"verdict": "interrupted", "message": message, "code": "execution_interrupted"}
    if isinstance(error, CapsuleError) and error.code in CODES:
        given = {"message": error.message, "code": error.code, "hint": error.hint, "details": error.details}
        return body | given
    return body | {"message": reason_of(error), "code": "checkpoint_failed"}


def reason_of(error: BaseException) -> str:
    """What an error says, which may be of a class of the user's."""
    try:
        reason = str(error)
    except Exception:  # noqa: BLE001
        reason = "it cannot say why"
    return text(f"{type(error).__name__}: {reason}", REASON)


def remove(path: str) -> None:
    """Remove a file if it is there."""
    if os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108  # pathlib is not needed for anything else here
