"""Patterns match whole arguments, forms match whole command lines, and neither lets an option in that nobody wrote."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capsule.providers.shell.patterns import Group, compiled, fits


@pytest.mark.parametrize(
    ("pattern", "argument"),
    [
        ("status", "status"),
        ("", ""),
        ("--oneline", "--oneline"),
        ("{int}", "0042"),
        ("-n{int}", "-n5"),
        ("-I{path}", "-Iinclude/a"),
        ("{word}", "v1.2-rc_3"),
        ("{word}", "naïve"),
        ("{word}", "..."),
        ("{word}", "..a"),
        ("{word}:{int}", "..a:1"),
        ("{path}", "a/b c/.d,e+f-g"),
        ("{path}", "a/"),
        ("{path}", "..a/b.."),
        ("{path}", "."),
        ("{text}", "any thing; $(x)\n`y` \\ '"),
        ("{text}", ""),
        ("--format={text}", "--format=-x --y"),
        ("--{ours|theirs}", "--theirs"),
        ("{a|ab|}c", "abc"),
        ("{a|ab|}c", "c"),
        ("{word}:{int}", "host:80"),
        ("{{x}}", "{x}"),
    ],
)
def test_matches(pattern: str, argument: str) -> None:
    assert compiled(pattern).matches(argument)


@pytest.mark.parametrize(
    ("pattern", "argument"),
    [
        ("status", "status "),
        ("status", "Status"),
        ("status", "status\n"),
        ("a.c", "abc"),
        ("{int}", ""),
        ("{int}", "-5"),
        ("{int}", "5\n"),
        ("{int}", "1" * 19),
        ("{word}", "a b"),
        ("{word}", ".."),
        ("{word}:{int}", "..:1"),
        ("--dir={word}", "--dir=.."),
        ("{word}", "-a"),
        ("{word}", "a" * 256),
        ("{word}", "a/b"),
        ("{word}", "x=y"),
        ("{word}", "host:path"),
        ("{path}", "/etc/passwd"),
        ("{path}", "../x"),
        ("{path}", "a/../../x"),
        ("{path}", "a/.."),
        ("{path}", ".."),
        ("{path}", "a//b"),
        ("{path}", "-rf"),
        ("{path}", "a/-x"),
        ("{path}", "+cmd"),
        ("{path}", "@file"),
        ("{path}", "~root/x"),
        ("{path}", "VAR=x"),
        ("{path}", "ext::sh -c x"),
        ("{path}", "a\nb"),
        ("{path}:x", "..:x"),
        ("--{ours|theirs}", "--yours"),
        ("--{ours|theirs}", "--ours|theirs"),
    ],
)
def test_does_not_match(pattern: str, argument: str) -> None:
    assert not compiled(pattern).matches(argument)


OPTIONS = ["-x", "--upload-pack=touch /tmp/x", "-oProxyCommand=x", "--", "-", "--exec=x"]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("pattern", ["{text}", "{word}", "{path}", "{int}", "{|a}{text}", "{|a}{|b}{word}"])
def test_a_value_at_the_beginning_lets_no_option_through(pattern: str, option: str) -> None:
    assert not compiled(pattern).matches(option)


@given(st.text(max_size=20))
@example("--upload-pack=x")
def test_no_pattern_of_values_lets_an_option_through(argument: str) -> None:
    for pattern in ("{text}", "{word}", "{path}", "{int}", "{a||b}{text}"):
        assert not compiled(pattern).matches("-" + argument)


def test_a_dash_is_let_through_where_the_grant_says_so() -> None:
    assert compiled("{text}").matches("-x", dash=True)
    assert not compiled("{int}").matches("-x", dash=True)


@pytest.mark.parametrize(
    "pattern",
    [
        "-{word}",
        "--{text}",
        "--out{text}",
        "--out{path}",
        "--{o|p}{text}",
        "{-|+}{text}",
        "{--out|x}{text}",
        "{text}x",
        "{word}.txt",
        "{path}/x",
        "{int}{word}",
        "{int}5",
        "{unknown}",
        "{}",
        "{",
        "a}",
        "a\0",
    ],
)
def test_a_pattern_that_means_something_else_than_it_seems_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compiled(pattern)


@pytest.mark.parametrize("pattern", ["{path}", "{path}:x", "{word}:{int}", "{a|aa|aaa}b", "{text}"])
def test_a_long_argument_takes_time_in_proportion(pattern: str) -> None:
    for long in ("a/" * 65_000 + "!", "a" * 131_000, "/" * 131_000, "..a/" * 30_000 + ".."):
        begun = time.process_time()
        compiled(pattern).matches(long)
        assert time.process_time() - begun < 0.2


def group(*rows: list[str], least: int = 1, most: int = 1, dash: bool = False) -> Group:
    return Group(tuple(tuple(map(compiled, row)) for row in rows), least, most, dash)


LOG = [
    group(["log"]),
    group(["--oneline"], ["-n", "{int}"], least=0, most=2),
    group(["--"], least=0),
    group(["{path}"], least=0, most=3),
]


@pytest.mark.parametrize(
    "line",
    [
        "log",
        "log --oneline",
        "log -n 5 --oneline",
        "log --oneline -n 5 a b/c d",
        "log -- a",
    ],
)
def test_a_form_fits(line: str) -> None:
    assert fits(LOG, line.split())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "log log2 a b c",
        "log -n",
        "log -n x",
        "log -n 5 --oneline -n 6",
        "log a --oneline",
        "log a b c d",
        "log -- --output=x",
        "log -n -5",
        "log --output=x",
    ],
)
def test_a_form_does_not_fit(line: str) -> None:
    assert not fits(LOG, line.split())


def test_a_group_must_come_as_often_as_it_says() -> None:
    form = [group(["a"], least=2, most=3)]
    assert [fits(form, ["a"] * count) for count in range(5)] == [False, False, True, True, False]


def test_a_group_gives_nothing_back() -> None:
    assert not fits([group(["{word}"], least=0, most=9), group(["last"])], ["a", "last"])


def test_the_first_alternative_that_matches_is_taken() -> None:
    form = [group(["{word}"], ["x", "{int}"]), group(["y"])]
    assert not fits(form, ["x", "5", "y"])
    assert fits([group(["x", "{int}"], ["{word}"]), group(["y"])], ["x", "5", "y"])


def test_a_dash_belongs_to_its_group_alone() -> None:
    form = [group(["-e", "{text}"], dash=True), group(["{text}"])]
    assert fits(form, ["-e", "-x", "file"])
    assert not fits(form, ["-e", "-x", "-file"])


def test_no_form_takes_what_is_left_over() -> None:
    assert fits([], [])
    assert not fits([], ["x"])
