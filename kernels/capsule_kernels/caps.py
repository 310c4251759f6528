"""`caps`: what a session may do outside its process, as an object and as a module: `caps.files.read("data/a.txt")`.

In a coroutine a call is awaited, elsewhere it waits: the same function does both. Whoever calls plainly from within a
coroutine says so: `caps.plain.files.read(...)`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from capsule_kernels.calls import Asked
from capsule_kernels.signatures import describe
from capsule_protocol import program_output
from capsule_protocol.errors import (
    CapabilityDenied,
    CapabilityError,
    CapabilityFailed,
    CapabilityTimeout,
    capability_error,
)

if TYPE_CHECKING:
    from capsule_kernels.calls import Answer, Calls

NAME = "caps"
OUTPUTS = "outputs"
"""The kind of a body that has the outputs of a program."""
GRANTED = "caps.granted"
"""The capability that needs no grant: it tells which there are."""


_LIKE: dict[str, type[Exception]] = {
    "path_unknown": FileNotFoundError,
    "path_exists": FileExistsError,
    "path_is_directory": IsADirectoryError,
    "path_not_directory": NotADirectoryError,
    "capability_invalid": ValueError,
}
"""What `open` and its kin raise in such a case, by which these are caught too."""


class _Alike(CapabilityFailed):
    """A failure that is an exception of Python's, too. Such classes share their name: its code leads back to one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _failed, (self.as_dict(),)


_FAILED: dict[str, Any] = {
    code: type(CapabilityFailed.__name__, (_Alike, like), {"__module__": NAME, "__doc__": like.__doc__})
    for code, like in _LIKE.items()
}


class Response(Mapping[str, Any]):
    """What a call has answered: its fields as attributes and items; `data` is its body, if it has one."""

    def __init__(self, fields: dict[str, Any], data: bytes | None = None) -> None:
        self._fields = fields if data is None else {**fields, "data": data}

    def __getattr__(self, name: str) -> Any:
        fields: dict[str, Any] = vars(self).get("_fields", {})  # whoever copies it asks before there are any
        try:
            return fields[name]
        except KeyError:
            raise AttributeError(f"the answer has no {name!r}; it has {', '.join(fields)}") from None

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._fields]

    def __repr__(self) -> str:
        return f"Response({', '.join(f'{name}={_short(value)}' for name, value in self._fields.items())})"

    @property
    def text(self) -> str:
        """The body as text."""
        return bytes(self._fields["data"]).decode(errors="replace")

    def json(self) -> Any:
        """The body, read as JSON. Raises ValueError."""
        return json.loads(self._fields["data"])


class Operation:
    """One operation, to be called. `stream(...)` is its answer's body, piece by piece, for `for` and `async for`."""

    def __init__(self, caller: Caps, name: str) -> None:
        self._caller = caller
        self._name = name
        self.__name__ = self.__qualname__ = name

    def __call__(self, *positional: Any, **arguments: Any) -> Any:
        """Call it. Bytes, or `data=` bytes or an iterable of bytes, are the body of the request."""
        return self._caller.call(_asked(self._name, positional, arguments))

    def stream(self, *positional: Any, **arguments: Any) -> Stream:
        """Call it, and have the answer's body as it comes."""
        kinds = {each["name"]: each["body_kind"] for each in self._caller.granted()}
        return Stream(self._caller.calls, _asked(self._name, positional, arguments), kinds.get(self._name, ""))

    def __repr__(self) -> str:
        return f"<capability {self._name}>"


class Stream:
    """The body of an answer that is under way: to be iterated over once, plainly or asynchronously.

    It gives bytes; of a program's outputs pairs of "stdout" or "stderr" and bytes.
    """

    def __init__(self, calls: Calls, asked: Asked, kind: str) -> None:
        self._calls = calls
        self._asked = asked
        self._frames = program_output.Frames() if kind == OUTPUTS else None

    def __iter__(self) -> Iterator[Any]:
        for piece in _translated(self._calls.pieces(self._asked)):
            yield from self._read(piece)

    def _read(self, piece: bytes) -> Iterator[Any]:
        if self._frames is None:
            yield piece
        else:
            for stream, content in self._frames.feed(piece):
                yield ("stdout" if stream == program_output.STDOUT else "stderr"), content

    async def __aiter__(self) -> AsyncIterator[Any]:
        talk = self._calls.drive(self._asked)
        try:
            while (piece := await talk.next()) is not None:
                for each in self._read(piece):
                    yield each
        except CapabilityError as error:
            raise _translate(error) from None
        finally:
            talk.close()


