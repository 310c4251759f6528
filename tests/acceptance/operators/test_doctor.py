"""What `capsule doctor` says of a machine that is well, and of one with something wrong."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capsule import Client
from capsule.config import NodeConfig
from capsule.doctor import CODES, clock, sandbox, sqlite
from capsule.settings.environments import EnvironmentConfig, Sandbox
from capsule_protocol.errors import CODES as ERRORS
from capsule_protocol.errors import CapsuleError
from tests.acceptance.cli.support import CAPSULE, HANG, clean_environment
from tests.acceptance.serve.support import Served

PAGE = (Path(__file__).parents[3] / "docs/reference/cli.md").read_text("utf-8")

Findings = dict[str, dict[str, Any]]


def examine(*arguments: str | Path, files: int | None = None, **env: str) -> tuple[int, Findings]:
    """The exit code, and the findings by their code. `files`: the limit of descriptors."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    done = subprocess.run(
        [CAPSULE, "doctor", "--json", *arguments],
        capture_output=True,
        timeout=HANG,
        check=False,
        preexec_fn=limit,
        env=clean_environment(**env),
    )
    assert done.stderr == b""
    said = json.loads(done.stdout)
    assert said["ok"] == (done.returncode == 0)
    assert [finding["code"] for finding in said["findings"]] == list(CODES)
    for finding in said["findings"]:
        assert set(finding) == {"code", "severity", "message", "hint"}
        assert finding["severity"] in {"ok", "info", "warning", "error"}
        assert finding["message"]
    return done.returncode, {finding["code"]: finding for finding in said["findings"]}


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    """A place for a runtime directory."""
    home = place / "home"
    home.mkdir(mode=0o700)
    yield home
    subprocess.run(["rm", "-rf", home], check=True)


def test_here_all_that_is_needed_is_found_and_nothing_is_changed(home: Path) -> None:
    code, found = examine(XDG_RUNTIME_DIR=str(home), TMPDIR=str(home))
    assert code == 0
    for name in ("interpreters", "runtime_directory", "box_directory", "pidfd", "memfd_sealing", "subreaper"):
        assert found[name]["severity"] == "ok", found[name]
    assert found["clock_date"]["severity"] == "ok"
    assert found["node"]["severity"] == "info"  # none runs, and none need
    assert list(home.iterdir()) == []


def test_as_text_it_is_a_table(home: Path) -> None:
    done = subprocess.run(
        [CAPSULE, "doctor"], capture_output=True, check=True, env=clean_environment(XDG_RUNTIME_DIR=str(home))
    )
    _, *rows = done.stdout.decode().splitlines()
    assert [row.split()[0] for row in rows] == list(CODES)
    assert "\x1b" not in done.stdout.decode()


def test_the_node_that_is_asked_is_that_of_the_configuration(home: Path) -> None:
    file = home / "of-the-node.toml"
    file.write_text(f'[serve]\ndirectory = "{home / "n"}"\n')
    _, found = examine("--config", file)
    assert (found["node"]["severity"], str(home / "n") in found["node"]["message"]) == ("info", True)
    with Served(home / "n"):
        _, found = examine("--config", file)
        assert found["node"]["severity"] == "ok", found["node"]
        assert str(home / "n") in found["node"]["message"]


# What is wrong


def test_a_configuration_that_is_none(place: Path, home: Path) -> None:
    file = place / "wrong.toml"
    file.write_text("[serve]\nmax_clientz = 5\n")
    code, found = examine("--config", file, XDG_RUNTIME_DIR=str(home))
    assert code == 1
    assert found["configuration"]["severity"] == "error"
    assert "max_clientz" in found["configuration"]["message"]
    assert str(file) in found["configuration"]["message"]
    assert found["pidfd"]["severity"] == "ok"  # the other checks are made all the same


def test_a_configuration_that_is_not_there(place: Path, home: Path) -> None:
    code, found = examine("--config", place / "nowhere.toml", XDG_RUNTIME_DIR=str(home))
    assert (code, found["configuration"]["severity"]) == (1, "error")


def test_an_interpreter_that_is_not_there(place: Path, home: Path) -> None:
    file = place / "python.toml"
    file.write_text('[environments.old]\npython = "/nowhere/python"\n')
    code, found = examine("--config", file, XDG_RUNTIME_DIR=str(home))
    assert (code, found["interpreters"]["severity"]) == (1, "error")
    assert "old: /nowhere/python" in found["interpreters"]["message"]
    assert found["configuration"]["severity"] == "ok"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o701])
