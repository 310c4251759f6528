"""The page on the capability names all that there is, with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.providers.files.provider import OPERATIONS
from capsule.providers.files.schemas import Entry, FilesScope, Root

if TYPE_CHECKING:
    from pydantic import BaseModel

PAGE = (Path(__file__).parents[3] / "docs/reference/capabilities/files.md").read_text(encoding="utf-8")


def cells(name: str) -> list[str]:
    """The row of a table that begins with a name in code style."""
    (line,) = re.findall(rf"^\| `{re.escape(name)}` \|.*$", PAGE, flags=re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


def named(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_a_row_with_its_fields(name: str) -> None:
    operation = OPERATIONS[name]
    _, request, answer, body, effects = cells(f"files.{name}")
    assert named(request) == set(operation.request.model_fields)
    inner = set(Entry.model_fields) if name == "list" else set()
    assert named(answer) == set(operation.response.model_fields) | inner
    assert effects == ("yes" if operation.effects else "no")
    assert body.startswith(
        "of the request" if operation.takes_body else "of the answer" if operation.gives_body else ""
    )
    assert bool(body) == (operation.takes_body or operation.gives_body)


def test_no_operation_is_told_that_does_not_exist() -> None:
    assert re.findall(r"^\| `files\.(\w+)`", PAGE, flags=re.MULTILINE) == list(OPERATIONS)


@pytest.mark.parametrize("model", [FilesScope, Root])
def test_every_field_of_a_scope_has_a_row_with_its_default(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        told = cells(name)[1].strip("`").strip('"')
        assert told == ("" if field.is_required() else str(field.default).lower()), name
