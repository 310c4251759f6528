"""How values, displays and tracebacks look as text: plain for a pipe, or with rich's colours for a terminal."""

from __future__ import annotations

import io
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from capsule.events import ErrorInfo

_OPAQUE = re.compile(r"<IPython\.core\.display\.\w+ object>\Z")
"""What text/plain says of an object that only other MIME types show."""

_TEXTUAL = ("text/markdown", "text/latex", "application/json", "image/svg+xml", "text/html")
"""What is shown where text/plain says nothing, best first."""

_PLACE = re.compile(r"(File |Cell |\S+ in |-{20,})")
_ARROW = re.compile(r"(-+> ?\d+ )(.*)", re.DOTALL)


def plain_bundle(data: dict[str, Any]) -> str:
    """A MIME bundle as plain text, which ends with a line end; "" for an empty one."""
    mime, value = _choose(data)
    if not mime:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text.endswith("\n") else f"{text}\n"


def plain_error(error: ErrorInfo) -> str:
    """The traceback, and what ended the code where that was no exception of its own."""
    traceback = "\n".join(error.traceback).rstrip("\n") + "\n" if error.traceback else ""
    return traceback + ending(error)


def ending(error: ErrorInfo) -> str:
    """The line for an end that a traceback does not tell; "" where it does."""
    if error.traceback and error.code in {"execution_error", "execution_interrupted"}:
        return ""
    return message(error.message or error.name, error.code, error.hint)


def message(text: str, code: str, hint: str) -> str:
    """The line by which the command line tells an error that is not the code's own."""
    return f"capsule: {text} ({code})" + (f". {hint}\n" if hint else "\n")


def rich_bundle(data: dict[str, Any]) -> str:
    """A MIME bundle for a terminal."""
    from rich.highlighter import ReprHighlighter
    from rich.markdown import Markdown
    from rich.syntax import Syntax
    from rich.text import Text

    mime, value = _choose(data)
    if not mime:
        return ""
    if not isinstance(value, str):
        return render(Syntax(json.dumps(value, indent=2, ensure_ascii=False), "json", background_color="default"))
    if mime == "text/markdown":
        return render(Markdown(value))
    text = Text.from_ansi(value) if "\x1b" in value else ReprHighlighter()(Text(value))
    return render(text, wrap=False)


def rich_error(error: ErrorInfo) -> str:
    """A traceback for a terminal: places stand out, the line that raised is marked, the message comes last in red."""
    from rich.text import Text

    lines = plain_error(error).splitlines()
    last = max((i for i, line in enumerate(lines) if line.startswith(error.name)), default=len(lines) - 1)
    text = Text()
    for number, line in enumerate(lines):
        style = "bold red" if number >= last else "cyan" if _PLACE.match(line) else ""
        if arrow := _ARROW.match(line):
            text.append(arrow[1], "bold green").append(arrow[2], "bold")
        else:
            text.append(line, style)
        text.append("\n")
    text.right_crop(1)
    return render(text, wrap=False)


def rich_cell(source: str) -> str:
    """The source of a notebook's cell, indented."""
    from rich.padding import Padding
    from rich.syntax import Syntax

    return "\n" + render(Padding(Syntax(source, "ipython3", background_color="default"), (0, 0, 0, 2)))


def rich_markdown(source: str) -> str:
    """The text of a notebook's markdown cell."""
    from rich.markdown import Markdown

    return "\n" + render(Markdown(source))


def render(renderable: RenderableType, *, wrap: bool = True) -> str:
    """What rich makes of something on the terminal that we have; it honours NO_COLOR and TERM."""
    from rich.console import Console

    buffer = io.StringIO()
    width = shutil.get_terminal_size().columns
    console = Console(file=buffer, force_terminal=True, width=width, legacy_windows=False, emoji=False, markup=False)
    console.print(renderable, soft_wrap=not wrap)
    return buffer.getvalue()


def _choose(data: dict[str, Any]) -> tuple[str, Any]:
    """The MIME type to show as text, and its value; ("", "") for an empty bundle."""
    plain = data.get("text/plain")
    if "text/markdown" in data:
        return "text/markdown", data["text/markdown"]
    if plain is not None and not (isinstance(plain, str) and _OPAQUE.match(plain)):
        return "text/plain", plain
    for mime in _TEXTUAL:
        if mime in data:
            return mime, data[mime]
    if plain is None and data:
        return "text/plain", f"<{', '.join(data)}>"
    return ("text/plain", plain) if plain is not None else ("", "")
