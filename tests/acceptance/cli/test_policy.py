"""`capsule policy`, with a provider that another distribution brings along."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
from click.testing import CliRunner

from capsule.broker.audit import Record, open_audit
from capsule.broker.packs import AuditSettings
from capsule.cli.entry import cli

CAPSULE = Path(sys.executable).with_name("capsule")

PROVIDER = """
from capsule.broker.sdk import Descriptor, Empty, Health, Operation, Schema, ScopeSchema
from capsule_protocol.errors import ArgumentError, CapabilityDenied

class Read(Schema):
    path: str
    lines: tuple[int, ...] = ()

class Scope(ScopeSchema):
    below: str

class Notes:
    descriptor = Descriptor("notes", "1", {
        "read": Operation("Read a note", Read, Empty, effects=False),
        "write": Operation("Write a note", Read, Empty),
    }, Scope)
    async def start(self, services): ...
    async def health(self): return Health(True)
    async def stop(self): ...
    def check(self, scope):
        if scope.below == "gone/":
            raise ArgumentError("below", "there is no gone/", allowed="a folder")
    def admit(self, operation, request, scope):
        if not request.path.startswith(scope.below):
            raise CapabilityDenied("path_refused", f"{request.path} is not below {scope.below}")
    async def call(self, call): return Empty()
"""

POLICY = """\
version = 1
name = "house"
pack = "strict"

[[grants]]
name = "public"
capabilities = ["notes.read"]
scope.below = "public/"

[[grants]]
name = "own"
capabilities = ["notes.*"]
principals = ["alice", "bob"]
scope.below = "own/"
approval = { above = { request_bytes = 100 } }

[[denials]]
name = "no-tests"
capabilities = ["*"]
environments = ["test"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(tmp_path_factory.mktemp("site"), "capsule.providers") as folder:
        yield folder


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Path]:
    """Where the provider runs in a process of its own."""
    before = set(psutil.Process().children())
    with installed(tmp_path, "capsule.providers.apart") as folder:
        yield folder
        assert set(psutil.Process().children()) <= before


@contextmanager
def installed(folder: Path, group: str) -> Iterator[Path]:
    info = folder / "acme_notes-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-notes\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nnotes = acme_notes:Notes\n")
    (folder / "acme_notes.py").write_text(PROVIDER)
    (folder / "policy.toml").write_text(POLICY)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("acme_notes", None)


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(site: Path, command: str, *arguments: str | Path, file: str = "policy.toml") -> Done:
    """The command in our process, which is what `capsule.cli.main` does: hundreds of them take no time."""
    called = ["policy", command, file, "--provider", "acme_notes", *map(str, arguments)]
    return invoke(site, *called)


def invoke(site: Path, *called: str) -> Done:
    with chdir(site):
        result = CliRunner().invoke(cli, called, standalone_mode=False)
    if isinstance(result.exception, click.ClickException):
        return Done(result.exception.exit_code, result.stdout, result.stderr + result.exception.format_message())
    assert result.exception is None, result.exception
    return Done(int(result.return_value or 0), result.stdout, result.stderr)


def told(site: Path, command: str, *arguments: str | Path) -> Any:
    done = run(site, command, *arguments, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)


READ = ("--capability", "notes.read", "--principal", "alice")


def test_show_tells_all_with_what_comes_from_the_pack(site: Path) -> None:
    done = run(site, "show")
    assert (done.returncode, done.stderr) == (0, "")
    assert "sandbox           landlock\n" in done.stdout
    assert "concurrent = 8" in done.stdout
    assert "10    own     notes.*       alice, bob" in done.stdout
    data = told(site, "show")
    assert (data["name"], data["pack"], data["budget"]["faults"]) == ("house", "strict", 100)
    assert [one["line"] for one in data["grants"]] == [5, 10]
    assert data["grants"][1]["approval"] == {"above": {"request_bytes": 100}}
    assert data["grants"][1]["scope"] == {"below": "own/"}
    assert data["denials"][0]["name"] == "no-tests"


