"""What `capsule run` was asked to run: a script, a notebook, code from the command line or from stdin."""

from __future__ import annotations

import io
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class Program:
    """Code and what Python would tell it about itself.

    `code` is the source (empty for a notebook, whose path is `notebook`). `file` is its `__file__`, `argv` its
    `sys.argv`, `path` what precedes the module path, `name` how tracebacks call the source.
    """

    argv: tuple[str, ...]
    path: str
    code: str = ""
    file: str | None = None
    name: str | None = None
    notebook: Path | None = None


def load(code: str | None, arguments: tuple[str, ...]) -> Program:
    """The program that `-c CODE` or the first argument names; raises click's usage errors."""
    if code is not None:
        return Program(argv=("-c", *arguments), path="", code=code, name="<string>")
    if not arguments:
        raise click.UsageError("Nothing to run: give FILE.py, FILE.ipynb, -c CODE, or - for stdin.")
    if arguments[0] == "-":
        source = _decode(sys.stdin.buffer.read(), "stdin")
        return Program(argv=arguments, path="", code=source, file="<stdin>", name="<stdin>")
    return _load_file(arguments)


def _load_file(arguments: tuple[str, ...]) -> Program:
    file = Path(arguments[0]).absolute()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise click.UsageError(f"Cannot read {arguments[0]!r}: {error.strerror}.") from error
    path = str(file.resolve().parent)
    if file.suffix == ".ipynb":
        return Program(argv=arguments, path=path, notebook=file)
    return Program(argv=arguments, path=path, code=_decode(data, arguments[0]), file=str(file), name=str(file))


def _decode(data: bytes, origin: str) -> str:
    """Source text as Python reads it: an encoding cookie, a byte-order mark or UTF-8; any kind of line end."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return io.StringIO(data.decode(encoding), newline=None).read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise click.UsageError(f"Cannot read {origin!r} as Python source: {error}.") from error
