"""The real program `capsule`, run as a user would: on pipes, and on a terminal of its own."""

from __future__ import annotations

import codecs
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HANG = 60.0
"""Seconds after which something hangs. Never a measure: a busy machine takes its time."""

CAPSULE = Path(sys.executable).with_name("capsule")

_SESSION = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal on descriptor 0 the controlling one, so that Ctrl-C is a signal."""


def clean_environment(**changes: str) -> dict[str, str]:
    """Our environment without what changes the look of output, and with the changes."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, **changes}


def capsule(
    *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `capsule` on pipes to its end."""
    return subprocess.run(
        [CAPSULE, *arguments],
        input=stdin,
        capture_output=True,
        timeout=HANG,
        check=False,
        cwd=cwd,
        env=clean_environment(**(env or {})),
    )


class Running:
    """`capsule` on pipes while it runs; leaving the block ends it."""

    def __init__(self, *arguments: str | Path, stdin: Any = subprocess.PIPE, prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, CAPSULE, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def stdout(self) -> IO[bytes]:
        """What it prints."""
        assert self.process.stdout is not None
        return self.process.stdout

    def until(self, text: bytes) -> bytes:
        """Read stdout until `text` has come."""
        return read_until(self.stdout.fileno(), text)

    def type(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, bytes, bytes]:
        """Wait for the end: exit code, the rest of stdout, stderr."""
        out, err = self.process.communicate(timeout=HANG)
        return self.process.returncode, out or b"", err or b""


class Terminal:
    """`capsule` on a terminal of its own, 80 by 24; leaving the block ends it."""

    program: str | Path = CAPSULE

    def __init__(self, *arguments: str | Path, **env: str) -> None:
        master, slave = pty.openpty()
        look = {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "PROMPT_TOOLKIT_NO_CPR": "1"}
        command = [sys.executable, "-c", _SESSION, self.program, *arguments]
        environment = clean_environment(**{**look, **env})
        self._process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self._master = master
        self._passed = 0  # characters of the plain text that `until` has returned
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.raw = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(HANG)
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys; "\\x03" is Ctrl-C, "\\x04" Ctrl-D, "\\r" Enter."""
        os.write(self._master, keys.encode())

    def until(self, text: str) -> str:
        """Read until `text` has come, as it looks without escape sequences; returns what came since the last time."""
        while (found := plain(self.raw).find(text, self._passed)) < 0:
            data = self._read()
            assert data, f"ended before {text!r}: {plain(self.raw)[self._passed :]!r}"
            self.raw += data
        begin, self._passed = self._passed, found + len(text)
        return plain(self.raw)[begin : self._passed]

    def end(self) -> tuple[int, str]:
        """Wait for the end: the exit code, and what came since the last `until`."""
        while data := self._read():
            self.raw += data
        return self._process.wait(HANG), plain(self.raw)[self._passed :]

    def _read(self) -> str:
        assert select.select([self._master], [], [], HANG)[0], f"silent after {plain(self.raw)[self._passed :]!r}"
        try:
            return self._decoder.decode(os.read(self._master, 65536))
        except OSError:  # EIO: nobody has the terminal open any more
            return ""


def plain(text: str) -> str:
    """Text without escape sequences, nor one that has only begun, and with the line ends of a file."""
    text = re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])", "", text)
    return re.sub(r"\x1b[^a-zA-Z]*\Z|\r\Z", "", text).replace("\r\n", "\n")


def read_until(descriptor: int, text: bytes) -> bytes:
    """Read a pipe until `text` has come."""
    came = b""
    while text not in came:
        assert select.select([descriptor], [], [], HANG)[0], f"waited for {text!r}, got {came!r}"
        data = os.read(descriptor, 65536)
        assert data, f"ended before {text!r}: {came!r}"
        came += data
    return came
