"""A wrong option is named, with what is allowed in its place."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

import capsule_pool
from capsule.config import NodeConfig, SessionOptions
from capsule.node.execution import ExecuteRequest
from capsule.node.requests import check_request
from capsule.settings.base import Config, Count, Seconds
from capsule.settings.environments import BreakerConfig, EnvironmentConfig
from capsule_protocol.errors import ArgumentError
from capsule_protocol.limits import DEFAULT_LIMITS

MIB = 2**20


def test_defaults_are_those_of_the_documentation() -> None:
    options = SessionOptions()
    assert (options.backpressure, options.buffer_bytes, options.message_bytes) == ("block", 8 * MIB, 64 * MIB)
    assert list(NodeConfig().environments) == ["default"]


@pytest.mark.parametrize(
    ("values", "argument", "allowed"),
    [
        ({"buffer_bytes": -1}, "buffer_bytes", "at least 65536"),
        ({"backpressure": "panic"}, "backpressure", "drop_oldest"),
        ({"interrupt_grace": 0}, "interrupt_grace", "more than 0"),
        ({"start_timeout": float("nan")}, "start_timeout", "at most"),
        ({"env": {"A": 1}}, "env.A", "string"),
        ({"argv": "text"}, "argv", "a list of str"),
        ({"path": "text"}, "path", "a list of str"),
        ({"memory_bytes": 1}, "memory_bytes", "at least 67108864"),
        ({"memory_bytes": 1 << 70}, "memory_bytes", "at most"),
        ({"out_cache": 1 << 70}, "out_cache", "at most"),
        ({"out_cache": 10**5000}, "out_cache", "at most"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(values: dict[str, Any], argument: str, allowed: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        SessionOptions.build(**values)
    assert caught.value.code == "invalid_argument"
    assert caught.value.argument == argument
    assert allowed in str(caught.value)


@pytest.mark.parametrize("model", [SessionOptions, NodeConfig, EnvironmentConfig, BreakerConfig])
def test_every_number_has_an_upper_bound(model: type[Config]) -> None:
    numbers = [name for name, field in model.model_fields.items() if field.annotation in NUMBERS]
    assert numbers
    for name in numbers:
        with pytest.raises(ArgumentError, match=f"{name}.*at most"):
            model.build(**{name: 1 << 70})


NUMBERS = (int, float, int | None, float | None, Count | None, Seconds | None)


@pytest.mark.parametrize(
    ("values", "argument", "allowed"),
    [
        ({"environments": {"a": 5}}, "environments.a", "EnvironmentConfig.*preload"),
        ({"environments": 5}, "environments", "a dict"),
        ({"directory": "/nowhere/at/all"}, "directory", "an existing directory"),
        ({"directory": __file__}, "directory", "an existing directory"),
        ({"directory": 5}, "directory", "directory"),
        ({"environments": {"a": {"breaker": 5}}}, "environments.a.breaker", "a BreakerConfig.*longest_pause"),
        ({"environments": {"a": {"breaker": {"failures": 0}}}}, "environments.a.breaker.failures", "at least 1"),
        ({"environments": {"a": {"breaker": {"window": 0}}}}, "environments.a.breaker.window", "more than 0"),
        ({"environments": {"a": {"breaker": {"pause": 0}}}}, "environments.a.breaker.pause", "more than 0"),
        ({"environments": {"a": {"breaker": {"pause": 31}}}}, "environments.a.breaker.longest_pause", "at least 31"),
        ({"environments": {"a": {"cpus": 0}}}, "environments.a.cpus", "more than 0"),
        ({"environments": {"a": {"cgroups": "yes"}}}, "environments.a.cgroups", "auto.*required.*off"),
    ],
)
def test_a_wrong_value_of_a_node_is_named_too(values: dict[str, Any], argument: str, allowed: str) -> None:
    with pytest.raises(ArgumentError, match=allowed) as caught:
        NodeConfig.build(**values)
    assert caught.value.argument == argument


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"envronment.*environment") as caught:
        SessionOptions.build(envronment="default")
    assert caught.value.code == "unknown_option"


def test_an_unknown_option_of_an_environment_lists_those_of_an_environment() -> None:
    with pytest.raises(ArgumentError, match="preload") as caught:
        NodeConfig.build(environments={"default": {"preloads": ["numpy"]}})
    assert caught.value.code == "unknown_option"


@pytest.mark.parametrize("name", ["default", "breaker", "environments"])
def test_an_unknown_option_of_a_breaker_lists_those_of_a_breaker(name: str) -> None:
    allowed = "allowed: failures, longest_pause, pause, window"
    with pytest.raises(ArgumentError, match=f"environments.{name}.breaker.failure: .*{allowed}") as caught:
        NodeConfig.build(environments={name: {"breaker": {"failure": 5}}})
    assert caught.value.code == "unknown_option"
    with pytest.raises(ArgumentError, match=f"breaker.failure: .*{allowed}"):
        EnvironmentConfig.build(breaker={"failure": 5})


def test_an_unknown_option_beside_a_breaker_lists_those_of_an_environment() -> None:
    with pytest.raises(ArgumentError, match=r"allowed: .*preload"):
        NodeConfig.build(environments={"breaker": {"failures": 5}})


def test_breakers_are_configured_as_they_are_documented() -> None:
    """The pool, which is used alone too, has the same defaults."""
    assert dict(BreakerConfig()) == dataclasses.asdict(capsule_pool.BreakerConfig())


def test_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError):
        SessionOptions().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("request_", "argument"),
    [
        (ExecuteRequest(b"1"), "code"),  # type: ignore[arg-type]
        (ExecuteRequest(None), "code"),  # type: ignore[arg-type]
        (ExecuteRequest("'\ud800'"), "code"),
        (ExecuteRequest("1", timeout=-1), "timeout"),
        (ExecuteRequest("1", timeout=0), "timeout"),
        (ExecuteRequest("1", timeout=True), "timeout"),
        (ExecuteRequest("1", timeout=float("inf")), "timeout"),
        (ExecuteRequest("1", timeout=float("nan")), "timeout"),
        (ExecuteRequest("1", timeout="1"), "timeout"),  # type: ignore[arg-type]
        (ExecuteRequest("1", quiet=1), "quiet"),  # type: ignore[arg-type]
        (ExecuteRequest("1", batch=None), "batch"),  # type: ignore[arg-type]
        (ExecuteRequest("1", cell="x" * 1001), "cell"),
    ],
)
def test_a_wrong_request_names_its_argument(request_: ExecuteRequest, argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_request(request_, 64 * MIB)
    assert caught.value.argument == argument


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_code_over_the_limit_names_the_limit(letter: str) -> None:
    check_request(ExecuteRequest(letter * (DEFAULT_LIMITS.code_bytes // 2 // len(letter.encode()))), 64 * MIB)
    with pytest.raises(ArgumentError, match="code_bytes"):
        check_request(ExecuteRequest(letter * (DEFAULT_LIMITS.code_bytes // len(letter.encode()) + 1)), 64 * MIB)
    with pytest.raises(ArgumentError, match="message_bytes"):
        check_request(ExecuteRequest(letter * 65_536), 65_536)
