"""The examples for systemd and containers say what is true, and what they ask for works."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import click
import pytest

from capsule import AsyncClient
from capsule.cli.entry import cli
from capsule.config import load
from capsule.runtime import store_path
from capsule.settings.service import ServeConfig
from tests.acceptance.serve.support import CAPSULE, LONG

EXAMPLES = Path(__file__).parents[3] / "docs/examples"
UNITS = ["capsule.service", "capsule-user.service"]


def unit(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the names of systemd have capitals
    parser.read(EXAMPLES / name)
    return parser["Service"]


def commands() -> list[tuple[str, ...]]:
    """All that the examples have started."""
    found = [tuple(shlex.split(unit(name)["ExecStart"])) for name in UNITS]
    text = (EXAMPLES / "Containerfile").read_text("utf-8")
    found += [tuple(json.loads(line)) for line in re.findall(r"CMD (\[.*\])", text)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_what_they_start_is_a_command_with_such_options(command: tuple[str, ...], tmp_path: Path) -> None:
    program, name, *arguments = command
    assert Path(program).name == "capsule"
    file = tmp_path / "capsule.toml"
    file.touch()
    arguments = [str(file) if argument.endswith(".toml") else argument for argument in arguments]
    cli.commands[name].make_context(name, arguments)
    with pytest.raises(click.UsageError):  # so it would be seen
        cli.commands[name].make_context(name, [*arguments, "--no-such-option"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_against_it(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / name).read_text("utf-8")
    file = tmp_path / "capsule.service"
    file.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={CAPSULE}", text, flags=re.MULTILINE))
    options = ["--user"] if "user" in name else []
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        ["systemd-analyze", *options, "verify", file], capture_output=True, check=False, env=env, timeout=LONG
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", UNITS)
def test_the_node_has_time_to_drain_and_the_signal_is_its_own(name: str) -> None:
    service = unit(name)
    assert float(service["TimeoutStopSec"]) > ServeConfig().drain_timeout
    assert (service["Type"], service["KillMode"], service["OOMPolicy"]) == ("notify", "process", "continue")


def test_what_must_outlive_a_start_of_the_unit_is_kept_outside_of_what_systemd_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = unit("capsule.service")
    assert service["RuntimeDirectoryPreserve"] == "restart"  # the records of the boxes
    kept = [tmp_path / name for name in service["StateDirectory"].split()]
    for directory in kept:
        directory.mkdir()
    for variable in service["Environment"].replace("%S", str(tmp_path)).split():
        name, _, value = variable.partition("=")
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    config = load().model_copy(update={"serve": ServeConfig(directory=Path("/run/capsule"))})
    assert store_path(config).parent in kept
    assert config.directory in kept


@pytest.mark.anyio
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
async def test_without_privileges_it_serves_tells_its_manager_and_drains(place: Path) -> None:
    """What can be had of the unit's hardening without systemd: no new privileges, no capabilities, its umask."""
    directory, notices = place / "unit", place / "notices"
    hardened = ["setpriv", "--no-new-privs"]
    if os.geteuid() == 0:
        hardened += ["--bounding-set=-all", "--inh-caps=-all"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notices))
        manager.settimeout(LONG)
        process = subprocess.Popen(
            [*hardened, str(CAPSULE), "serve", "--directory", str(directory)],
            stdout=subprocess.DEVNULL,
            umask=0o077,
            env={**os.environ, "NOTIFY_SOCKET": str(notices)},
            cwd=place,
        )
        try:
            assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
            async with AsyncClient(f"ipc://{directory}/node.sock") as client, client.session() as session:
                code = "import multiprocessing\nwith multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, 2]))"
                assert (await session.run(code)).stdout == "[1, 2]\n"
                code = (
                    "print(*(l.strip() for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'CapEff'))))"
                )
                said = (await session.run(code)).stdout.split()
                assert said == ["CapEff:", "0" * 16, "NoNewPrivs:", "1"]
                process.terminate()
                assert await asyncio.to_thread(manager.recv, 100) == b"STOPPING=1"
            assert await asyncio.to_thread(process.wait, LONG) == 0
        finally:
            process.kill()
            process.wait()
