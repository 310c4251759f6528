"""How a session's values become bytes and values again. Imported only when a session is saved or restored.

Functions and classes of the session travel by value, all else that has a name in a module by that name. A function of
the session refers to the session's namespace, and not to a copy of what it uses of it: restored, it sees the namespace
that it was restored into, as the other functions there do.
"""

from __future__ import annotations

import _pickle
import dis
import io
import threading
import types
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from capsule_kernels.borrowed import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL = 5
"""Of pickle; all interpreters that Capsule supports know it."""

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair, io.TextIOWrapper)
_UNSAVABLE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (_FILES, "an open file"),
    (threading.Thread, "a thread"),
    (InteractiveShell, "the session itself"),
)
"""What cloudpickle would make something else of, or would look into for long before it gave up."""
_BY_NAME = (types.FunctionType, types.BuiltinFunctionType)
_CloudPickler: Any = cloudpickle().Pickler


class UnsavableError(TypeError):
    """A value that belongs to this process and cannot leave it."""


class _Namespace:
    """Stands in a checkpoint for the namespace of the session."""

    def __reduce__(self) -> tuple[Any, ...]:
        return the_namespace, ()


_NAMESPACE = _Namespace()


def the_namespace() -> dict[str, Any]:
    """Never called: `Unpickler` gives what it stands for."""
    raise LookupError("a checkpoint can be loaded into a session only")


class Pickler(_CloudPickler):  # type: ignore[misc]  # it is untyped, and known only when it is loaded
    """Writes one value after another. They share what they have in common, also with each other."""

    def __init__(self, file: Any, namespace: dict[str, Any]) -> None:
        super().__init__(file, PROTOCOL)
        self._of_session = namespace
        self.last: Any = None
        """What was looked at last: when that fails, the culprit."""
        self.modules: set[str] = set()
        """What has to be importable where this is loaded."""
        self.used: dict[str, None] = {}
        """The names of the session that its functions use."""
        self.has_code = False
        """Whether there is bytecode in it, which is of use to the same interpreter only."""

    def dump_record(self, name: str, value: Any) -> None:
        """Write a name with its value. If that raises, it was not written, and `last` is why."""
        record = [name, value]
        try:
            self.dump(record)
        except BaseException:
            self._forget_from(record)
            raise

    def reducer_override(self, value: Any) -> Any:
        """How a value is written that is no plain one."""
        self.last = value
        kind = type(value)
        for kinds, what in _UNSAVABLE:
            if issubclass(kind, kinds):
                raise UnsavableError(f"{what} cannot be saved")
        reduced = super().reducer_override(value)
        if reduced is not NotImplemented:
            self.has_code = True
            if kind is types.FunctionType and value.__globals__ is self._of_session:
                return self._of_the_session(value, reduced)
        elif issubclass(kind, type | types.ModuleType) or kind in _BY_NAME:
            self._note(value)
        return reduced

    def _of_the_session(self, function: types.FunctionType, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same with the namespace in the place of what cloudpickle has taken out of it."""
        make, (code, _, *more), (attributes, slots), *rest = reduced
        self.used.update(dict.fromkeys(names_used(function.__code__)))
        return make, (code, _NAMESPACE, *more), (attributes, {**slots, "__globals__": {}}), *rest

    def _note(self, value: Any) -> None:
        """It is written as a name in a module."""
        if isinstance(value, types.ModuleType):
            name = value.__name__
        elif isinstance(value, type):
            name = type.__dict__["__module__"].__get__(value)
        else:
            name = value.__module__
        if type(name) is str:
            self.modules.add(name.partition(".")[0])

    def _forget_from(self, record: list[Any]) -> None:
        """Forget a record, and all that was met in it: later ones may not refer to what is not there."""
        memo = self.memo.copy()  # type: ignore[has-type]  # mypy knows nothing of the base
        first = memo.get(id(record), (len(memo),))[0]
        self.memo = {key: entry for key, entry in memo.items() if entry[0] < first}


class Unpickler(_pickle.Unpickler):
    """Reads the values one after another, for the session with this namespace."""

    def __init__(self, file: Any, namespace: dict[str, Any]) -> None:
        super().__init__(file)
        self._of_session = namespace

    def find_class(self, module: str, name: str) -> Any:
        """What a name in a module is."""
        if (module, name) == (__name__, the_namespace.__name__):
            return self._give_namespace
        return super().find_class(module, name)

    def _give_namespace(self) -> dict[str, Any]:
        return self._of_session


def names_used(code: types.CodeType) -> Iterator[str]:
    """The global names that code uses, also in the functions inside it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_used(constant)


_GLOBAL = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
