"""The summary of a namespace: names, types, sizes, shapes, short reprs; never the data."""

from __future__ import annotations

import reprlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

SHORT = 80
"""Characters of a repr at most."""

_PLAIN = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset)
_LARGEST = 2**63 - 1


class _Short(reprlib.Repr):
    """Shortens plain values; of other objects among them it shows the type, for their repr is user code."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = SHORT

    def repr1(self, x: Any, level: int) -> str:
        """The repr of a part."""
        kind = type(x)
        if kind not in _PLAIN:
            return _type_only(x)
        if kind is dict or kind is set or kind is frozenset:
            return (
                f"<{kind.__name__} of {len(x)}>"
                if not _PLAIN_KEYS.issuperset(map(type, x))
                else super().repr1(x, level)
            )
        return super().repr1(x, level)


_PLAIN_KEYS = frozenset({str, bytes, int, float, complex, bool, type(None)})
_short = _Short()


def summary(namespace: dict[str, Any], hidden: Collection[str], limit: int = 1000) -> tuple[list[dict[str, Any]], int]:
    """Entries of the user's variables in order of their names, and how many were left out over the limit.

    Modules and names in `hidden` or with a leading underscore are skipped. An entry: `name`, `type`, `size` (length or
    bytes, None if unknown), `shape` (list of int or None), `repr` (at most `SHORT` characters or so). User objects are
    asked for their length and shape only; one that raises has None there.
    """
    found = {
        str.__str__(name): value
        for name, value in list(namespace.items())
        if isinstance(name, str) and not name.startswith("_") and name not in hidden and type(value) is not ModuleType
    }
    entries = [_entry(name, found[name]) for name in sorted(found)[:limit]]
    return entries, max(0, len(found) - limit)


def _entry(name: str, value: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": _name(value),
        "size": _size(value),
        "shape": _shape(value),
        "repr": _repr(value),
    }


def _is_of_the_session(value: Any) -> bool:
    """Whether its class was written in a cell: asking it anything would run code that may take its time."""
    return bool(type.__getattribute__(type(value), "__dict__").get("__module__") == "__main__")


def _size(value: Any) -> int | None:
    if _is_of_the_session(value):
        return None
    try:
        size = getattr(value, "nbytes", None)
        if type(size) is not int:
            size = len(value) if hasattr(type(value), "__len__") else sys.getsizeof(value)
    except BaseException:  # noqa: BLE001  # a user's object answers as it likes
        return None
    return size if 0 <= size <= _LARGEST else None


def _shape(value: Any) -> list[int] | None:
    if _is_of_the_session(value):
        return None
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and all(isinstance(n, int) and 0 <= n <= _LARGEST for n in shape):
            return [int(length) for length in shape]
    except BaseException:  # noqa: BLE001  # a user's object answers as it likes
        return None
    return None


def _repr(value: Any) -> str:
    """Plain values are shown shortened; of others only the type, for their repr may be long, slow or their data."""
    try:
        return _short.repr(value)
    except ValueError:  # a number with too many digits
        return _type_only(value)


def _type_only(value: Any) -> str:
    module = type.__dict__["__module__"].__get__(type(value))
    return f"<{module}.{_name(value)}>" if type(module) is str else f"<{_name(value)}>"


def _name(value: Any) -> str:
    """The name of the type; not asked of the type itself, whose own type may be a user's."""
    name: str = type.__dict__["__qualname__"].__get__(type(value))
    return name
