"""What a provider in a process of its own answers is held to what it describes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from capsule.broker.apart.answers import validator
from capsule.broker.apart.schemas import heard, read, told
from capsule.broker.sdk import Descriptor, Empty, Operation, Schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Loose(BaseModel):
    a: int = 0


class Tree(Schema):
    name: str
    inner: tuple[Tree, ...] = ()


class Response(Schema):
    id: str
    text: str = ""
    number: int = 1
    ratio: float = 0.5
    flag: bool = True
    maybe: int | None = None
    either: int | str | list[int] = 5
    pair: tuple[int, str] = (1, "a")
    several: tuple[int, ...] = (1, 2)
    names: dict[str, int] = Field(default_factory=lambda: {"a": 1})
    kind: Literal["a", 1] | None = "a"
    color: Color = Color.RED
    tree: Tree = Tree(name="a", inner=(Tree(name="b"),))
    loose: Loose = Loose()
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    path: Path = Path("a")
    money: Decimal = Decimal("1.5")
    some: frozenset[int] = frozenset({1})
    anything: Any = None

    @computed_field  # type: ignore[prop-decorator]  # as pydantic has it
    @property
    def twice(self) -> int:
        return self.number * 2


def described(response: type[Schema]) -> type[Schema]:
    """What the node has of it."""
    descriptor = Descriptor("acme", "1", {"do": Operation("Do", Empty, response)}, untrusted=True)
    return heard(told(descriptor)).operations["do"].response


GOOD: list[Response] = [
    Response(id="a"),
    Response(id="b", maybe=5, either="a", kind=None, anything={"b": [1, "c", None]}),
    Response(id="c", ratio=2, either=[1], names={}, several=(), tree=Tree(name="x"), color=Color.BLUE),
]


@pytest.mark.parametrize("response", GOOD, ids=["0", "1", "2"])
def test_what_it_describes_is_taken_as_it_is(response: Response) -> None:
    value = response.model_dump(mode="json")
    assert read(described(Response), value).model_dump() == value


BAD: list[dict[str, Any]] = [
    {"text": 5},
    {"number": "5"},
    {"number": True},
    {"number": 1.5},
    {"ratio": "x"},
    {"flag": 1},
    {"maybe": "x"},
    {"either": [1, "x"]},
    {"pair": [1, "a", 2]},
    {"pair": ["a", 1]},
    {"several": [1, None]},
    {"names": {"a": "b"}},
    {"kind": "b"},
    {"color": "green"},
    {"tree": {"name": "a", "inner": [{"name": 5}]}},
    {"tree": {"name": "a", "other": 1}},
    {"tree": {}},
    {"loose": []},
    {"other": 1},
    {"text": b"bytes"},
]


@pytest.mark.parametrize("other", BAD, ids=str)
def test_what_it_does_not_describe_is_refused_and_not_shown(other: dict[str, Any]) -> None:
    value = Response(id="a").model_dump(mode="json") | other
    with pytest.raises(ValidationError) as caught:
        read(described(Response), value)
    assert "input_value" not in str(caught.value)


def test_what_is_missing_is_refused() -> None:
    value = Response(id="a").model_dump(mode="json")
    del value["id"]
    with pytest.raises(ValidationError, match="id"):
        read(described(Response), value)


def test_fields_travel_by_their_own_names() -> None:
    class Renamed(Schema):
        model_config = ConfigDict(populate_by_name=True)
        from_: str = Field(alias="from")

    assert read(described(Renamed), Renamed(from_="here").model_dump(mode="json")).model_dump() == {"from_": "here"}


BROKEN: list[dict[str, Any]] = [
    {"type": "quantum"},
    {"properties": 5, "type": "object"},
    {"$ref": "#/$defs/Nothing"},
    {"anyOf": [5]},
    {"$defs": {"A": {"anyOf": []}}, "$ref": "#/$defs/A"},
]


@pytest.mark.parametrize("schema", BROKEN, ids=str)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Exception):  # noqa: B017 (whoever loads it tells of any)
        validator(schema).validate_python({})


def test_a_schema_that_leads_to_itself_comes_to_an_end() -> None:
    with pytest.raises(Exception):  # noqa: B017 (as above)
        validator({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}).validate_python({})
