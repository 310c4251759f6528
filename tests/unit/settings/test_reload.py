"""What a running node takes of a new configuration: exactly what says that it can be reloaded."""

from __future__ import annotations

from typing import Any

import pytest

from capsule.config import NodeConfig
from capsule.settings.reload import plan
from capsule.settings.tree import NAME, Option, options


def told(old: NodeConfig, new: NodeConfig) -> tuple[list[str], list[str]]:
    found = plan(old, new)
    return [str(change) for change in found.changed], [str(change) for change in found.restart]


def test_the_same_changes_nothing() -> None:
    assert told(NodeConfig(), NodeConfig()) == ([], [])
    assert plan(NodeConfig(), NodeConfig()).config == NodeConfig()


def test_what_can_be_reloaded_is_taken_and_the_rest_stays() -> None:
    new = NodeConfig.build(max_sessions=5, serve={"max_clients": 7, "listen": ["ipc:///x"]})
    changed, restart = told(NodeConfig(), new)
    assert changed == ["max_sessions = 5 (was 1000)", "serve.max_clients = 7 (was 1000)"]
    assert restart == ["serve.listen = ['ipc:///x'] (was [])"]
    taken = plan(NodeConfig(), new).config
    assert (taken.max_sessions, taken.serve.max_clients, taken.serve.listen) == (5, 7, ())
    assert told(taken, new) == ([], restart), "it is told again until the restart"


def test_environments_come_but_do_not_go() -> None:
    old = NodeConfig.build(environments={"default": {}, "a": {"min_idle": 1, "preload": ["json"]}})
    new = NodeConfig.build(environments={"default": {}, "b": {"warmup": "x"}})
    assert told(old, new) == (["environments.b is new"], ["environments.a is gone"])
    taken = plan(old, new).config.environments
    assert taken == {**old.environments, "b": new.environments["b"]}


def test_the_pool_of_an_environment_takes_new_sizes_and_its_interpreter_stays() -> None:
    old = NodeConfig.build(environments={"default": {"env": {"KEY": "secret"}}})
    new = NodeConfig.build(
        environments={"default": {"min_idle": 3, "idle_bytes": 2**30, "breaker": {"failures": 9}, "warmup": "1"}}
    )
    changed, restart = told(old, new)
    assert changed == [
        "environments.default.min_idle = 3 (was 1)",
        "environments.default.idle_bytes = 1073741824 (was none)",
        "environments.default.breaker.failures = 9 (was 5)",
    ]
    assert restart == ["environments.default.env has changed", "environments.default.warmup = '1' (was '')"]


def test_of_secrets_only_what_is_none_is_told() -> None:
    old = NodeConfig.build(store={"url": "postgresql://capsule:old-secret@x/y"})
    new = NodeConfig.build(store={"url": "resonate+http://x", "token": "new-secret"})
    assert told(old, new) == (
        [],
        [
            "store.url = resonate+http://x (was postgresql://capsule:***@x/y)",
            "store.token = ********** (was none)",
        ],
    )


SAMPLES: dict[type, Any] = {bool: True, int: 2**28, float: 7.5, str: "x", tuple: ("x",), dict: {"x": "y"}}


@pytest.mark.parametrize("option", list(options(NodeConfig)), ids=lambda option: ".".join(option.path))
def test_every_option_is_either_taken_or_told_to_need_a_restart(option: Option) -> None:
    kind = type((option.field.examples or [option.field.default])[0])
    value = "/" if option.path[-1] == "directory" else SAMPLES[kind]
    if option.path[-1] == "longest_pause":
        value = 99.0
    if option.path[-1] == "durability":
        value = "none"
    if option.path[-1] == "http":
        value = "127.0.0.1:1"
    if option.path[-1] == "secrets":
        value = {"x": "env:X"}
    if option.path[-1] in {"sandbox", "cgroups", "start_method"}:
        value = {"sandbox": "landlock", "cgroups": "off", "start_method": "spawn"}[option.path[-1]]
    if option.path[-1] == "readable":
        value = ("/srv/x",)
    if option.path[-1] == "url":
        value = "postgresql://capsule@x/y"
    name, tables = option.path[-1], [part if part != NAME else "default" for part in option.path[:-1]]
    nested: dict[str, Any] = {name: value}
    for table in reversed(tables):
        nested = {table: nested}
    old = NodeConfig.build(**({"serve": {"quotas": {"default": {}}}} if "quotas" in tables else {}))
    if name == "token":  # it is for one kind of store
        old = NodeConfig.build(store={"url": "resonate+http://x"})
        nested["store"]["url"] = "resonate+http://x"
    new = NodeConfig.build(**nested)
    changed, restart = told(old, new)
    path = ".".join([*tables, name])
    assert len(changed) + len(restart) == 1
    assert (changed if option.reloadable else restart)[0].startswith(path)
    assert plan(old, new).config == (new if option.reloadable else old)
