"""The code blocks of a Markdown file, as one script whose line numbers are those of the file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)\s*$")
SKIPPED = re.compile(r"<!-- not run: (\S.*?) -->\s*$")
LANGUAGES = ("python", "text", "console", "toml")
"""`text` is what the Python block above it prints; `console` has commands behind `$`; `toml` is read."""
MARK = "--- output of the block in line"


class Block(NamedTuple):
    """A fenced block: its language, the line of its opening fence (from 1), its lines."""

    language: str
    line: int
    text: list[str]


class Example(NamedTuple):
    """A Python block and what the text block below it, if there is one, says that it prints."""

    code: Block
    printed: str | None


def blocks(lines: list[str]) -> list[Block]:
    """All fenced blocks; a fence that is not closed is an error of the file."""
    found: list[Block] = []
    inside: Block | None = None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if inside is None and fence:
            inside = Block(fence[1], number, [])
        elif inside is not None and line.rstrip() == "```":
            found.append(inside)
            inside = None
        elif inside is not None:
            inside.text.append(line)
    assert inside is None, f"the block in line {inside.line} is not closed"
    return found


def examples(path: Path) -> list[Example]:
    """The Python blocks that are to be run; one is skipped only below `<!-- not run: REASON -->`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Example] = []
    last: Block | None = None
    for block in blocks(lines):
        assert block.language in LANGUAGES, f"the block in line {block.line} is {block.language!r}, not of {LANGUAGES}"
        if block.language == "toml":
            tomllib.loads("\n".join(block.text))
        if block.language == "text":
            assert last is not None, f"the text in line {block.line} does not follow a Python block"
            assert last.line + len(last.text) + 3 == block.line, f"the text in line {block.line} stands alone"
            found[-1] = Example(last, "".join(f"{line}\n" for line in block.text))
        last = None
        if block.language == "python" and not SKIPPED.match(_line_above(lines, block)):
            last = block
            found.append(Example(block, None))
    return found


def commands(path: Path) -> dict[str, int]:
    """The `capsule` commands that are to be run, and the exit codes that comments behind them tell (else 0)."""
    found = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for block in blocks(lines):
        is_run = block.language == "console" and not SKIPPED.match(_line_above(lines, block))
        for line in block.text if is_run else []:
            if line.startswith("$ capsule "):
                told = re.search(r" # exit code (\d+)$", line)
                found[line.removeprefix("$ ")] = int(told[1]) if told else 0
    return found


def script(found: list[Example]) -> str:
    """All blocks in one program. The fence above each becomes the line that tells where its output begins."""
    lines: list[str] = []
    for example in found:
        lines += [""] * (example.code.line - 1 - len(lines))
        lines += [f"print({MARK!r}, {example.code.line})", *example.code.text]
    return "\n".join(lines) + "\n"


def outputs(printed: str) -> dict[int, str]:
    """What a run of the script printed, by the lines of the blocks."""
    parts = re.split(rf"^{MARK} (\d+)\n", printed, flags=re.MULTILINE)
    return {int(line): text for line, text in zip(parts[1::2], parts[2::2], strict=True)}


def _line_above(lines: list[str], block: Block) -> str:
    """The last line above a block that is not empty."""
    return next((line for line in reversed(lines[: block.line - 1]) if line.strip()), "")
