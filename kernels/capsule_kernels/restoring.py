"""Reads the values of a checkpoint into the namespace: all of them, or none."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from capsule_kernels.checkpoints import MAX_NAME, reason_of, versions_of
from capsule_kernels.pickles import Unpickler
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet
    from typing import BinaryIO

    from capsule_kernels.interrupts import Interrupts

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CHUNK = 2**20
_MISSING = object()


class Restoring:
    """One checkpoint being read. The node has seen to it that it is one of its own.

    Each value is put into the namespace as soon as it is there: methods that run while others are read may use it. What
    was there before is kept until the end, and put back by `undo`.
    """

    def __init__(self, namespace: dict[str, Any], is_own: Callable[[object], bool], interrupts: Interrupts) -> None:
        self._namespace = namespace
        self._is_own = is_own
        self._interrupts = interrupts
        self._before: dict[str, Any] = {}

    def run(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Restore all names, or those that are wanted. Raises CapsuleError, KeyboardInterrupt; then `undo` it."""
        names: list[str] | None = body["names"]
        wanted = dict.fromkeys(body["saved"] if names is None else names)
        for name in wanted.keys() - set(body["saved"]):
            raise ArgumentError("names", f"has {name[:MAX_NAME]!r}, which was not saved", allowed="names in it")
        packages: dict[str, str] = body["packages"]
        _check_packages(packages)
        with open(os.open(path, _READ), "rb") as file:  # noqa: PTH123  # a descriptor
            _check_hash(file, body)
            self._load(file, body["saved"], wanted.keys())
        self._interrupts.disarm()  # from here on nothing ends it
        self._put_back(self._before.keys() - wanted.keys())
        before, self._before = self._before, {}
        here = versions_of(set(packages))
        return {
            "restored": [name for name in wanted if name in before],
            "replaced": [name for name in wanted if before.get(name, _MISSING) is not _MISSING],
            "other_versions": {
                name: [version, here.get(name, "")] for name, version in packages.items() if here.get(name) != version
            },
        }

    def undo(self) -> None:
        """Put everything back as it was. Idempotent; nothing may interrupt it."""
        self._put_back(set(self._before))

    def _put_back(self, names: AbstractSet[str]) -> None:
        for name in names:
            value = self._before.pop(name)
            if value is _MISSING:
                self._namespace.pop(name, None)
            else:
                self._namespace[name] = value

    def _load(self, file: BinaryIO, saved: list[str], wanted: AbstractSet[str]) -> None:
        """Read up to the last value that is wanted: each may refer to those before it."""
        namespace, due = self._namespace, ""
        last = max((number for number, name in enumerate(saved) if name in wanted), default=-1)
        builtins = namespace.get("__builtins__")
        try:
            unpickler = Unpickler(file, namespace)
            for due in saved[: last + 1]:  # noqa: B007  # an error names it
                name, value = unpickler.load()
                if self._is_own(name):
                    self._before.setdefault(name, namespace.get(name, _MISSING))
                    namespace[name] = value
        except BaseException as error:
            if self._interrupts.asked:
                raise KeyboardInterrupt from error
            message = f"the value of {due!r} cannot be restored: {reason_of(error)}"
            raise SessionError("checkpoint_failed", message) from error
        finally:
            namespace["__builtins__"] = builtins  # cloudpickle gives each function's globals its own


def _check_packages(packages: dict[str, str]) -> None:
    missing = [name for name in packages if name != "cloudpickle" and not _is_there(name)]
    if missing:
        shown = ", ".join(f"{name} {packages[name]}".rstrip() for name in missing)
        message = f"the session's environment does not have what the checkpoint needs: {shown}"
        raise SessionError("checkpoint_mismatch", message, details={"missing": missing})


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _check_hash(file: BinaryIO, body: dict[str, Any]) -> None:
    """That it is what the node has looked at."""
    found = hashlib.sha256()
    file.seek(body["offset"])
    left: int = body["size"]
    while data := file.read(min(left, CHUNK)):
        found.update(data)
        left -= len(data)
    if found.hexdigest() != body["sha256"]:
        raise SessionError("checkpoint_refused", "the checkpoint was changed while it was being restored")
    file.seek(body["offset"])
