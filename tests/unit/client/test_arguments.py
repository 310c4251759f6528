"""Each refusal names the argument and says what is allowed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from capsule import ArgumentError, CapsuleError, NodeConfig, SessionOptions
from capsule.client import arguments
from capsule.client.options import ClientOptions, WorkerOptions, build_config, build_options
from capsule.client.promises import check_settlement

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("code", [b"1", bytearray(b"1"), None, 1, ["1"]])
def test_code_must_be_text(code: Any) -> None:
    with pytest.raises(ArgumentError, match=f"code: must be a str, not {type(code).__name__}"):
        arguments.check_code(code)


def test_code_must_be_text_that_can_be_sent() -> None:
    with pytest.raises(ArgumentError, match="lone surrogate at offset 4"):
        arguments.check_code("x = \ud800")


def test_code_has_a_bound_in_bytes() -> None:
    assert arguments.check_code("#" * 16 * 2**20)
    for code in ("#" * (16 * 2**20 + 1), "é" * (8 * 2**20 + 1)):
        with pytest.raises(ArgumentError, match="code_bytes"):
            arguments.check_code(code)


@pytest.mark.parametrize("codes", ["1", b"1", None, 3, [b"1"], ["1", None]])
def test_several_pieces_of_code_are_an_iterable_of_text(codes: Any) -> None:
    with pytest.raises(ArgumentError, match="codes"):
        arguments.check_codes(codes)
    assert arguments.check_codes(text for text in "ab") == ["a", "b"]


@pytest.mark.parametrize("code", ["", "1+1", "é = 1", "x\0y"])
def test_any_text_is_code(code: str) -> None:
    assert arguments.check_code(code) == code


@pytest.mark.parametrize("timeout", [0, -1, -0.5, math.inf, math.nan, 10**400, -(10**400), True, False, "1", b"1", [1]])
def test_a_timeout_is_a_number_above_zero(timeout: Any) -> None:
    with pytest.raises(ArgumentError, match=r"timeout: .*allowed: seconds as a number above 0, or None"):
        arguments.check_timeout(timeout)


@pytest.mark.parametrize(("timeout", "checked"), [(None, None), (1, 1.0), (0.001, 0.001)])
def test_good_timeouts_pass(timeout: Any, checked: float | None) -> None:
    assert arguments.check_timeout(timeout) == checked


def test_a_key_is_refused_while_nothing_keeps_it() -> None:
    assert arguments.check_key(None, "s_1", remembered=False) == ""
    with pytest.raises(ArgumentError) as caught:
        arguments.check_key("once", "s_1", remembered=False)
    assert (caught.value.code, caught.value.argument) == ("unsupported", "key")


def test_a_key_that_is_kept_names_the_execution() -> None:
    first, again, other = (arguments.check_key(key, "s_1", remembered=True) for key in ("a", "a", "b"))
    assert first == again != other
    assert arguments.check_key("a", "s_2", remembered=True) != first
    assert first.startswith("x_")
    for bad in ("", "nul\0", 5):
        with pytest.raises(ArgumentError, match="key"):
            arguments.check_key(bad, "s_1", remembered=True)  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(
    ("given", "meant"), [({"quite": True}, "did you mean 'quiet'"), ({"store_histroy": True}, "'store_history'")]
)
def test_an_unknown_option_of_an_execution_is_named_and_guessed(given: dict[str, Any], meant: str) -> None:
    with pytest.raises(ArgumentError, match=meant) as caught:
        arguments.check_execute(given)
    assert caught.value.code == "unknown_option"
    assert "cell, if_epoch, payloads, quiet, stop_on_error, store_history, user_expressions" in str(caught.value)


@pytest.mark.parametrize("given", [{"quiet": 1}, {"stop_on_error": "no"}, {"cell": 3}, {"cell": "a\0b"}])
def test_options_of_an_execution_have_types(given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(given))):
        arguments.check_execute(given)


@pytest.mark.parametrize("cursor", [-1, 4, True, 1.0, "1"])
def test_a_cursor_lies_in_its_code(cursor: Any) -> None:
    with pytest.raises(ArgumentError, match=r"cursor: .*allowed: an int from 0 to 3"):
        arguments.check_cursor("abc", cursor)


def test_a_cursor_counts_characters_and_ends_behind_the_last() -> None:
    assert [arguments.check_cursor("äbc", cursor) for cursor in (0, 3, None)] == [0, 3, 3]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"enviroments": {}}, "did you mean 'environments'"),
        ({"directoy": "x"}, "did you mean 'directory'"),
        ({"zzz": 1}, "allowed: .*max_sessions"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"environments": {"default": {"pyton": "x"}}}, "pyton"),
    ],
)
def test_a_client_refuses_unknown_and_bad_configuration(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        build_config(options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bufer_bytes": 1}, "did you mean 'buffer_bytes'"),
        ({"buffer_bytes": -1}, "buffer_bytes"),
        ({"backpressure": "maybe"}, "block"),
        ({"interrupt_grace": -1}, "interrupt_grace"),
        ({"env": {"A": 1}}, "env"),
        ({"env": "A=1"}, "env"),
        ({"env": {"A=B": "1"}}, "env"),
        ({"env": {"": "1"}}, "env"),
        ({"env": {"A": "x\0"}}, "env"),
        ({"env": {3: "x"}}, "env"),
        ({"cwd": "/no/such/directory"}, "cwd.*not a directory"),
        ({"cwd": __file__}, "cwd.*not a directory"),
        ({"cwd": 3}, "cwd"),
        ({"cwd": "a\0b"}, "NUL"),
        ({"name": 3}, "name"),
    ],
)
def test_a_session_refuses_unknown_and_bad_options(options: dict[str, Any], named: str) -> None:
    known = {"env": options.pop("env", None), "cwd": options.pop("cwd", None), "name": options.pop("name", None)}
    with pytest.raises(ArgumentError, match=named):
        build_options("default", options, **known)


def test_a_path_is_as_good_as_its_text(tmp_path: Path) -> None:
    options = build_options("default", {}, env={"A": None}, cwd=tmp_path, name=None)
    assert (options.cwd, options.env) == (str(tmp_path), {"A": None})


def test_a_relative_directory_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    assert build_options("default", {}, env=None, cwd="work", name=None).cwd == str(tmp_path / "work")


def test_a_directory_of_another_machine_is_looked_for_there() -> None:
    def there(cwd: str) -> str | None:
        return build_options("default", {}, env=None, cwd=cwd, name=None, address="tcp://node:1").cwd

    assert there("/no/such/directory") == "/no/such/directory"
    for cwd in ("work", "", "~/work", "/a\0b"):
        with pytest.raises(ArgumentError, match="cwd"):
            there(cwd)


def test_the_typed_keyword_arguments_are_those_of_the_configuration() -> None:
    assert set(ClientOptions.__annotations__) == set(NodeConfig.model_fields)
    named = {"environment", "env", "cwd", "name", "files"}
    assert set(WorkerOptions.__annotations__) | named == set(SessionOptions.model_fields)
    assert set(WorkerOptions.__annotations__).isdisjoint(named)


def test_argument_errors_are_value_errors_of_the_one_root() -> None:
    with pytest.raises(ValueError, match="code") as caught:
        arguments.check_code(None)  # type: ignore[arg-type]  # that is the test
    assert isinstance(caught.value, CapsuleError)


@pytest.mark.parametrize("value", [2**64, {"a": [-(2**63) - 1]}, float("nan"), object(), "\ud800"])
def test_what_no_message_can_carry_is_no_answer_to_a_question(value: Any) -> None:
    with pytest.raises(ArgumentError, match="value"):
        check_settlement("resolve", value, "")