def test_a_runtime_directory_that_is_open(home: Path, mode: int) -> None:
    (home / "capsule").mkdir()
    (home / "capsule").chmod(mode)
    code, found = examine(XDG_RUNTIME_DIR=str(home))
    assert (code, found["runtime_directory"]["severity"]) == (1, "error")
    assert "chmod 700" in found["runtime_directory"]["hint"]


def test_a_runtime_directory_that_is_a_link(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    (home / "capsule").symlink_to(home / "real")
    code, found = examine(XDG_RUNTIME_DIR=str(home))
    assert (code, found["runtime_directory"]["severity"]) == (1, "error")
    assert "link" in found["runtime_directory"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_runtime_directory_of_somebody_else(home: Path) -> None:
    (home / "capsule").mkdir(mode=0o700)
    os.chown(home / "capsule", 65534, 65534)
    code, found = examine(XDG_RUNTIME_DIR=str(home))
    assert (code, found["runtime_directory"]["severity"]) == (1, "error")
    assert "belongs to user 65534" in found["runtime_directory"]["message"]


def test_a_box_directory_that_cannot_be_written(place: Path, home: Path) -> None:
    file = place / "boxes.toml"
    file.write_text('directory = "/proc"\n')
    code, found = examine("--config", file, XDG_RUNTIME_DIR=str(home))
    assert (code, found["box_directory"]["severity"]) == (1, "error")
    assert "TMPDIR" in found["box_directory"]["hint"]


def test_a_store_that_cannot_be_written(place: Path, home: Path) -> None:
    file = place / "store.toml"
    file.write_text('[store]\npath = "/proc/capsule/store.db"\n')
    code, found = examine("--config", file, XDG_RUNTIME_DIR=str(home))
    assert (code, found["store_space"]["severity"]) == (1, "error")
    assert "/proc" in found["store_space"]["message"]


@pytest.mark.parametrize("store", ['durability = "none"', 'url = "postgresql://user@nowhere/db"'])
def test_a_store_that_is_no_file_needs_no_room_here(place: Path, home: Path, store: str) -> None:
    file = place / "store.toml"
    file.write_text(f"[store]\n{store}\n")
    _, found = examine("--config", file, XDG_RUNTIME_DIR=str(home))
    assert found["store_space"]["severity"] == "ok", found["store_space"]


def test_a_box_directory_whose_path_is_too_long_for_sockets(place: Path, home: Path) -> None:
    long = place / ("x" * 100)
    long.mkdir()
    code, found = examine(XDG_RUNTIME_DIR=str(home), TMPDIR=str(long))
    assert (code, found["box_directory"]["severity"]) == (0, "warning")
    assert "too long" in found["box_directory"]["message"]


def test_fewer_descriptors_than_sessions_need(home: Path) -> None:
    code, found = examine(files=500, XDG_RUNTIME_DIR=str(home))
    assert (code, found["open_files"]["severity"]) == (0, "warning")
    assert "500" in found["open_files"]["message"]
    assert "LimitNOFILE=" in found["open_files"]["hint"]


@pytest.mark.parametrize(("now", "severity"), [(0.0, "error"), (1.8e9, "ok"), (5e9, "error")])
def test_a_date_that_cannot_be(now: float, severity: str) -> None:
    assert clock.date(now).severity == severity


@pytest.mark.parametrize(("moved", "severity"), [(3600.0, "warning"), (-3600.0, "warning"), (0.0001, "ok")])
def test_a_clock_that_jumps(moved: float, severity: str) -> None:
    assert clock.steady(moved).severity == severity


# The node


def test_a_node_that_runs(served: Served) -> None:
    code, found = examine("--address", served.address)
    assert (code, found["node"]["severity"]) == (0, "ok")


def test_a_node_whose_store_cannot_commit(place: Path) -> None:
    with Served(place / "away") as served, Client(served.address) as client:
        store, aside = (served.directory / name for name in ("store.db", "aside.db"))
        store.rename(aside)
        with pytest.raises(CapsuleError):
            client.session()
        code, found = examine("--address", served.address)
        assert (code, found["node"]["severity"]) == (1, "error")
        assert "cannot commit" in found["node"]["message"]
        aside.rename(store)
        deadline = time.monotonic() + HANG
        while examine("--address", served.address)[0] != 0:  # each look has the node try again
            assert time.monotonic() < deadline


def test_a_node_that_was_asked_for_and_is_not_there(place: Path) -> None:
    code, found = examine("--address", f"ipc://{place}/nobody.sock")
    assert (code, found["node"]["severity"]) == (1, "error")
    assert found["node"]["hint"].startswith(ERRORS["node_unreachable"].hint.split(",")[0])


def test_an_address_that_is_none() -> None:
    code, found = examine("--address", "nowhere")
    assert (code, found["node"]["severity"]) == (1, "error")


# The reference


def test_every_code_is_explained() -> None:
    table = PAGE.split("\n## What `capsule doctor` finds\n")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)) == CODES


