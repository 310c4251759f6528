"""The reference of policies says what packs and models say."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from capsule.broker.grants import DenialTable, GrantTable
from capsule.broker.limits import LimitsTable
from capsule.broker.packs import PACKS, AuditSettings, BudgetSettings
from capsule.broker.pages import with_table
from capsule.broker.policy_file import PolicyFile
from tests.unit.broker.shapes import DESCRIPTORS, ask, policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.broker.packs import PackName

PAGE = (Path(__file__).parents[3] / "docs/reference/policy.md").read_text("utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def test_the_table_of_packs_is_up_to_date() -> None:
    assert with_table(PAGE) == PAGE, "run python -m capsule.broker.pages docs"


def test_the_table_has_every_value_of_every_pack() -> None:
    rows = {line.split("`")[1]: line for line in section("Packs").splitlines() if line.startswith("| `")}
    expected: set[str] = set()
    for pack in PACKS.values():
        for name, value in pack.model_dump(exclude={"summary"}).items():
            expected |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    assert set(rows) - {"strict"} == expected
    assert '| `sandbox` | `"landlock"` | `"landlock"` | `"landlock"` | `"namespaces"` |' in PAGE
    assert "| `budget.faults` | 100 | 100 | 1000 | 20 |" in PAGE


OTHERS = {
    "power": "process",
    "process": "power",
    "stop": "continue",
    "never": "always",
    "first": "always",
    "landlock": "none",
    "namespaces": "none",
    None: 1,
}


def values() -> Iterator[tuple[PackName, str, str, Any]]:
    """Pack, name and inner name ("" if there is none) of each value, and the value."""
    for name, pack in PACKS.items():
        for outer, value in pack.model_dump(exclude={"summary"}).items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            yield from ((name, outer, key, one) for key, one in inner)


def another(value: Any) -> Any:
    """The next number, one instead of none, or another word of those that may stand there."""
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    return value + 1 if isinstance(value, int) else OTHERS[value]


@pytest.mark.parametrize(
    ("name", "outer", "inner", "value"), list(values()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_change_of_any_value_shows_in_the_table(name: PackName, outer: str, inner: str, value: Any) -> None:
    """However small: so no value can be changed without the page, nor the page without the value."""
    pack = PACKS[name]
    changed = another(value)
    if inner:
        changed = getattr(pack, outer).model_copy(update={inner: changed})
    assert with_table(PAGE, {**PACKS, name: pack.model_copy(update={outer: changed})}) != PAGE


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        (PolicyFile, "The top level"),
        (GrantTable, "`[[grants]]`"),
        (DenialTable, "`[[denials]]`"),
        (LimitsTable, "Limits"),
        (BudgetSettings, "The fault budget"),
        (AuditSettings, "The audit trail"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_key_is_explained(model: type[BaseModel], heading: str) -> None:
    told = set(re.findall(r"`\[*(\w+)\]*`", section(heading)))
    assert set(model.model_fields) <= told


def test_the_example_is_a_policy_that_does_what_it_says(tmp_path: Path) -> None:
    text: Any = PAGE.split("```toml\n")[1].split("```")[0]
    found = policy(tmp_path, text)
    assert found.decide(ask("files.read", "bob")).line == 6
    assert [grant.name for grant in found.decide(ask("files.read", "team-a", "science")).grants] == ["data", "results"]
    assert not found.decide(ask("files.write", "bob", "science")).allowed
    denied = found.decide(ask("http.fetch", "alice", "test"))
    assert denied.why.endswith(": tests have to run without the web")
    assert set(DESCRIPTORS) >= {"files", "http"}
