"""The SQL of stores, read from the files of their packages: named queries, and numbered migrations."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Migration(NamedTuple):
    """A step from the version before."""

    version: int
    script: str


def load_queries(package: str) -> Mapping[str, str]:
    """The queries of `queries.sql` by name."""
    text = (files(package) / "queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: query.strip() for name, query in zip(parts[::2], parts[1::2], strict=True)}


def load_migrations(package: str) -> tuple[Migration, ...]:
    """All of `migrations/`, oldest first."""
    folder = files(package) / "migrations"
    scripts = sorted((item for item in folder.iterdir() if item.name.endswith(".sql")), key=lambda item: item.name)
    found = tuple(Migration(int(item.name[:4]), item.read_text(encoding="utf-8")) for item in scripts)
    assert [each.version for each in found] == list(range(1, len(found) + 1)), "migrations are numbered 1, 2, 3 …"
    return found
