"""`capsule config`: values with their origins, all that is wrong, and the schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

CAPSULE = Path(sys.executable).with_name("capsule")
WRONG = "max_sesions = 1\n[serve]\nmax_clients = 0\n[environments.a]\nmin_idel = 1\n"


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(CAPSULE), "config", *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=60
    )


def test_show_tells_every_value_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "capsule.toml").write_text("[environments.science]\nmin_idle = 2\n")
    done = run(tmp_path, "show", "--max-clients", "5", CAPSULE_MAX_SESSIONS="4")
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.rsplit("  # ", 1) for line in done.stdout.splitlines())
    told = {name.strip(): place for name, place in told.items()}
    assert told["environments.science.min_idle = 2"] == f"{tmp_path}/capsule.toml:2"
    assert told["max_sessions = 4"] == "CAPSULE_MAX_SESSIONS"
    assert told["serve.max_clients = 5"] == "--max-clients"
    assert told["serve.directory = none"] == "default"


def test_show_as_json_has_the_same(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("serve.listen = ['ipc:///x/y']\n")
    done = run(tmp_path, "show", "--json", "--config", str(file))
    told = json.loads(done.stdout)
    assert told["file"] == str(file)
    by_name = {setting["option"]: setting for setting in told["settings"]}
    assert by_name["serve.listen"] == {
        "option": "serve.listen",
        "value": ["ipc:///x/y"],
        "origin": "file",
        "place": f"{file}:1",
    }
    assert by_name["environments.default.breaker.pause"]["origin"] == "default"


def test_show_refuses_a_wrong_flag(tmp_path: Path) -> None:
    done = run(tmp_path, "show", "--max-sessions", "many")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--max-sessions: max_sessions: " in done.stderr


def test_check_tells_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "capsule.toml"
    file.write_text(WRONG)
    for arguments in (["check"], ["check", str(file)]):
        done = run(tmp_path, *arguments, CAPSULE_MAX_SESSION="3")
        assert (done.returncode, done.stdout) == (2, "")
        places = [line.removeprefix("capsule config check: ").split(": ")[0] for line in done.stderr.splitlines()]
        assert places == ["CAPSULE_MAX_SESSION", f"{file}:1", f"{file}:3", f"{file}:5"]
    told = json.loads(run(tmp_path, "check", "--json").stdout)["complaints"]
    assert [one["code"] for one in told] == ["unknown_option", "invalid_argument", "unknown_option"]
    assert told[1]["option"] == "serve.max_clients"


def test_check_is_silent_on_stderr_when_nothing_is_wrong(tmp_path: Path) -> None:
    done = run(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "capsule.toml").write_text("max_sessions = 3")
    done = run(tmp_path, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/capsule.toml" in done.stdout
    assert json.loads(run(tmp_path, "check", "--json").stdout)["complaints"] == []


@pytest.mark.parametrize("text", ["max_sessions = ", "\udcff"])
def test_check_refuses_what_is_no_toml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "capsule.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = run(tmp_path, "check")
    assert done.returncode == 2
    assert f"{file} is not TOML" in done.stderr
    assert [one["code"] for one in json.loads(run(tmp_path, "check", "--json").stdout)["complaints"]] == [
        "invalid_argument"
    ]


def test_schema_prints_a_schema(tmp_path: Path) -> None:
    done = run(tmp_path, "schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["max_sessions"]["default"] == 1000


def test_serve_does_not_start_with_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "capsule.toml").write_text(WRONG)
    done = subprocess.run([str(CAPSULE), "serve"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/capsule.toml:1: max_sesions: there is no such option" in done.stderr
    assert "2 more" in done.stderr


SECRET = "s3cret"
"""In whatever place somebody may have put it."""


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ({"url": f"postgresql://u:{SECRET}@h/d", "path": "x"}, "one of them"),
        ({"url": f"postgresql://u:{SECRET}@h/d", "durability": "process"}, "'power'"),
        ({"url": f"postgresql://u:{SECRET}@h/d", "durability": "none"}, "no url"),
        ({"url": f"mysql://u:{SECRET}@h/d"}, "mysql://u:***@h/d"),
        ({"url": f"resonate+http://u:{SECRET}@h"}, "a token is an option of its own"),
        ({"url": "resonate+http://"}, "names no server"),
        ({"token": SECRET}, "a url that begins with resonate+"),
        ({"token": SECRET, "url": "postgresql://h/d"}, "a url that begins with resonate+"),
    ],
)
def test_stores_that_cannot_be_are_refused_and_secrets_not_shown(
    tmp_path: Path, store: dict[str, str], told: str
) -> None:
    (tmp_path / "capsule.toml").write_text("[store]\n" + "".join(f"{name} = '{x}'\n" for name, x in store.items()))
    done = run(tmp_path, "check")
    assert done.returncode == 2
    assert told in done.stderr
    assert SECRET not in done.stderr + run(tmp_path, "check", "--json").stdout


@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_show_keeps_secrets(tmp_path: Path, flag: list[str]) -> None:
    done = run(tmp_path, "show", *flag, CAPSULE_STORE__URL=f"postgresql://u:{SECRET}@h/d?x=1&password={SECRET}")
    assert "postgresql://u:***@h/d?x=1&password=***" in done.stdout
    assert SECRET not in done.stdout
    done = run(tmp_path, "show", *flag, CAPSULE_STORE__URL="resonate+http://h:1", CAPSULE_STORE__TOKEN=SECRET)
    assert "resonate+http://h:1" in done.stdout
    assert SECRET not in done.stdout
