"""What `help(caps)` shows is Python, can be called so, and is what type checkers are told."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
from pydantic import Field

from capsule.broker.registry import load
from capsule.broker.sdk import Descriptor, Empty, Operation, Schema, ScopeSchema
from capsule.broker.stubs import _provider as stub
from capsule_kernels.signatures import describe


class Odd(Schema):
    """Required behind what is not, and a default that no schema has."""

    first: int
    second: list[str] = Field(default_factory=list)
    third: str
    fourth: bool = True


ODD = Descriptor(
    "odd",
    "1",
    {
        "all": Operation("Take all", Odd, Empty, takes_body=True),
        "some": Operation("Take some", Odd, Empty, effects=False),
        "body": Operation("Take a body only", Empty, Empty, takes_body=True),
        "nothing": Operation("Take nothing", Empty, Empty),
    },
    ScopeSchema,
)
DESCRIPTORS = {**load().descriptors(), "odd": ODD}
OPERATIONS = [
    (name, operation, shape) for name, one in DESCRIPTORS.items() for operation, shape in one.operations.items()
]


def granted(name: str, shape: Operation) -> dict[str, Any]:
    """As a node tells it."""
    return {
        "name": name,
        "summary": shape.summary,
        "request": shape.request.model_json_schema(),
        "takes_body": shape.takes_body,
    }


def shown(name: str, shape: Operation) -> str:
    """What stands between the brackets."""
    (line,) = (line for line in describe([granted(name, shape)]).splitlines() if line.startswith("caps."))
    assert line.startswith(f"caps.{name}(")
    return line.removeprefix(f"caps.{name}(").removesuffix(")")


def signature(text: str) -> inspect.Signature:
    """That of a function that is written so."""
    made: dict[str, Any] = {}
    exec(f"def call({text}): pass", made)
    return inspect.signature(made["call"])


@pytest.mark.parametrize(("provider", "operation", "shape"), OPERATIONS, ids=[f"{p}.{o}" for p, o, _ in OPERATIONS])
def test_each_binds_by_place_and_by_name(provider: str, operation: str, shape: Operation) -> None:
    found = signature(shown(f"{provider}.{operation}", shape))
    fields = shape.request.model_fields
    assert list(found.parameters) == [*fields, *(["data"] if shape.takes_body else [])]
    required = {name for name, each in found.parameters.items() if each.default is each.empty}
    assert required == {name for name, field in fields.items() if field.is_required()}
    by_place = [each.name for each in found.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert by_place == list(fields)[: len(by_place)]  # a call gives what has no name to the fields in this order
    assert found.bind(**dict.fromkeys(found.parameters)).arguments == dict.fromkeys(found.parameters)
    rest = required.difference(by_place)
    assert found.bind(*by_place, **dict.fromkeys(rest)).arguments == {
        **{name: name for name in by_place},
        **dict.fromkeys(rest),
    }


@pytest.mark.parametrize("provider", DESCRIPTORS)
def test_type_checkers_are_told_the_same(provider: str) -> None:
    tree = ast.parse("\n".join(stub(DESCRIPTORS[provider])))
    calls = {one.name.lower(): one for one in tree.body if isinstance(one, ast.ClassDef)}
    for name, shape in DESCRIPTORS[provider].operations.items():
        one = calls[f"{provider}{name.replace('_', '')}operation"]
        functions = [each for each in one.body if isinstance(each, ast.FunctionDef)]
        assert len(functions) == 1 + shape.gives_body
        for function in functions:
            told = [each.arg for each in function.args.args[1:]], [each.arg for each in function.args.kwonlyargs]
            found = signature(shown(f"{provider}.{name}", shape)).parameters.values()
            assert told == (
                [each.name for each in found if each.kind is each.POSITIONAL_OR_KEYWORD],
                [each.name for each in found if each.kind is each.KEYWORD_ONLY],
            )


def test_what_stands_behind_what_may_be_left_out_is_given_by_name() -> None:
    assert shown("odd.all", ODD.operations["all"]) == "first, second=..., *, third, fourth=True, data=b''"
    assert shown("odd.some", ODD.operations["some"]) == "first, second=..., *, third, fourth=True"
    assert shown("odd.body", ODD.operations["body"]) == "*, data=b''"
    assert not shown("odd.nothing", ODD.operations["nothing"])


def test_what_data_is_is_told_where_there_is_some() -> None:
    without, with_body = (granted(f"odd.{name}", ODD.operations[name]) for name in ("some", "all"))
    assert "`data` is bytes" not in describe([without])
    assert describe([without, with_body]).count("`data` is bytes") == 1
