"""What type checkers are told of `caps`: `python -m capsule.broker.stubs FILE` writes it from the providers of ours.

A call gives its value where it waits, and something to await in a coroutine. For a type checker it is both at once: a
value that can be awaited for the same value.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from capsule.broker.registry import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.broker.sdk import Descriptor, Operation

HEAD = '''"""What the code of a session may do outside its process. Made by `python -m capsule.broker.stubs`."""

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")
Body: TypeAlias = bytes | bytearray | memoryview | Iterable[bytes]

class CapabilityError(Exception):
    code: str
    message: str
    hint: str
    retryable: bool
    details: dict[str, Any]

class CapabilityDenied(CapabilityError, PermissionError): ...
class CapabilityTimeout(CapabilityError, TimeoutError): ...
class CapabilityFailed(CapabilityError): ...

class Response(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...

class Bytes(bytes):
    def __await__(self) -> Generator[Any, None, bytes]: ...

class Nothing:
    def __await__(self) -> Generator[Any, None, None]: ...

class Stream(Generic[T]):
    def __iter__(self) -> Iterator[T]: ...
    def __aiter__(self) -> AsyncIterator[T]: ...

def granted() -> list[dict[str, Any]]: ...
'''
_PLAIN = {str: "str", int: "int", float: "float", bool: "bool", bytes: "bytes", type(None): "None", Any: "Any"}


def stubs() -> str:
    """The text of the file."""
    descriptors = load().descriptors()
    classes = [line for descriptor in descriptors.values() for line in _provider(descriptor)]
    names = [f"{name}: {_title(name)}" for name in descriptors]
    return "\n".join(
        [HEAD, *classes, *names, "", "class Caps:", *(f"    {line}" for line in names), "", "plain: Caps", ""]
    )


def _provider(descriptor: Descriptor) -> Iterator[str]:
    for name, operation in descriptor.operations.items():
        title = _title(descriptor.name) + _title(name)
        if not _is_plain(operation):
            yield from _response(title, operation)
        yield f"class {title}Operation:"
        yield f"    def __call__({_parameters(operation)}) -> {_answer(title, operation)}: ..."
        if operation.gives_body:
            piece = "tuple[str, bytes]" if operation.body_kind == "outputs" else "bytes"
            yield f"    def stream({_parameters(operation)}) -> Stream[{piece}]: ..."
        yield ""
    yield f"class {_title(descriptor.name)}:"
    for name in descriptor.operations:
        yield f"    {name}: {_title(descriptor.name)}{_title(name)}Operation"
    yield ""


def _is_plain(operation: Operation) -> bool:
    """Whether it answers with bytes alone, or with nothing."""
    return operation.returns == "body" or not (operation.response.model_fields or operation.gives_body)


def _answer(title: str, operation: Operation) -> str:
    if not _is_plain(operation):
        return "Any" if set(operation.response.model_fields) == {"value"} else title
    return "Bytes" if operation.gives_body else "Nothing"


def _response(title: str, operation: Operation) -> Iterator[str]:
    if set(operation.response.model_fields) == {"value"}:
        return
    yield f"class {title}(Response):"
    for name, field in operation.response.model_fields.items():
        yield f"    {name}: {_type(field.annotation)}"
    if operation.gives_body:
        yield from (
            ["    stdout: bytes", "    stderr: bytes"] if operation.body_kind == "outputs" else ["    data: bytes"]
        )
    if operation.gives_body and operation.body_kind == "bytes":
        yield from ["    text: str", "    def json(self) -> Any: ..."]
    yield f"    def __await__(self) -> Generator[Any, None, {title}]: ..."
    yield ""


def _parameters(operation: Operation) -> str:
    """As `help(caps)` shows them: by name only the body, and what is required behind what is not, with all after it."""
    given, optional = ["self"], False
    named: list[str] = []
    for name, field in operation.request.model_fields.items():
        text = f"{name}: {_type(field.annotation)}" + ("" if field.is_required() else " = ...")
        (named if named or (optional and field.is_required()) else given).append(text)
        optional |= not field.is_required()
    if operation.takes_body:
        named.append("data: Body = ...")
    return ", ".join([*given, *(["*", *named] if named else [])])


def _type(annotation: Any) -> str:
    """As it is for who calls: models are maps, tuples are any sequence that JSON has."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Annotated:
        return _type(inner[0])
    if origin in {Union, types.UnionType}:
        return " | ".join(dict.fromkeys(map(_type, inner)))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, inner))}]"
    if origin in {list, tuple}:
        return f"list[{_type(inner[0])}]"
    if origin is dict:
        return f"dict[{', '.join(map(_type, inner))}]"
    return "dict[str, Any]" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "Any"


def _title(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(stubs(), encoding="utf-8")