class Provider:
    """The operations of one provider."""

    def __init__(self, caller: Caps, name: str) -> None:
        self._caller = caller
        self._name = name

    def __getattr__(self, operation: str) -> Operation:
        if operation.startswith("_"):
            raise AttributeError(operation)
        return Operation(self._caller, f"{self._name}.{operation}")

    def __dir__(self) -> list[str]:
        prefix = f"{self._name}."
        names = [each["name"] for each in self._caller.granted() if each["name"].startswith(prefix)]
        return [*super().__dir__(), *(name.removeprefix(prefix) for name in names)]

    def __repr__(self) -> str:
        return f"<capabilities {self._name}.*>"


class Caps(ModuleType):
    """The object. What it has follows from what is granted, which it asks the node each time."""

    CapabilityError = CapabilityError
    CapabilityDenied = CapabilityDenied
    CapabilityTimeout = CapabilityTimeout
    CapabilityFailed = CapabilityFailed

    def __init__(self, calls: Calls, *, waits: bool | None = None) -> None:
        super().__init__(NAME)
        self.calls = calls
        self._waits = waits

    @property
    def __all__(self) -> list[str]:
        """The providers of which something is granted."""
        return sorted({each["name"].partition(".")[0] for each in self.granted()})

    def granted(self) -> list[dict[str, Any]]:
        """The operations that this session may call: name, summary, and the schemas of request and response."""
        answer, _ = self.calls.ask(Asked(GRANTED, (), {}))
        operations: list[dict[str, Any]] = answer.value["operations"]
        return operations

    @property
    def plain(self) -> Caps:
        """The same, whose calls wait for their answer also in a coroutine."""
        return Caps(self.calls, waits=True)

    def call(self, asked: Asked) -> Any:
        """The value of a call, or what is to be awaited for it."""
        if self._waits is None and _in_coroutine():
            return self._await(asked)
        try:
            return _value(*self.calls.ask(asked))
        except CapabilityError as error:
            raise _translate(error) from None

    async def _await(self, asked: Asked) -> Any:
        try:
            return _value(*await self.calls.ask_async(asked))
        except CapabilityError as error:
            raise _translate(error) from None

    def __getattr__(self, provider: str) -> Provider:
        if provider.startswith("_"):
            raise AttributeError(provider)
        return Provider(self, provider)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.__all__]

    def __repr__(self) -> str:
        return "<caps: help(caps) lists what is granted>"

    @property
    def __doc__(self) -> str:  # type: ignore[override]  # what `help` shows is asked for
        return describe(self.granted())


def install(calls: Calls) -> Caps:
    """Make it the module `caps` too."""
    caps = sys.modules[NAME] = Caps(calls)
    return caps


def _asked(name: str, positional: tuple[Any, ...], arguments: dict[str, Any]) -> Asked:
    """Bytes are the body wherever they stand; paths are text."""
    body = arguments.pop("data", None)
    plain = []
    for value in positional:
        if isinstance(value, bytes | bytearray | memoryview) and body is None:
            body = value
        else:
            plain.append(_plain(value))
    if isinstance(body, str):
        raise TypeError(f"{name}: data is bytes, or an iterable of bytes; encode the text")
    return Asked(name, tuple(plain), {key: _plain(value) for key, value in arguments.items()}, body)


def _plain(value: Any) -> Any:
    """What a message can carry."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _value(answer: Answer, pieces: list[bytes]) -> Any:
    """Bytes alone, or the one value, or fields; as the answer has it."""
    fields = answer.value
    if answer.body:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if answer.body == OUTPUTS:
            stdout, stderr = program_output.split(data)
            return Response({**fields, "stdout": stdout, "stderr": stderr})
        return Response(fields, data) if fields else data
    if not fields:
        return None
    return fields["value"] if fields.keys() == {"value"} else Response(fields)


def _translate(error: CapabilityError) -> CapabilityError:
    kind: Callable[..., CapabilityError] | None = _FAILED.get(error.code)
    if kind is None:
        return error.with_traceback(None)
    return kind(error.code, error.message, hint=error.hint, retryable=error.retryable, details=error.details)


def _failed(told: dict[str, Any]) -> CapabilityError:
    """One that was pickled."""
    return _translate(capability_error(CapabilityFailed.outcome, told))


def _translated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except CapabilityError as error:
        raise _translate(error) from None


def _in_coroutine() -> bool:
    """Whether a task of an event loop is what calls: a synchronous cell only borrows the loop."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _short(value: object) -> str:
    text = repr(value[:40] if isinstance(value, bytes | str) else value)
    return text if len(text) <= 80 else f"{text[:80]}…"
