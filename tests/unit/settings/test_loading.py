"""Where values come from: flags before variables before the file before the defaults, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capsule.config import NodeConfig, load
from capsule.settings.environments import EnvironmentConfig
from capsule.settings.loading import Setting, read
from capsule.settings.sources import Flag
from capsule_protocol.errors import ArgumentError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "capsule.toml"
    file.write_text(text, encoding="utf-8")
    return file


def origins(*args: Any) -> dict[str, Setting]:
    return {".".join(setting.path): setting for setting in read(*args).settings()}


def refused(*args: Any) -> list[dict[str, str]]:
    with pytest.raises(ArgumentError) as caught:
        read(*args)
    assert caught.value.argument == "config"
    told: list[dict[str, str]] = caught.value.details["complaints"]
    assert caught.value.message.startswith(f"config: {told[0]['message']}")
    assert caught.value.code == told[0]["code"]
    return told


def test_flags_come_before_variables_and_these_before_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(here, "max_sessions = 1\n\n[serve]\nmax_clients = 1\ndrain_timeout = 1\n")
    monkeypatch.setenv("CAPSULE_SERVE__MAX_CLIENTS", "2")
    monkeypatch.setenv("CAPSULE_SERVE__DRAIN_TIMEOUT", "2")
    flags = [Flag("--drain-timeout", ("serve", "drain_timeout"), "3")]
    config = read(file, flags).config
    assert (config.max_sessions, config.serve.max_clients, config.serve.drain_timeout) == (1, 2, 3.0)
    assert type(config) is NodeConfig
    found = origins(file, flags)
    assert found["max_sessions"] == (("max_sessions",), 1, "file", f"{file}:1")
    assert found["serve.max_clients"][1:] == (2, "environment", "CAPSULE_SERVE__MAX_CLIENTS")
    assert found["serve.drain_timeout"][1:] == (3.0, "flag", "--drain-timeout")
    assert found["serve.client_timeout"][1:] == (30.0, "default", "default")


def test_every_value_has_an_origin(here: Path) -> None:
    found = origins(write(here, "[environments.science]\nbreaker = { failures = 2 }\nenv = { A = '1' }"))
    assert found["environments.science.breaker.failures"].place.endswith("capsule.toml:2")
    assert found["environments.science.breaker.window"].place == "default"
    assert found["environments.science.env"].place.endswith("capsule.toml:3")
    assert found["environments.default.min_idle"].place == "default"


def test_variables_reach_every_environment_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "[environments.science]\nenv = { FILE = '1' }")
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__SCIENCE__MIN_IDLE", "0")
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__SCIENCE__PRELOAD", '["json", "decimal"]')
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__SCIENCE__ENV__MixedCase", "7")
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__SCIENCE__BREAKER__FAILURES", "9")
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__OTHER", '{"min_idle": 3}')
    config = load()
    science = config.environments["science"]
    assert (science.min_idle, science.preload, science.breaker.failures) == (0, ("json", "decimal"), 9)
    assert science.env == {"FILE": "1", "MixedCase": "7"}
    assert config.environments["other"].min_idle == 3
    assert config.environments["default"] == EnvironmentConfig()
    place = origins()["environments.science.env"].place
    assert place == f"CAPSULE_ENVIRONMENTS__SCIENCE__ENV__MixedCase, {here / 'capsule.toml'}:2"


def test_a_variable_names_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "max_sessions = 1")
    (here / "other.toml").write_text("max_sessions = 2")
    monkeypatch.setenv("CAPSULE_CONFIG", "other.toml")
    assert load().max_sessions == 2
    assert load(here / "capsule.toml").max_sessions == 1
    monkeypatch.setenv("CAPSULE_CONFIG", "nothing.toml")
    with pytest.raises(ArgumentError, match="cannot be read"):
        load()


def test_relative_paths_begin_where_they_are_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "etc").mkdir()
    file = write(here / "etc", "[serve]\ndirectory = 'run'\n[environments.default]\npath = ['lib']")
    assert load(file).serve.directory == here / "etc/run"
    assert load(file).environments["default"].path == (str(here / "etc/lib"),)
    monkeypatch.setenv("CAPSULE_SERVE__DIRECTORY", "run")
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__DEFAULT__PATH", '["lib"]')
    assert load(file).serve.directory == here / "run"
    assert load(file).environments["default"].path == (str(here / "lib"),)
    assert read(file, [Flag("--directory", ("serve", "directory"), "flag")]).config.serve.directory == here / "flag"


def test_none_can_be_said_where_it_is_allowed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[serve]\ndetached_ttl = 'none'\n[environments.a]\nmax_age = 5\nenv = { A = 'none' }\nwarmup = 'none'"
    file = write(here, text)
    monkeypatch.setenv("CAPSULE_ENVIRONMENTS__A__MAX_AGE", "none")
    config = load(file)
    assert config.serve.detached_ttl is None
    one = config.environments["a"]
    assert (one.max_age, one.env, one.warmup) == (None, {"A": "none"}, "none")
    assert origins(file)["serve.detached_ttl"].place == f"{file}:2"
    with pytest.raises(ArgumentError, match="drain_timeout"):
        load(write(here, "[serve]\ndrain_timeout = 'none'"))


@pytest.mark.parametrize(
    ("name", "meant", "known"),
    [
        ("CAPSULE_MAX_SESSION", "CAPSULE_MAX_SESSIONS", "CAPSULE_ENVIRONMENTS__NAME__BREAKER__PAUSE"),
        ("CAPSULE_SERVE__MAX_CLIENT", "CAPSULE_SERVE__MAX_CLIENTS", "CAPSULE_SERVE__LISTEN"),
        ("CAPSULE_SERVES__LISTEN", "CAPSULE_SERVE__LISTEN", "CAPSULE_DIRECTORY"),
        ("CAPSULE_MAX_SESSIONS__X", "CAPSULE_MAX_SESSIONS", "CAPSULE_DIRECTORY"),
        (
            "CAPSULE_ENVIRONMENTS__A__BREAKER__PAUS",
            "CAPSULE_ENVIRONMENTS__A__BREAKER__PAUSE",
            "CAPSULE_ENVIRONMENTS__A__BREAKER__FAILURES",
        ),
    ],
)
def test_an_unknown_variable_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str, known: str
) -> None:
    monkeypatch.setenv(name, "1")
    (complaint,) = refused()
    assert (complaint["code"], complaint["place"]) == ("unknown_option", name)
    assert complaint["message"].startswith(f"{name}: there is no such option; did you mean {meant!r}?; allowed: ")
    assert known in complaint["message"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("CAPSULE_MAX_SESSIONS", "many", "max_sessions: .*'many'; allowed: int"),
        ("CAPSULE_SERVE__LISTEN", "ipc:///x", "serve.listen: .*allowed: a list of str"),
        ("CAPSULE_SERVE", "x", "serve: is 'x'; allowed: a ServeConfig"),
        ("CAPSULE_SERVE__DRAIN_TIMEOUT", "-1", "serve.drain_timeout: .*more than 0"),
        ("CAPSULE_ENVIRONMENTS__A__MIN_IDLE", "", "environments.a.min_idle: .*allowed: int"),
    ],
)
def test_a_wrong_value_of_a_variable_is_told_with_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=f"config: {name}: {told}"):
        load()


def test_all_that_is_wrong_is_told_in_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSULE_COLOUR", "red")
    file = write(here, 'max_sesions = 3\n[serve]\nlisten = [\n  "a",\n]\nmax_clients = 0\n[environments.a]\nenv = 5\n')
    told = refused(file, [Flag("--drain-timeout", ("serve", "drain_timeout"), "soon")])
    places = ["CAPSULE_COLOUR", "--drain-timeout", f"{file}:1", f"{file}:6", f"{file}:8"]
    assert [complaint["place"] for complaint in told] == places
    assert "did you mean 'max_sessions'?" in told[2]["message"]
    with pytest.raises(ArgumentError, match="and 4 more"):
        read(file, [Flag("--drain-timeout", ("serve", "drain_timeout"), "soon")])


def test_what_conflicts_with_a_default_is_told_where_it_was_written(here: Path) -> None:
    file = write(here, "[environments.a]\nmin_idle = 0\n[environments.a.breaker]\npause = 99")
    (complaint,) = refused(file)
    assert (complaint["place"], complaint["option"]) == (f"{file}:3", "environments.a.breaker.longest_pause")


def test_who_has_nothing_to_read_does_not_pay_for_it(here: Path) -> None:
    code = "import sys, capsule.config, capsule.cli.entry; capsule.config.load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "capsule.config" in done.stdout
    assert "pydantic_settings" not in done.stdout
