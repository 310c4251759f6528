"""The summary of a namespace: what it tells, and that no object of the user's can break it."""

from __future__ import annotations

import fractions
import math
from typing import Any

import numpy as np
import pytest

from capsule_kernels.namespace import SHORT, summary
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope


def entry(value: object) -> dict[str, Any]:
    entries, left_out = summary({"name": value}, ())
    assert left_out == 0
    assert [found["name"] for found in entries] == ["name"]
    codec.encode(Envelope("namespace_summary_reply", {"entries": entries}))
    return entries[0]


def test_plain_values() -> None:
    assert entry([1, 2]) == {"name": "name", "type": "list", "size": 2, "shape": None, "repr": "[1, 2]"}
    assert entry({"a": 1})["repr"] == "{'a': 1}"
    assert entry("text")["size"] == 4
    assert entry(None)["repr"] == "None"
    assert entry(5)["size"] > 0


def test_arrays_tell_bytes_and_shape_and_no_data() -> None:
    found = entry(np.full((3, 4), 77.0))
    assert (found["type"], found["size"], found["shape"]) == ("ndarray", 96, [3, 4])
    assert "77" not in found["repr"]


def test_long_values_are_shortened() -> None:
    for value in ("x" * 10_000, b"x" * 10_000, list(range(10_000)), {n: n for n in range(10_000)}, [["y" * 1000] * 9]):
        assert len(entry(value)["repr"]) <= 8 * SHORT


def test_names_in_order_without_modules_private_and_hidden_ones() -> None:
    namespace = {"b": 1, "a": 2, "_c": 3, "hidden": 4, "math": math, 5: 6}
    entries, left_out = summary(namespace, {"hidden"})  # type: ignore[arg-type]  # user code may put anything into it
    assert ([found["name"] for found in entries], left_out) == (["a", "b"], 0)


def test_the_limit_and_what_it_leaves_out() -> None:
    entries, left_out = summary({f"n{number:03}": number for number in range(50)}, (), limit=20)
    assert ([found["name"] for found in entries], left_out) == ([f"n{number:03}" for number in range(20)], 30)


class Raises(Exception):
    pass


def hostile(method: str, error: type[BaseException]) -> object:
    def fail(*_arguments: object) -> object:
        raise error

    return type("Hostile", (), {method: fail})()


class Liar:
    nbytes = 10**30
    shape = (10**30, -1)


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise Raises


class Strange(metaclass=Meta):
    pass


@pytest.mark.parametrize("method", ["__len__", "__getattr__", "__getattribute__", "__repr__", "__str__", "__sizeof__"])
@pytest.mark.parametrize("error", [Raises, SystemExit, KeyboardInterrupt])
def test_an_object_that_raises_is_told_by_its_type(method: str, error: type[BaseException]) -> None:
    found = entry(hostile(method, error))
    assert found["type"] == "Hostile"
    assert found["repr"].endswith("Hostile>")


def test_objects_within_plain_values_are_not_asked() -> None:
    asked: list[int] = []

    class Noisy:
        def __repr__(self) -> str:
            asked.append(1)
            return "data" * 1000

        __str__ = __repr__

        def __lt__(self, _other: object) -> bool:
            asked.append(1)
            return True

        def __hash__(self) -> int:
            return 1

    for value in ([Noisy()], {"k": Noisy()}, (Noisy(), Noisy()), {Noisy()}, {Noisy(): 1}):
        assert "data" not in entry(value)["repr"]
    assert not asked


def test_a_number_too_long_to_print() -> None:
    assert entry(10**5000)["type"] == "int"
    assert entry([10**5000])["type"] == "list"
    assert entry(fractions.Fraction(10**5000, 3))["type"] == "Fraction"


def test_lies_about_size_and_shape_do_not_reach_the_wire() -> None:
    found = entry(Liar())
    assert (found["size"], found["shape"]) == (None, None)


def test_a_class_that_hides_its_name() -> None:
    assert entry(Strange())["type"] == "Strange"
    assert entry(Strange)["type"] == "Meta"


def test_a_value_within_itself() -> None:
    value: list[Any] = []
    value.append(value)
    assert entry(value)["size"] == 1


def test_names_of_any_kind_of_text() -> None:
    entries, _ = summary({np.str_("n"): 1}, ())
    assert entries[0]["name"] == "n"