def test_show_says_what_a_mode_that_only_tries_out_denies_all_the_same(site: Path) -> None:
    assert "what no grant allows" not in run(site, "show").stdout
    (site / "tried.toml").write_text(POLICY.replace("pack =", 'mode = "observe"\npack ='))
    shown = run(site, "show", file="tried.toml").stdout
    assert "mode              observe (rates, the fault budget and approvals are only noted" in shown
    assert "what no grant allows, or a denial forbids, is denied" in shown


def test_check_tells_all_that_is_wrong(site: Path) -> None:
    (site / "wrong.toml").write_text(POLICY.replace("scope.below", "scope.belwo").replace('"strict"', '"strikt"'))
    done = run(site, "check", file="wrong.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("capsule policy check: wrong.toml:3: pack: ")
    (site / "wrong.toml").write_text(POLICY.replace("scope.below", "scope.belwo"))
    done = run(site, "check", "--json", file="wrong.toml")
    assert done.returncode == 2
    assert [one["line"] for one in json.loads(done.stdout)["complaints"]] == [8, 8, 14, 14]
    done = run(site, "check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "policy.toml: nothing is wrong\n", "")
    assert told(site, "check") == {"file": "policy.toml", "complaints": []}


def test_check_says_what_text_would_fit(site: Path) -> None:
    (site / "wrong.toml").write_text(POLICY.replace('"public"', '"not a name"'))
    done = run(site, "check", file="wrong.toml")
    assert "name: is 'not a name'; allowed: text that fits ^[A-Za-z0-9]" in done.stderr


def test_explain_says_which_argument_does_not_fit(site: Path) -> None:
    done = run(site, "explain", *READ, "--argument", "lines=1")
    assert "do not fit notes.read: path: is missing" in done.stdout


def test_simulate_says_what_it_could_not_read(site: Path, trail: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trail, tmp_path / "audit")
    file = copy / "audit-00000001.jsonl"
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    done = run(site, "simulate", "--audit", copy)
    assert done.stdout.startswith("10 calls")
    assert "1 lines of the trail are no records" in done.stderr
    (tmp_path / "nothing").mkdir()
    assert run(site, "simulate", "--audit", tmp_path / "nothing").returncode == 3


def test_check_asks_the_providers_only_where_that_is_wanted(site: Path) -> None:
    (site / "gone.toml").write_text(POLICY.replace("public/", "gone/"))
    assert run(site, "check", file="gone.toml").returncode == 0
    done = run(site, "check", "--scopes", file="gone.toml")
    assert done.returncode == 2
    assert "gone.toml:5: grants.public.scope: below: there is no gone/" in done.stderr


def test_a_provider_that_is_not_allowed_is_not_there(site: Path) -> None:
    done = invoke(site, "policy", "check", "policy.toml")
    assert done.returncode == 2
    assert "'notes.read', which no provider of this node has" in done.stderr


def test_simulate_says_whether_and_by_which_line(site: Path) -> None:
    done = run(site, "simulate", *READ, "--argument", "path=own/x")
    assert (done.returncode, done.stdout) == (0, "allowed: line 10: the grant 'own' allows notes.read\n")
    done = run(site, "simulate", *READ, "--argument", "path=public/x", "--argument", "lines=[1, 2]")
    assert (done.returncode, done.stdout) == (0, "allowed: line 5: the grant 'public' allows notes.read\n")
    done = run(site, "simulate", *READ, "--argument", "path=own/x", "--bytes", "101")
    assert done.returncode == 0
    assert "It would wait for an approval: request_bytes is 101, and above 100." in done.stdout


@pytest.mark.parametrize(
    ("call", "code", "line"),
    [
        ((*READ, "--argument", "path=/etc/shadow"), "path_refused", 5),
        ((*READ, "--argument", "paht=x"), "capability_invalid", 0),
        ((*READ, "--argument", "path=own/x", "--argument", "lines=x"), "capability_invalid", 0),
        ((*READ, "--environment", "test"), "capability_denied", 17),
        (("--capability", "notes.write", "--principal", "mallory"), "capability_denied", 0),
        (("--capability", "notes.none"), "capability_unknown", 0),
    ],
)
def test_simulate_says_why_not(site: Path, call: tuple[str, ...], code: str, line: int) -> None:
    done = run(site, "simulate", *call, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    judged = json.loads(done.stdout)
    assert (judged["allowed"], judged["code"], judged["line"]) == (False, code, line)


def test_a_provider_in_a_process_of_its_own_is_asked_as_any_other(apart: Path) -> None:
    done = run(apart, "explain", *READ, "--argument", "path=own/x")
    assert (done.returncode, "line 10" in done.stdout) == (0, True), done
    done = run(apart, "simulate", *READ, "--argument", "path=elsewhere")
    assert (done.returncode, "elsewhere is not below public/" in done.stdout) == (1, True), done
    (apart / "gone.toml").write_text(POLICY.replace("public/", "gone/"))
    done = run(apart, "check", "--scopes", file="gone.toml")
    assert (done.returncode, "there is no gone/" in done.stderr) == (2, True), done


def test_explain_tells_what_each_line_has_to_do_with_it(site: Path) -> None:
    done = run(site, "explain", "--capability", "notes.write", "--principal", "mallory")
    assert done.returncode == 1
    assert done.stdout.startswith("denied (capability_denied): no line of the policy 'house' allows notes.write\n")
    assert 'principals = ["alice", "bob"] does not name \'mallory\'' in done.stdout
    data = told(site, "explain", *READ)
    assert data["allowed"]
    assert [(one["line"], one["kind"], one["matches"]) for one in data["lines"]] == [
        (5, "grant", True),
        (10, "grant", True),
        (17, "denial", False),
    ]


@pytest.mark.parametrize(
    "wrong",
    [(), ("--argument", "x"), ("--capability", "a", "--argument", "x"), ("--record", "1"), ("--bytes", "-1")],
)
def test_wrong_usage_is_told(site: Path, wrong: tuple[str, ...]) -> None:
    done = run(site, "explain", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_is_told(site: Path) -> None:
    for command in ("show", "check", "simulate", "explain"):
        done = run(site, command, *(() if command in {"show", "check"} else READ), file="none.toml")
        assert (done.returncode, done.stdout) == (2, "")
        assert "none.toml: cannot be read" in done.stderr


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls of alice: two that the policy allows, three that it does not; and one that was denied, and would not be."""
    folder = tmp_path_factory.mktemp("trail") / "audit"

    async def work() -> None:
        audit = open_audit(folder, AuditSettings())
        call = Record("call", "accepted", principal="alice", environment="default", capability="notes.read")
        for path in ("own/1", "public/1", "other/1", "other/1"):
            await audit.append(call._replace(arguments={"path": path}))
        await audit.append(call._replace(arguments={"path": {"bytes": 900}}, principal="bob"))
        await audit.append(call._replace(outcome="begun", arguments={"path": "other/1"}))
        denied = call._replace(outcome="denied", code="capability_denied", arguments={"path": "own/1"})
        await audit.append(denied)
        await audit.append(call._replace(capability="nothing.read"))
        for path, code in (("other/1", "path_refused"), ("own/1", "path_refused"), ("own/1", "capability_throttled")):
            await audit.append(denied._replace(code=code, arguments={"path": path}))
        await audit.close()

    asyncio.run(work())
    return folder


def test_simulate_tells_which_recorded_calls_would_end_otherwise(site: Path, trail: Path) -> None:
    data = told(site, "simulate", "--audit", trail)
    assert data["calls"] == 10
    changes = {(one["capability"], one["was"], one["would"], one["code"]): one["calls"] for one in data["changes"]}
    assert changes == {
        ("notes.read", "allowed", "denied", "path_refused"): 2,
        ("notes.read", "denied (capability_denied)", "allowed", ""): 1,
        ("nothing.read", "allowed", "denied", "capability_unknown"): 1,
    }
    done = run(site, "simulate", "--audit", trail)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("10 calls, of which 4 would end otherwise\n")


def test_explain_takes_a_recorded_call(site: Path, trail: Path) -> None:
    done = run(site, "explain", "--audit", trail, "--record", "4")
    assert done.returncode == 1
    assert "other/1 is not below public/" in done.stdout
    done = run(site, "explain", "--audit", trail, "--record", "99")
    assert done.returncode == 2
    assert "there is no call with the number 99" in done.stderr


def test_the_program_does_the_same(site: Path) -> None:
    called = [str(CAPSULE), "policy", "simulate", "policy.toml", "--provider", "acme_notes", *READ]
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(called, cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("allowed: line 5: ")


def test_without_a_file_it_is_that_of_the_configuration(site: Path, tmp_path: Path) -> None:
    (tmp_path / "capsule.toml").write_text(
        f'[broker]\npolicy = "{site}/policy.toml"\nproviders = ["acme_notes"]\n', encoding="utf-8"
    )
    done = invoke(tmp_path, "policy", "simulate", *READ)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "allowed")
    done = invoke(site, "policy", "check", "--config", str(tmp_path / "capsule.toml"))
    assert done.stdout == f"{site}/policy.toml: nothing is wrong\n"
    done = invoke(site, "policy", "check")
    assert done.returncode == 2
    assert "Name a policy: FILE, or `policy` in [broker]" in done.stderr


SECRETS = """\
version = 1

[[grants]]
name = "web"
capabilities = ["http.fetch"]
scope.allow = [
    { host = "a.example", secrets.headers.Authorization = "Bearer secret://known" },
    { host = "b.example", secrets.headers.X-Key = "secret://knwon" },
    { host = "c.example", secrets.query.key = "secret://knwon" },
]

[[grants]]
name = "more"
capabilities = ["http.*", "notes.read"]
scope.notes.below = "secret://known.too"
scope.http.allow = [{ host = "d.example", secrets.query.key = "secret://known" }]
"""


def test_check_tells_of_secrets_that_the_configuration_does_not_have(site: Path) -> None:
    (site / "secrets.toml").write_text(SECRETS)
    (site / "node.toml").write_text('[broker.secrets]\nknown = "env:NOT_SET_HERE"\n')
    done = run(site, "check", "--config", "node.toml", file="secrets.toml")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == (
        "capsule policy check: secrets.toml:8: grants.web.scope.allow.1.secrets.headers.X-Key: "
        "names the secret 'knwon', which the configuration does not have; did you mean 'known'?; allowed: known"
    )
    assert second.startswith("capsule policy check: secrets.toml:15: grants.more.scope.notes.below: names the secret")
    done = run(site, "check", "--json", file="secrets.toml")
    assert done.returncode == 2
    told = [(one["line"], one["allowed"]) for one in json.loads(done.stdout)["complaints"]]
    assert told == [(line, "one of [broker.secrets]") for line in (7, 8, 15, 16)]
    assert run(site, "show", file="secrets.toml").returncode == 0


def test_check_finds_nothing_wrong_with_secrets_that_are_there(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "secrets.toml").write_text(SECRETS)
    monkeypatch.setenv("CAPSULE_BROKER__SECRETS", json.dumps(dict.fromkeys(("known", "knwon", "known.too"), "env:X")))
    done = run(site, "check", file="secrets.toml")
    assert (done.returncode, done.stderr) == (0, "")


def test_check_tells_of_secrets_beside_what_else_is_wrong(site: Path) -> None:
    (site / "secrets.toml").write_text(SECRETS.replace("below", "belwo"))
    complaints = json.loads(run(site, "check", "--json", file="secrets.toml").stdout)["complaints"]
    assert [one["line"] for one in complaints] == [7, 8, 15, 15, 15, 16]
    assert [one["line"] for one in complaints if "the secret 'known.too'" in one["message"]] == [15]
