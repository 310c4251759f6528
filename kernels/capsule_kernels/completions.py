"""Completions as a front end shows them: all of one range, each with what it is and how it is called.

What a name stands for is looked up without running any code of the user's: no property is asked, no `__getattr__`.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import re
import types
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIGNATURES = 100
"""Functions in one answer whose signature is told: no list shows more at once."""
SIGNATURE_CHARACTERS = 400
_COARSE = frozenset({"", "<unknown>", "variable", "attribute"})
"""Types of IPython's own completer that say little; those of jedi are better, where it is switched on."""
_OWNER = re.compile(r"(?<![\w.\])}'\"])[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_MISSING = object()


class Found(NamedTuple):
    """What may stand between two offsets of the code, and of what kind IPython says that it is."""

    start: int
    end: int
    text: str
    type: str
    signature: str


def described(code: str, found: Iterable[Found], namespace: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each completion once, with the same range as all others, as in Jupyter's `_jupyter_types_experimental`."""
    entries, left = [], SIGNATURES
    for one in _of_one_range(code, found):
        kind, signature = one.type, one.signature
        if kind in _COARSE:
            value = _value(code[: one.start], one.text, namespace)
            kind = _kind(one.text, value) or kind
            if kind in ("function", "class") and not signature and left:
                signature, left = _signature(value), left - 1
        entries.append({"start": one.start, "end": one.end, "text": one.text, "type": kind, "signature": signature})
    return entries


def _of_one_range(code: str, found: Iterable[Found]) -> list[Found]:
    found = list(found)
    start = min((one.start for one in found), default=0)
    end = max((one.end for one in found), default=0)
    wide = [
        one._replace(start=start, end=end, text=code[start : one.start] + one.text + code[one.end : end])
        for one in found
    ]
    if all(one.text.startswith(".") for one in wide) and code[start : start + 1] == ".":  # an attribute, with its dot
        wide = [one._replace(start=start + 1, text=one.text[1:]) for one in wide]
    return list({one.text: one for one in reversed(wide)}.values())[::-1]


def _value(before: str, text: str, namespace: Mapping[str, Any]) -> Any:
    """What a completion stands for, behind this code."""
    if not text.isidentifier():
        return _MISSING
    if not before.endswith("."):
        return namespace.get(text, vars(builtins).get(text, _MISSING))
    owner = _OWNER.search(before[:-1])
    if owner is None:
        return _MISSING
    first, *others = owner[0].split(".")
    value = namespace.get(first, _MISSING)
    for name in (*others, text):
        holder, value = value, _attribute(value, name)
    if isinstance(value, types.FunctionType) and not isinstance(holder, type | types.ModuleType):
        return types.MethodType(value, holder)  # without its first argument
    return value


def _attribute(value: Any, name: str) -> Any:
    with suppress(Exception):  # `__slots__`, `__dict__` and the like may be anything
        return inspect.getattr_static(value, name, _MISSING)
    return _MISSING


def _kind(text: str, value: Any) -> str:
    if value is _MISSING:
        return "keyword" if keyword.iskeyword(text) else ""
    if isinstance(value, type):
        return "class"
    if isinstance(value, types.ModuleType):
        return "module"
    if isinstance(value, property):
        return "property"
    if isinstance(value, staticmethod | classmethod) or inspect.isroutine(value):
        return "function"
    return "instance"


def _signature(value: Any) -> str:
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    try:
        return str(inspect.signature(function))[:SIGNATURE_CHARACTERS]
    except Exception:  # noqa: BLE001  # many have none, and a default's repr may raise anything
        return ""
