"""The tables of the reference that are made out of packs and models.

`python -m capsule.broker.pages docs` writes them; a test says when they are out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.broker.packs import PACKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.broker.packs import Pack, PackName

PAGE = "reference/policy.md"
BEGIN, END = "<!-- begin: made by python -m capsule.broker.pages docs -->", "<!-- end -->"


def table(named: Mapping[PackName, Pack]) -> str:
    """All values of these packs: a row for each."""
    rows = [
        f"| | {' | '.join(f'`{name}`' for name in named)} |",
        f"|---|{'---|' * len(named)}",
        f"| for | {' | '.join(pack.summary[4:] for pack in named.values())} |",
    ]
    packs = [pack.model_dump(exclude={"summary"}) for pack in named.values()]
    for name, value in packs[0].items():
        if isinstance(value, dict):
            rows += [_row(f"{name}.{key}", [pack[name][key] for pack in packs]) for key in value]
        else:
            rows.append(_row(name, [pack[name] for pack in packs]))
    return "\n".join(rows)


def with_table(page: str, named: Mapping[PackName, Pack] = PACKS) -> str:
    """The page of the reference with its table as it is now."""
    made = f"{BEGIN}\n\n{table(named)}\n\n{END}"
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, page, flags=re.DOTALL)


def _row(name: str, values: list[Any]) -> str:
    return f"| `{name}` | {' | '.join(_cell(value) for value in values)} |"


def _cell(value: Any) -> str:
    if value is None:
        return '`"none"`'
    if isinstance(value, str):
        return f'`"{value}"`'
    for size, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if isinstance(value, int) and value >= size and not value % size:
            return f"{value // size} {unit}"
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    file = Path(sys.argv[1]) / PAGE
    file.write_text(with_table(file.read_text("utf-8")), "utf-8")
