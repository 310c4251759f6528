"""Writes the values of a session to a file, and says what could not be written and why."""

from __future__ import annotations

import os
import types
from typing import TYPE_CHECKING, Any

from capsule_kernels.borrowed import cloudpickle_version
from capsule_kernels.checkpoints import MAX_NAME, check_number, reason_of, remove, text, versions_of
from capsule_kernels.culprits import path_to
from capsule_kernels.pickles import Pickler, UnsavableError
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.interrupts import Interrupts

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_FIRST: tuple[tuple[type, ...], ...] = (
    (types.ModuleType,),
    (types.FunctionType, type),
    (int, float, complex, str, bytes, type(None)),
)
_CODE = 1
"""The turn of functions and classes: what is behind them may be large."""


class BoundedFile:
    """A new file that takes so many bytes. A fork of user code may write into it too: every write has its place."""

    def __init__(self, path: str, limit: int) -> None:
        self._descriptor = os.open(path, _WRITE, 0o600)
        self._limit = limit
        self.size = 0
        self.full = False

    def write(self, data: Any) -> int:
        """Add bytes. Raises SessionError at the bound, and when the disk takes no more."""
        left = memoryview(data).cast("B")
        if self.size + len(left) > self._limit:
            self.full = True
            message = f"what is to be saved has more than max_checkpoint_bytes={self._limit}"
            raise SessionError("checkpoint_too_large", message)
        written = len(left)
        while left:
            try:
                done = os.pwrite(self._descriptor, left, self.size)
            except OSError as error:
                self.full = True
                message = f"the checkpoint cannot be written: {error.strerror}"
                raise SessionError("checkpoint_failed", message) from error
            left, self.size = left[done:], self.size + done
        return written

    def truncate(self, size: int) -> None:
        """Go back."""
        self.size = size
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """It is whole, or of no use."""
        os.close(self._descriptor)


class Saving:
    """One checkpoint being written, into a new file at `path`."""

    def __init__(
        self, namespace: dict[str, Any], is_own: Callable[[object], bool], interrupts: Interrupts, path: str
    ) -> None:
        self._namespace = namespace
        self._is_own = is_own
        self._interrupts = interrupts
        self._path = path
        self._saved: list[dict[str, Any]] = []
        self._left_out: list[dict[str, Any]] = []

    def run(self, wanted: list[str], limit: int) -> dict[str, Any]:
        """Save these names, and those that their functions use. Raises SessionError, KeyboardInterrupt."""
        names = list(dict.fromkeys(wanted))
        file = BoundedFile(self._path, limit)
        try:
            pickler = self._save_all(names, file)
        except BaseException:
            remove(self._path)
            raise
        finally:
            file.close()
        packages = versions_of(pickler.modules)
        if pickler.has_code:
            packages["cloudpickle"] = cloudpickle_version()
        return {
            "names": self._saved,
            "left_out": self._left_out,
            "size": file.size,
            "has_code": pickler.has_code,
            "packages": packages,
        }

    def _save_all(self, names: list[str], file: BoundedFile) -> Pickler:
        """Write all of it; again, if it turns out that more is needed, so that this comes before what needs it.

        That shows with the functions, as a rule, before anything large has been written.
        """
        while True:
            pickler = Pickler(file, self._namespace)
            lacking = self._save_or_lack(names, pickler, file)
            if not lacking:
                return pickler
            names += lacking
            check_number(names)
            file.truncate(0)
            self._saved, self._left_out = [], []

    def _save_or_lack(self, names: list[str], pickler: Pickler, file: BoundedFile) -> list[str]:
        """Write what there is of these names, up to where it is known that others are needed: those are answered."""
        known, looked_at = set(names), 0
        for name in sorted(names, key=self._turn_of):
            if self._turn_of(name) > _CODE and len(pickler.used) > looked_at:
                looked_at = len(pickler.used)
                if lacking := self._lacking(pickler, known):
                    return lacking
            if name in self._namespace:  # code of the user's takes part, and may have deleted it
                self._save(name, self._namespace[name], pickler, file)
        return self._lacking(pickler, known)

    def _lacking(self, pickler: Pickler, known: set[str]) -> list[str]:
        return [name for name in pickler.used if name not in known and name in self._namespace and self._is_own(name)]

    def _turn_of(self, name: str) -> int:
        """When it is written: what is read with the help of functions of the session comes behind what they may use."""
        value = self._namespace.get(name)
        for turn, kinds in enumerate(_FIRST):
            if issubclass(type(value), kinds):
                return turn
        return len(_FIRST)

    def _save(self, name: str, value: Any, pickler: Pickler, file: BoundedFile) -> None:
        before, used, had_code = file.size, dict(pickler.used), pickler.has_code
        pickler.last = value
        try:
            if len(name) > MAX_NAME or text(name, MAX_NAME) != name:
                raise UnsavableError(f"a name has at most {MAX_NAME} characters, all of which UTF-8 knows")  # noqa: TRY301
            pickler.dump_record(name, value)
        except BaseException as error:
            if self._interrupts.asked:  # user code may have made another error of it
                raise KeyboardInterrupt from error
            if file.full:
                raise
            pickler.used, pickler.has_code = used, had_code
            file.truncate(before)
            self._leave_out(name, value, pickler.last, error)
        else:
            self._saved.append({"name": name, "type": _type_name(value), "size": file.size - before})

    def _leave_out(self, name: str, value: Any, culprit: Any, error: BaseException) -> None:
        entry = {
            "name": text(name, MAX_NAME),
            "type": _type_name(value),
            "reason": str(error) if isinstance(error, UnsavableError) else reason_of(error),
            "where": text(path_to(culprit, name, value), MAX_NAME),
        }
        self._left_out.append(entry)


def _type_name(value: Any) -> str:
    """Not asked of the type itself, whose own type may be a user's."""
    name: str = type.__dict__["__qualname__"].__get__(type(value))
    return text(name, MAX_NAME)
