"""sys.stdout and sys.stderr of a worker, and their order with all that writes to descriptors 1 and 2."""

from __future__ import annotations

import array
import ctypes
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest

from capsule_kernels import capture, streams
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Pipes


def installed() -> Pipes:
    """The process's streams on the pipes; text is held until something makes the outlet flush it."""
    pipes = Pipes(2**20)
    pipes.take_descriptors()
    streams.install(pipes.outlet)
    pipes.outlet.ask_for_flush = lambda: None
    capture.HOLD = float("inf")
    return pipes


@alone
def test_the_streams_look_like_those_of_a_process() -> None:
    installed()
    for stream, number, name in ((sys.stdout, 1, "<stdout>"), (sys.stderr, 2, "<stderr>")):
        assert stream.fileno() == number
        assert stream.name == name
        assert stream.encoding == "utf-8"
        assert (stream.writable(), stream.readable(), stream.seekable(), stream.isatty()) == (True, False, False, False)
        assert stream.buffer.fileno() == number
        assert stream.buffer.writable()
    assert sys.__stdout__ is sys.stdout
    assert sys.__stderr__ is sys.stderr


@alone
def test_the_streams_never_close() -> None:
    pipes = installed()
    with sys.stdout as stream:
        stream.write("a")
    stream.close()
    stream.buffer.close()
    assert not stream.closed
    assert not stream.buffer.closed
    print("b", end="", flush=True)
    assert pipes.text(0) == b"ab"


@alone
def test_text_only() -> None:
    installed()
    for wrong in (b"x", 5, None):
        with pytest.raises(TypeError):
            sys.stdout.write(wrong)  # type: ignore[arg-type]  # as user code may


@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]])
@alone
def test_bytes_only(wrong: object) -> None:
    """`bytes(5)` would be five zeros."""
    installed()
    with pytest.raises(TypeError):
        sys.stdout.buffer.write(wrong)  # type: ignore[call-overload]  # as user code may


@alone
def test_bytes_of_any_kind_and_their_number() -> None:
    pipes = installed()
    assert sys.stdout.buffer.write(bytearray(b"ab")) == 2
    assert sys.stdout.buffer.write(memoryview(b"abcd")[::2]) == 2
    assert sys.stdout.buffer.write(array.array("H", [0x4141, 0x4242])) == 4
    sys.stdout.buffer.flush()
    assert pipes.text(0) == b"abacAABB"


@alone
def test_text_and_bytes_keep_their_order() -> None:
    pipes = installed()
    sys.stdout.write("1")
    sys.stdout.buffer.write(b"2")
    sys.stdout.writelines(["3", "4"])
    print(5, end="")
    sys.stdout.flush()
    assert pipes.text(0) == b"12345"


@alone
def test_carriage_returns_stay() -> None:
    pipes = installed()
    sys.stdout.write("10%\r20%\r\n")
    sys.stdout.flush()
    assert pipes.text(0) == b"10%\r20%\r\n"


@alone
def test_reconfigure_is_accepted() -> None:
    installed()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)  # type: ignore[union-attr]
    assert sys.stdout.encoding == "utf-8"


@alone
def test_a_text_wrapper_around_the_buffer_works() -> None:
    pipes = installed()
    wrapper = io.TextIOWrapper(sys.stdout.buffer, encoding="latin-1")
    wrapper.write("é")
    wrapper.flush()
    assert pipes.text(0) == b"\xe9"


@alone
def test_logging_finds_the_stream() -> None:
    pipes = installed()
    logging.basicConfig(level=logging.DEBUG, force=True)
    logging.getLogger().debug("told")
    sys.stderr.flush()
    assert pipes.text(1) == b"DEBUG:root:told\n"


def by_write() -> None:
    os.write(1, b"2")


def by_writev() -> None:
    os.writev(1, [b"2", b""])


def by_sendfile() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"2")
        file.flush()
        os.sendfile(1, file.fileno(), 0, 1)


def by_sendfile_with_keywords() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"2")
        file.flush()
        os.sendfile(out_fd=1, in_fd=file.fileno(), offset=0, count=1)


def by_subprocess() -> None:
    subprocess.run(["printf", "2"], check=True)


def by_system() -> None:
    os.system("printf 2")


def by_fork() -> None:
    pid = os.fork()
    if pid == 0:
        print(2, end="")
        os._exit(0)
    os.waitpid(pid, 0)


def by_spawn() -> None:
    os.waitpid(os.posix_spawnp("printf", ["printf", "2"], os.environ), 0)


def by_c() -> None:
    libc = ctypes.CDLL(None)
    libc.write(1, b"2", 1)


def by_c_stdio() -> None:
    libc = ctypes.CDLL(None)
    libc.puts(b"2")
    streams.flush_c_output()


WRITERS: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        by_write,
        by_writev,
        by_sendfile,
        by_sendfile_with_keywords,
        by_subprocess,
        by_system,
        by_fork,
        by_spawn,
        by_c,
        by_c_stdio,
    )
}


@pytest.mark.parametrize("writer", sorted(WRITERS))
@alone
def test_what_is_printed_before_a_direct_write_comes_before_it(writer: str) -> None:
    pipes = installed()
    print(1, end="")
    WRITERS[writer]()
    print(3, end="", flush=True)
    assert pipes.text(0).replace(b"\n", b"") == b"123"


@alone
def test_a_write_to_another_descriptor_flushes_nothing() -> None:
    pipes = installed()
    print("held", end="")
    reader, writer = os.pipe()
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    assert pipes.raw(0) == b""


@alone
def test_the_wrapped_functions_behave_as_before() -> None:
    installed()
    with pytest.raises(TypeError):
        os.write()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        os.write("1", b"x")  # type: ignore[arg-type]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(999, b"x")
    assert os.write.__name__ == "write"
