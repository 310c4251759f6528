from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from capsule import ArgumentError, Client, EnvironmentConfig, NodeConfig
from capsule.config import load
from capsule.settings.environments import BreakerConfig

FILE = """
max_sessions = 7
directory = "boxes"

[environments.science]
preload = ["json"]
path = ["lib", "/abs"]
python = "bin/python"
warmup = "ready = 6 * 7"
env = { PYTHONHASHSEED = "0" }
min_idle = 0
breaker = { failures = 2, longest_pause = 9.5 }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "capsule.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_gives_the_fields_of_the_node_and_its_environments(here: Path) -> None:
    (here / "boxes").mkdir()
    config = load(write(here, FILE))
    assert (config.max_sessions, config.directory) == (7, here / "boxes")
    assert config.environments["default"] == EnvironmentConfig()
    science = config.environments["science"]
    assert science.path == (str(here / "lib"), "/abs")
    assert science.python == str(here / "bin/python")
    assert (science.env, science.preload, science.min_idle) == ({"PYTHONHASHSEED": "0"}, ("json",), 0)
    assert science.breaker == BreakerConfig(failures=2, longest_pause=9.5)


def test_without_a_path_the_file_of_the_working_directory_counts(here: Path) -> None:
    assert load() == NodeConfig()
    write(here, "max_sessions = 3")
    assert load().max_sessions == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_sessions = ", "not TOML"),
        ("colour = 1", "colour"),
        ("max_sessions = 0", "max_sessions"),
        ("environments = 5", "environments"),
        ("[environments]\nscience = 5", "environments.science"),
        ("[environments.science]\nmin_idle = -1", "environments.science.min_idle"),
        ("[environments.science]\nmin_idel = 1", "max_starting"),
        ("[environments.science]\nbreaker = { paus = 1 }", "longest_pause"),
        ("[environments.science.breaker]\npause = 99", "environments.science.breaker.longest_pause"),
        ("[environments.science]\npath = [1]", "environments.science.path"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_its_place(here: Path, text: str, told: str) -> None:
    file = write(here, text)
    with pytest.raises(ArgumentError) as caught:
        load(file)
    assert str(file) in str(caught.value)
    assert told in str(caught.value)
    assert caught.value.argument == "config"


def test_a_file_that_is_not_there_is_told(here: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be read"):
        load(here / "nothing.toml")
    with pytest.raises(ArgumentError, match="cannot be read"):
        Client(config=here / "nothing.toml")


def test_a_client_runs_code_in_an_environment_of_its_file(here: Path) -> None:
    file = write(here, FILE.replace('python = "bin/python"\n', "").replace('directory = "boxes"\n', ""))
    with Client(config=file, max_sessions=1) as client, client.session("science") as session:
        assert session.run("ready, hash('a') == hash('a')").text == "(42, True)"
        assert session.run("import os; os.environ['PYTHONHASHSEED']").text == "'0'"
        with pytest.raises(Exception, match="max_sessions=1"):
            client.session("science")


def test_the_command_line_finds_the_file_too(here: Path) -> None:
    file = write(here, "[environments.science]\nwarmup = 'ready = 42'")
    capsule = Path(sys.executable).with_name("capsule")
    command: list[str] = [str(capsule), "run", "--environment", "science", "-c", "print(ready)"]
    for options, folder in (([], here), (["--config", str(file)], here.parent)):
        done = subprocess.run([*command[:2], *options, *command[2:]], cwd=folder, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b"42\n"), done.stderr
    missing = subprocess.run(command, cwd=here.parent, capture_output=True, check=False)
    assert missing.returncode == 2
