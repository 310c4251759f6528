"""Which arguments a program may be given: patterns of single arguments, and forms of whole command lines.

A pattern is text that an argument must equal as a whole, in which `{…}` stands for a value:

| value      | what it takes                                                                                     |
|------------|---------------------------------------------------------------------------------------------------|
| `{int}`    | 1 to 18 digits                                                                                    |
| `{word}`   | letters, digits, `_`, `.` and `-`, up to 255 of them, not beginning with `-`; not `..`            |
| `{path}`   | names joined by `/`: relative, without `..`; names are of letters, digits, spaces and `_ . , + -` |
| `{text}`   | anything; only at the end of a pattern                                                            |
| `{a|b|c}`  | one of these                                                                                      |

A value takes as much as it can and gives nothing back, so a match takes time in proportion to the argument. An argument
that begins with a value does not begin with `-`: what reads as an option is let through where a pattern spells it out,
or where its group says `dash = true`.

A form is a list of patterns and groups, read from left to right against the arguments, all of which must be used up. A
group (`min`, `max`, `any_of`) is repeated as often as it matches, up to `max`, and gives nothing back either; each time
it takes the first of its alternatives that matches, each of them a row of patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = r"(?!\.\.(?![\w., +\-]))[\w.][\w., +\-]*+"
_VALUES = {
    "int": r"[0-9]{1,18}+(?![0-9])",
    "word": r"(?!\.\.(?![\w.\-]))[\w.][\w.\-]{0,254}+(?![\w.\-])",
    "path": rf"{_NAME}(?:/{_NAME})*+/?+",
    "text": r"(?s:.*+)",
}
_TAKES = {"int": re.compile(r"[0-9]"), "word": re.compile(r"[\w.\-]"), "path": re.compile(r"[\w., +\-/]")}
"""What a value would take of the text behind it: such a pattern matches nothing."""
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One argument. `matches` decides; `text` is how the grant has it."""

    text: str
    expression: re.Pattern[str]
    open: bool
    """It begins with a value, so that an argument may begin with anything the value takes."""

    def matches(self, argument: str, *, dash: bool = False) -> bool:
        """Whether the whole argument is as the pattern says."""
        if self.open and argument.startswith("-") and not dash:
            return False
        return self.expression.fullmatch(argument) is not None


@dataclass(frozen=True, slots=True)
class Group:
    """A part of a form: alternatives, each a row of patterns, and how often one of them may come."""

    alternatives: tuple[tuple[Pattern, ...], ...]
    least: int = 1
    most: int = 1
    dash: bool = False

    def take(self, arguments: Sequence[str], start: int) -> int | None:
        """Where the arguments go on behind the group; None if it does not match here."""
        for count in range(self.most):
            after = next((end for row in self.alternatives if (end := self._row(row, arguments, start))), None)
            if after is None:
                return start if count >= self.least else None
            start = after
        return start

    def _row(self, row: tuple[Pattern, ...], arguments: Sequence[str], start: int) -> int | None:
        given = arguments[start : start + len(row)]
        fits = len(given) == len(row) and all(
            pattern.matches(argument, dash=self.dash) for pattern, argument in zip(row, given, strict=True)
        )
        return start + len(row) if fits else None


def fits(form: Sequence[Group], arguments: Sequence[str]) -> bool:
    """Whether the arguments are as the form says, all of them."""
    position = 0
    for group in form:
        after = group.take(arguments, position)
        if after is None:
            return False
        position = after
    return position == len(arguments)


@lru_cache(maxsize=1024)
def compiled(text: str) -> Pattern:
    """The pattern that a text describes. Raises ValueError with what is wrong about it."""
    if "\0" in text:
        raise ValueError("a pattern has no NUL")
    pieces = [(match[0], match[1]) for match in _PIECE.finditer(text)]
    expression = ""
    for index, (piece, value) in enumerate(pieces):
        if value is None:
            expression += re.escape(_literal(piece, text))
            continue
        expression += _value(value, text)
        behind = pieces[index + 1] if index + 1 < len(pieces) else None
        _check_behind(value, behind, text)
    _check_option(text, pieces)
    return Pattern(text, re.compile(expression), _is_open(pieces))


def _is_open(pieces: list[tuple[str, str | None]]) -> bool:
    """Whether an argument may begin with a value that is not spelled out."""
    for _, value in pieces:
        if value is None:
            return False
        if "|" not in value:
            return True
        if "" not in value.split("|"):
            return False
    return False


def _check_option(text: str, pieces: list[tuple[str, str | None]]) -> None:
    """The name of an option is spelled out, so that a value cannot make another option of it."""
    before = ""
    for piece, value in pieces:
        if value is not None and "|" not in value:
            long = before.startswith("--") and "=" not in before
            if before in {"-", "--"} or long:
                raise ValueError(f"{text!r} lets any option through; a value comes after '--name=' or '-x'")
            return
        if value is None:
            before += piece
        else:  # a choice may complete a name, or begin one
            before += "--?" if any(choice.startswith("-") for choice in value.split("|")) else "?"


def _literal(piece: str, text: str) -> str:
    if piece in {"{", "}"}:
        raise ValueError(f"{text!r} has a single {piece!r}; a brace that is meant is doubled")
    return piece[0] if piece in {"{{", "}}"} else piece


def _value(value: str, text: str) -> str:
    if "|" in value:
        # The longest first, since nothing is given back.
        choices = sorted(value.split("|"), key=len, reverse=True)
        return f"(?>{'|'.join(map(re.escape, choices))})"
    if value not in _VALUES:
        raise ValueError(
            f"{text!r} has the value {{{value}}}; there are {{int}}, {{word}}, {{path}}, {{text}}, {{a|b}}"
        )
    return f"(?:{_VALUES[value]})"


def _check_behind(value: str, behind: tuple[str, str | None] | None, text: str) -> None:
    if behind is None or "|" in value:
        return
    if value == "text":
        raise ValueError(f"{text!r}: {{text}} takes all that is left, so nothing may follow it")
    following, inner = behind
    if inner is not None:
        raise ValueError(f"{text!r} has two values side by side, so where the second begins is not known")
    if _TAKES[value].match(following):
        raise ValueError(f"{text!r} matches nothing: {{{value}}} takes {following[0]!r} too")
