"""The documentation names all that users meet, and its links lead somewhere."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import capsule
from capsule import events
from capsule.client import answers
from capsule.client.arguments import ExecuteOptions
from capsule.config import NodeConfig, SessionOptions
from capsule.events import ErrorInfo, Event
from capsule.node.info import PromiseSummary, SessionInfo, SessionSummary
from capsule_bridge import SessionPromises
from capsule_protocol.errors import CODES, CapsuleError
from capsule_protocol.messages import MESSAGES

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
PROTOCOL = (ROOT / "protocol/README.md").read_text(encoding="utf-8")

Row = list[str]


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    return text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def rows(text: str, name: str) -> list[Row]:
    """The cells of the table rows that begin with a name or a call in code style, alone or first of several."""
    lines = [line for line in text.splitlines() if re.match(rf"\| `{name}[`(]", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> set[str]:
    """All names in code style."""
    return set(re.findall(r"`(\w+)`", cell))


def public(owner: type) -> list[str]:
    return [
        name for name, value in inspect.getmembers(owner) if not name.startswith("_") and not isinstance(value, type)
    ]


def parameters(owner: type, method: str) -> list[str]:
    function = inspect.getattr_static(owner, method)
    return list(inspect.signature(function).parameters)[1:] if inspect.isfunction(function) else []


# Errors


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code: str) -> None:
    ((_, meaning, advice, retryable),) = [row for row in rows(ERRORS, code) if len(row) == 4]
    assert meaning == CODES[code].meaning
    assert advice.startswith(CODES[code].hint.rstrip("."))
    assert advice
    assert retryable == ("yes" if CODES[code].retryable else "no")


def test_no_code_is_explained_that_does_not_exist() -> None:
    told = re.findall(r"^\| `(\w+)` \|", ERRORS.split("\n## The caller\n")[1], flags=re.MULTILINE)
    assert sorted(told) == sorted(CODES)


def test_every_verdict_has_its_codes() -> None:
    table = section(ERRORS, "Verdicts")
    for verdict in events.Verdict.__args__:  # type: ignore[attr-defined]  # typing does not tell of a Literal's values
        ((_, codes, _),) = rows(table, verdict)
        assert verdict == "ok" or named(codes) <= set(CODES)
        assert verdict == "ok" or named(codes)


# The API


@pytest.mark.parametrize("name", capsule.__all__)
def test_every_public_name_is_listed(name: str) -> None:
    assert name in named(API.split("\n## ")[0])


def test_every_class_of_the_overview_is_public() -> None:
    table = "\n".join(line for line in API.split("\n## ")[0].splitlines() if line.startswith("| `"))
    assert named(table) <= set(capsule.__all__)


@pytest.mark.parametrize(
    ("owner", "heading"),
    [
        (capsule.Client, "Clients"),
        (capsule.Session, "Sessions"),
        (capsule.Execution, "Executions"),
        (capsule.Events, "Iterators"),
        (capsule.AsyncEvents, "Iterators"),
        (capsule.Result, "Results"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_member_is_documented_with_its_arguments(owner: type, heading: str) -> None:
    text = section(API, heading)
    for name in public(owner):
        assert name in named(text) or rows(text, name), f"{owner.__name__}.{name}"
        call = next((row[0] for row in rows(text, name) if "(" in row[0]), "")
        for parameter in parameters(owner, name):
            assert re.search(rf"\b{parameter}\b", call), f"{owner.__name__}.{name}({parameter})"


@pytest.mark.parametrize(
    ("plain", "asynchronous"),
    [
        (capsule.Client, capsule.AsyncClient),
        (capsule.Session, capsule.AsyncSession),
        (capsule.Execution, capsule.AsyncExecution),
    ],
    ids=["client", "session", "execution"],
)
def test_both_kinds_of_class_have_the_same_methods(plain: type, asynchronous: type) -> None:
    assert set(public(plain)) <= set(public(asynchronous))


def test_every_option_of_an_execution_has_a_row() -> None:
    text = section(API, "Sessions")
    for name in ExecuteOptions.__annotations__:
        assert [row for row in rows(text, name) if len(row) == 3], name


def test_every_option_of_a_session_has_a_row_with_its_default() -> None:
    """Those of a node are in tables that are made of the model."""
    text = section(API, "Configuration")
    for name, field in SessionOptions.model_fields.items():
        ((_, default, meaning),) = rows(text, name)
        assert meaning
        assert default.strip("`").replace('"', "'") == repr(field.default), name


def test_no_option_is_told_that_does_not_exist() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", section(API, "Configuration"), flags=re.MULTILINE))
    assert told == set(SessionOptions.model_fields)


def test_every_field_of_a_node_is_named() -> None:
    assert set(NodeConfig.model_fields) <= named(section(API, "Configuration"))


@pytest.mark.parametrize("event", [*Event.__subclasses__()], ids=lambda event: event.__name__)
def test_every_event_has_a_row_with_its_fields(event: type[Event]) -> None:
    ((_, fields, meaning),) = rows(section(API, "Events"), event.__name__)
    base = {field.name for field in dataclasses.fields(Event)}
    assert named(fields) == {field.name for field in dataclasses.fields(event)} - base
    assert meaning
    assert base <= named(section(API, "Events"))


@pytest.mark.parametrize(
    "answer",
    [
        *(value for value in vars(answers).values() if dataclasses.is_dataclass(value)),
        SessionInfo,
        SessionPromises,
        SessionSummary,
        PromiseSummary,
    ],
    ids=lambda answer: answer.__name__,
)
def test_every_answer_has_a_row_with_its_fields(answer: Any) -> None:
    ((_, fields, meaning),) = rows(section(API, "Answers"), answer.__name__)
    assert named(fields) == {field.name for field in dataclasses.fields(answer)}
    assert meaning


def test_every_field_of_an_error_is_told() -> None:
    text = section(API, "Results")
    for field in dataclasses.fields(ErrorInfo):
        assert field.name in named(text), field.name
    assert set(CapsuleError("invalid_argument", "").as_dict()) <= named(ERRORS.split("\n## ")[0])


def test_every_exception_has_a_row() -> None:
    text = section(API, "Exceptions")
    for name in capsule.__all__:
        value = getattr(capsule, name)
        if issubclass(value, CapsuleError):
            assert rows(text, name), name


# The protocol


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_type_is_specified(kind: str) -> None:
    assert rows(section(PROTOCOL, "Message types"), kind)


# Links


def pages() -> list[Path]:
    """All Markdown files of the tree, but for what tools and environments keep there."""
    found = (
        path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )
    return sorted(path for path in found if not {"build", "node_modules"} & set(path.parts))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = path.relative_to(ROOT / "docs").as_posix()
        assert name == "README.md" or f"({name})" in index, name


def test_the_map_of_the_bridge_names_each_of_its_modules() -> None:
    room = ROOT / "bridge"
    told = (room / "README.md").read_text(encoding="utf-8")
    for module in (room / "capsule_bridge").rglob("*.py"):
        name = (
            f"{module.parent.name}/" if module.name == "__init__.py" or module.parent.name == "tools" else module.name
        )
        assert f"`{name}`" in told or name == "capsule_bridge/", module
