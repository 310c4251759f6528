"""The lines of a TOML file are told as an editor counts them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.settings.lines import lines


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1", "a", 1),
        ("# a = 0\n\na = 1", "a", 3),
        ("[t]\n\n[t.u]\na = 1", "t.u.a", 4),
        ("[t]\n\n[t.u]\na = 1", "t.u", 3),
        ("t.u.a = 1\nt.u.b = 2", "t.u.b", 2),
        ("t = { u = { a = 1 } }", "t.u.a", 1),
        ('a = """\nb = 1\n[t]\n"""\nb = 2', "b", 5),
        ("a = '''\nb = ]\n'''\nb = 2", "b", 4),
        ("a = [\n  1, # ]\n  2,\n]\nb = 2", "b", 5),
        ("a = [\n  1, # ]\n  2,\n]\nb = 2", "a", 1),
        ("a = 1\r\n[t]\r\nb = 2\r\n", "t.b", 3),
        ("[[t]]\na = 1\n[[t]]\na = 2", "t.0.a", 2),
        ("[[t]]\na = 1\n\n[[t]]\na = 2", "t.1", 4),
        ("[[t]]\n[t.u]\na = 1\n[[t]]\n[t.u]\na = 1", "t.1.u.a", 6),
        ("[[t.u]]\n[[t.u]]\n[[t.u.v]]\na = 1", "t.u.1.v.0.a", 4),
        ("[[t]]\nu.v = { a = 1 }", "t.0.u.v.a", 2),
        ('["t x"."u"] # note\n"a=b" = 1', "t x.u.a=b", 2),
    ],
)
def test_a_value_is_found_in_its_line(text: str, path: str, line: int) -> None:
    tomllib.loads(text)
    assert lines(text)[tuple(path.split("."))] == line


WORDS = st.text("ab]}[{\"'=#\n ", max_size=12)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_whatever_the_values_hold_the_keys_are_found(words: list[str]) -> None:
    statements = [f"k{number} = '''\n{word.replace(chr(39), '')}'''" for number, word in enumerate(words)]
    text = "\n".join(statements)
    data: dict[str, Any] = tomllib.loads(text)
    found = lines(text)
    assert set(found) == {(key,) for key in data}
    for key, line in found.items():
        assert text.split("\n")[line - 1].startswith(f"{key[0]} = '''")