@pytest.mark.parametrize(
    ("version", "severity"), [((3, 36, 0), "error"), ((3, 40, 1), "info"), ((3, 51, 2), "info"), ((3, 51, 3), "ok")]
)
def test_a_sqlite_that_is_too_old_or_has_a_fault_is_told(version: tuple[int, ...], severity: str) -> None:
    finding = sqlite.examine(version)
    assert (finding.code, finding.severity) == ("sqlite", severity)
    assert ".".join(map(str, version)) in finding.message
    assert bool(finding.hint) == (severity != "ok")


@pytest.mark.parametrize("level", ["landlock", "namespaces"])
def test_a_sandbox_that_cannot_be_had_is_an_error_for_who_asks_for_it(level: Sandbox, tmp_path: Path) -> None:
    """Asked of an interpreter that has nothing of Capsule; the other level is of no concern to anybody."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    environments = {"boxed": EnvironmentConfig(sandbox=level, python=str(python))}
    findings = {found.code: found for found in sandbox.examine(NodeConfig(environments=environments))}
    asked = findings.pop(f"sandbox_{level}")
    assert asked.severity == "error"
    assert "'boxed'" in asked.message
    assert next(iter(findings.values())).severity in {"ok", "info"}


def test_a_sandbox_that_can_be_had_is_found_so() -> None:
    namespaces = EnvironmentConfig(sandbox="namespaces")
    landlock = EnvironmentConfig(sandbox="landlock", uid=0)
    findings = sandbox.examine(NodeConfig(environments={"a": namespaces, "b": landlock}))
    assert [found.severity for found in findings] == ["ok", "ok"], findings


def test_it_tells_which_control_groups_can_be_had(home: Path) -> None:
    """Those that a zygote would find, by their version, and for each other one why it cannot be had."""
    _, findings = examine(XDG_RUNTIME_DIR=str(home))
    command = [sys.executable, "-P", "-m", "capsule_kernels.sandbox.cgroups"]
    found = json.loads(subprocess.check_output(command, timeout=HANG))
    finding = findings["cgroups"]
    assert found["versions"].keys() | found["missing"].keys() == {"memory", "pids", "cpu"}
    for name, version in found["versions"].items():
        assert f"{name} (version {version})" in finding["message"]
    for name, why in found["missing"].items():
        assert f"not {name}: {why}" in finding["message"]
    assert finding["severity"] == ("info" if found["missing"] else "ok")
    assert bool(finding["hint"]) == bool(found["missing"])


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may have been given some")
def test_a_user_who_can_make_no_control_groups_is_told_why() -> None:
    code = (
        "import os, json; from capsule_kernels.sandbox.cgroups import discover\n"
        "os.setgroups([]); os.setresuid(65534, 65534, 65534); print(json.dumps(discover().missing))"
    )
    missing = json.loads(subprocess.check_output([sys.executable, "-c", code], timeout=HANG))
    assert missing.keys() == {"memory", "pids", "cpu"}
    assert all(missing.values())


def test_a_policy_that_cannot_be_kept(place: Path, home: Path) -> None:
    """`capsule serve` would not start with it."""
    file, policy = place / "capsule.toml", place / "policy.toml"
    file.write_text(f'[broker]\npolicy = "{policy}"\n', encoding="utf-8")

    def found() -> dict[str, Any]:
        code, findings = examine("--config", file, XDG_RUNTIME_DIR=str(home))
        assert (code == 1) == (findings["policy"]["severity"] == "error")
        return findings["policy"]

    assert "cannot be read: No such file or directory" in found()["message"]
    policy.write_text('version = 1\npack = "strict"\n', encoding="utf-8")
    assert "needs at least 'landlock', and this one has 'none'" in found()["message"]
    policy.write_text('version = 1\nsandbox = "none"\n', encoding="utf-8")
    assert found()["severity"] == "ok"
    policy.write_text('version = 1\nsandbox = "none"\nmoed = "observe"\n', encoding="utf-8")
    assert "did you mean 'mode'?" in found()["message"]
    assert found()["hint"] == "`capsule policy check` tells all that is wrong with it."
