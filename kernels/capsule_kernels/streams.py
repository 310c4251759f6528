"""sys.stdout and sys.stderr of a worker, and the places where held text must be flushed to keep the order."""

from __future__ import annotations

import ctypes
import io
import os
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.capture import Outlet

_FLUSH_BEFORE: Final = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.posix_spawn",
        "os.fork",
        "os.forkpty",
        "os.exec",
        "os.spawn",
        "ctypes.dlopen",
        "ctypes.dlsym",
        "ctypes.dlsym/handle",
    }
)
"""Audit events after which something else than Python's streams may write to descriptors 1 and 2."""


class TextStream(io.TextIOBase):
    """A text stream over one of the worker's pipes; never closes, never buffers behind the outlet's back."""

    encoding: str = "utf-8"
    errors: str = "backslashreplace"
    mode = "w"
    line_buffering = True
    write_through = False
    newlines = None

    def __init__(self, outlet: Outlet, stream: int) -> None:
        super().__init__()
        self._outlet = outlet
        self._stream = stream
        self.name = ("<stdout>", "<stderr>")[stream]
        self.buffer = BinaryStream(outlet, stream)
        self.write = outlet.writer(stream)  # type: ignore[method-assign]  # a function without self: `print` is hot

    def flush(self) -> None:
        """Put held text into the pipe."""
        self._outlet.flush()

    def close(self) -> None:
        """Only flushes: the stream belongs to the session."""
        self.flush()

    def fileno(self) -> int:
        """1 or 2, as in any process."""
        return self._stream + 1

    def isatty(self) -> bool:
        """False: the other end is a pipe."""
        return False

    def readable(self) -> bool:
        """False."""
        return False

    def writable(self) -> bool:
        """True."""
        return True

    def reconfigure(self, **_options: Any) -> None:
        """Accepted, as scripts call it at their start; the encoding stays UTF-8."""
        self.flush()


class BinaryStream(io.BufferedIOBase):
    """The `.buffer` of a text stream."""

    def __init__(self, outlet: Outlet, stream: int) -> None:
        super().__init__()
        self._outlet = outlet
        self._stream = stream
        self.name = ("<stdout>", "<stderr>")[stream]
        self.mode = "wb"

    def write(self, data: Any, /) -> int:
        """Write bytes; returns their number."""
        plain = bytes(memoryview(data))  # of a number, bytes() would make zeros
        self._outlet.write(self._stream, plain)
        return len(plain)

    def flush(self) -> None:
        """Put held text into the pipe."""
        self._outlet.flush()

    def close(self) -> None:
        """Only flushes: the stream belongs to the session."""
        self.flush()

    def fileno(self) -> int:
        """1 or 2."""
        return self._stream + 1

    def writable(self) -> bool:
        """True."""
        return True


def install(outlet: Outlet) -> None:
    """Give the process its streams, and keep their order with direct writes and child processes."""
    sys.stdout = sys.__stdout__ = TextStream(outlet, 0)  # type: ignore[assignment, misc]  # as a new process would
    sys.stderr = sys.__stderr__ = TextStream(outlet, 1)  # type: ignore[assignment, misc]

    def flush_before(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _FLUSH_BEFORE:
            outlet.before_other_writer()

    buffer_c_output_by_lines()
    sys.addaudithook(flush_before)
    for name in ("write", "writev", "sendfile"):
        setattr(os, name, _flushing(getattr(os, name), outlet))


_libc = ctypes.CDLL(None)
_stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
_LINE_BUFFERED = 1


def buffer_c_output_by_lines() -> None:
    """Have C's stdout pass whole lines on at once, as at a terminal: on a pipe it would keep 4 KiB to itself."""
    _libc.setvbuf(_stdout, None, _LINE_BUFFERED, 0)


def flush_c_output() -> None:
    """Pass on what C code has printed without a newline; of stdout only, other files may be locked by their readers."""
    _libc.fflush(_stdout)


def _flushing(function: Callable[..., Any], outlet: Outlet) -> Callable[..., Any]:
    """The function, with held text flushed before it where its first argument is descriptor 1 or 2 (no audit event)."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        descriptor = arguments[0] if arguments else keywords.get("out_fd")
        if descriptor in (1, 2):
            outlet.before_other_writer(int(descriptor) - 1)
        return function(*arguments, **keywords)

    return call
