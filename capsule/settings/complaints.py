"""What is wrong with a configuration, in the words of the one who wrote it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsule.settings.tree import is_secret, model_at
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong: the path of the option, what about it, and what is allowed."""

    path: tuple[str, ...]
    message: str
    allowed: str
    code: str = "invalid_argument"

    def as_error(self) -> ArgumentError:
        """The same for who passed it as an argument."""
        return ArgumentError(".".join(self.path), self.message, allowed=self.allowed, code=self.code)


def complaints(model: type[BaseModel], error: ValidationError) -> list[Complaint]:
    """All that pydantic found."""
    return [_complaint(model, detail) for detail in error.errors(include_url=False)]


def unknown(path: tuple[str, ...], name: str, known: Iterable[str]) -> Complaint:
    """There is no such name; one of the known ones was probably meant."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return Complaint(path, f"there is no such option{meant}", ", ".join(names), "unknown_option")


def _complaint(model: type[BaseModel], detail: ErrorDetails) -> Complaint:
    path = tuple(str(part) for part in detail["loc"]) or (model.__name__,)
    if detail["type"] == "extra_forbidden":
        beside = model_at(model, detail["loc"][:-1]) or model
        return unknown(path, path[-1], beside.model_fields)
    if detail["type"] == "missing":
        return Complaint(path, "is missing", "a value for it")
    if detail["type"] == "contradiction":
        return Complaint(path, detail["msg"], _allowed(detail))
    given = "a value that is not shown" if is_secret(model, detail["loc"]) else _short(detail["input"])
    if (kind := _kind(model, detail)) is not None:
        return Complaint(path, f"is {given}", kind)
    return Complaint(path, f"{detail['msg']}, not {given}", _allowed(detail))


def _kind(model: type[BaseModel], detail: ErrorDetails) -> str | None:
    """What is allowed, where the type's own name would not say it to the one who passed the argument."""
    if detail["type"] == "model_type":
        wanted = model_at(model, detail["loc"])
        assert wanted is not None
        article = "an" if wanted.__name__.startswith(("A", "E", "I", "O", "U")) else "a"
        return f"{article} {wanted.__name__}, or a dict with its options: {', '.join(wanted.model_fields)}"
    if detail["type"] == "string_pattern_mismatch":
        return f"text that fits {detail['ctx']['pattern']}"
    return _KINDS.get(detail["type"])


def _allowed(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "expected" in context:
        return str(context["expected"])
    bounds = [f"{word} {context[key]}" for key, word in _BOUNDS.items() if key in context]
    return ", ".join(bounds) or detail["type"].removesuffix("_type").removesuffix("_parsing").replace("_", " ")


_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most", "max_length": "a length of at most"}
_KINDS = {
    "tuple_type": "a list of str",
    "dict_type": "a dict",
    "path_not_directory": "an existing directory",
    "path_type": "the path of a directory",
}


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print those that are much longer
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
