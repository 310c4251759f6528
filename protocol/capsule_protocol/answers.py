"""What a question allows as its answer: a line of text, or a JSON value that is one of its choices or fits its schema.

Worker, node and clients decide by the same functions. A typed answer travels as JSON text.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple, NoReturn

from capsule_protocol.errors import ArgumentError, SessionError
from capsule_protocol.json_schema import SchemaError, canonical, check_schema, listed, mismatch, shown

ANSWER_BYTES = 64 * 1024
"""Of an answer in JSON, or from elsewhere."""
QUESTION_BYTES = 16 * 1024
"""Of the choices or the schema in JSON."""
MAX_CHOICES = 256
DEPTH = 32
"""Arrays and objects within each other."""
MAX_SECONDS = 366 * 86_400
"""For which a question may be open."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_INTEGERS = range(-(2**63), 2**63)


class Terms(NamedTuple):
    """What is allowed; with neither, a line of text."""

    choices: list[Any] | None = None
    schema: dict[str, Any] | None = None

    @property
    def typed(self) -> bool:
        """Whether the answer is a JSON value."""
        return self.choices is not None or self.schema is not None

    def check(self) -> None:
        """Look whether a question may have these terms. Raises ArgumentError."""
        if self.choices is not None and self.schema is not None:
            raise ArgumentError("schema", "choices are given, too", allowed="one of the two")
        if self.choices is not None:
            _check_size("choices", self.choices)
            if not 1 <= len(self.choices) <= MAX_CHOICES:
                raise ArgumentError("choices", f"are {len(self.choices)}", allowed=f"1 to {MAX_CHOICES}")
        if self.schema is not None:
            _check_size("schema", self.schema)
            try:
                check_schema(self.schema)
            except SchemaError as error:
                raise ArgumentError("schema", str(error)) from error

    def read(self, text: str) -> Any:
        """The value that a JSON text says. Raises SessionError `answer_refused` if it is not allowed."""
        if len(text.encode(errors="replace")) > ANSWER_BYTES:
            raise _refused(f"has more than {ANSWER_BYTES} bytes", f"at most {ANSWER_BYTES}")
        try:
            value = json.loads(text, parse_constant=_no_number)
            check_value(value)
        except (ValueError, RecursionError) as error:
            raise _refused(f"is no JSON that can be kept: {error}", "JSON") from error
        if self.choices is not None and canonical(value) not in map(canonical, self.choices):
            raise _refused(f"is {shown(value)}", listed(self.choices))
        wrong = None if self.schema is None else mismatch(value, self.schema)
        if wrong is not None:
            where = "" if wrong.at == "$" else f", at {wrong.at},"
            raise _refused(f"{where} {wrong.found}".removeprefix(" "), wrong.allowed, at=wrong.at)
        return value

    def write(self, value: object) -> str:
        """The JSON text of a value. Raises SessionError `answer_refused` if it is not allowed."""
        text = json_text(value)
        self.read(text)
        return text

    def understand(self, line: str) -> Any:
        """The value that a person means: what they write is JSON, or a text without its quotes, whichever is allowed.

        Raises SessionError `answer_refused`.
        """
        quoted = json.dumps(line)
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return self.read(quoted)
        try:
            return self.read(line)
        except SessionError:
            try:
                return self.read(quoted)
            except SessionError:
                pass
            raise

    def words(self) -> str:
        """What is allowed, in a line for people; "" without terms."""
        if self.choices is not None:
            return ", ".join(choice if isinstance(choice, str) else shown(choice) for choice in self.choices)
        return "" if self.schema is None else json.dumps(self.schema, ensure_ascii=False)


def json_text(value: object) -> str:
    """The JSON text of a value. Raises SessionError `answer_refused` if there is none."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(f"is no JSON: {error}", "JSON") from error


def _check_size(name: str, value: object) -> None:
    size = 0
    parts = _ENCODER.iterencode(value)
    try:
        while size <= QUESTION_BYTES and (part := next(parts, "")):  # a hostile worker may have made it 64 MiB
            size += len(part.encode())
        if size <= QUESTION_BYTES:
            check_value(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(name, f"cannot be said in JSON: {error}") from error
    if size > QUESTION_BYTES:
        allowed = f"at most {QUESTION_BYTES} bytes of JSON"
        raise ArgumentError(name, "cannot be asked: too large", allowed=allowed)


def check_value(value: Any, depth: int = 0) -> None:
    """Whether messages and stores can carry it. Raises ValueError."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise ValueError("an integer has more than 64 bits")
    elif isinstance(value, list | dict):
        if depth == DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH}")
        for item in value:
            check_value(item, depth + 1)
        for item in value.values() if isinstance(value, dict) else ():
            check_value(item, depth + 1)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _refused(found: str, allowed: str, **details: str) -> SessionError:
    said = found if found.startswith(",") else f" {found}"
    message = f"the answer{said}; allowed: {allowed}"
    return SessionError("answer_refused", message, details={"allowed": allowed, **details})
