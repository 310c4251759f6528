"""`protocol/README.md` is normative: it names every type with its fields and senders, every code, limit and state."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from capsule_protocol import page, states
from capsule_protocol.errors import CODES
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages import MESSAGES

ROOT = Path(__file__).parents[3] / "protocol"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(key: str) -> list[list[str]]:
    """The cells of the table rows that begin with a name in code style."""
    lines = [line for line in TEXT.splitlines() if line.startswith(f"| `{key}` |")]
    return [[cell.strip() for cell in line.replace(r"\|", "/").strip("|").split("|")] for line in lines]


def sender(link: states.Link, first: states.Role, second: states.Role, kind: str) -> str:
    ends = [role for role in (first, second) if kind in states.SENDS[link][role]]
    return {0: "–", 1: "".join(ends), 2: "both"}[len(ends)]


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_type_has_a_row_with_its_fields_and_senders(kind: str) -> None:
    (row,) = [row for row in rows(kind) if len(row) == 5]
    assert row[1:3] == [sender("client", "client", "node", kind), sender("worker", "node", "worker", kind)]
    for field, info in MESSAGES[kind].model_fields.items():
        assert f"`{field}`: " in row[3]
        part = next(part for part in row[3].split("; ") if part.startswith(f"`{field}`: "))
        assert (" = `" in part) != info.is_required()


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_row(code: str) -> None:
    info = CODES[code]
    assert rows(code) == [[f"`{code}`", info.meaning, info.hint, "yes" if info.retryable else ""]]


def test_every_limit_has_a_row_with_its_default() -> None:
    for name, value in asdict(DEFAULT_LIMITS).items():
        ((_, default, _),) = rows(name)
        assert default.split()[0] == str(value)


@pytest.mark.parametrize("name", ["execution", "stream", "client_link", "worker_link"])
def test_every_step_of_every_table_is_told(name: str) -> None:
    section = TEXT.split(f"### {name.replace('_', ' ').capitalize()}\n")[1].split("\n#")[0]
    table = states.TABLES[name]
    told = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    assert set(told) == set(table)
    for state, steps in table.items():
        for event, following in steps.items():
            clause = next((part for part in told[state].split(";") if f"`{event}`" in part), "")
            clause = clause or next(part for part in told[state].split(";") if "traffic" in part)
            assert f"→ `{following}`" in clause, (state, event)


def test_every_slot_of_the_shared_page_is_told() -> None:
    slots = {name: value for name, value in vars(page).items() if name.isupper()}
    for other in ("INTERRUPT_SIGNAL", "QUESTION", "TEXT_OFFSET", "TEXT_SIZE", "PAGE_SIZE"):
        del slots[other]
    assert {"TARGET", "FLOOR", "HELD"} < set(slots)
    for name, value in slots.items():
        offsets = str(value) if isinstance(value, int) else ", ".join(map(str, value))
        assert f"| {offsets} | {name} |" in TEXT
    assert page.PAGE_SIZE == 4096 + 2 * 65536


def test_every_file_of_vectors_is_told() -> None:
    for path in (ROOT / "vectors").iterdir():
        assert f"| `{path.name}` |" in TEXT
