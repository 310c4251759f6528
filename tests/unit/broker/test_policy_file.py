"""A file that is no policy is refused, with the line and what is allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsule.broker.packs import PACKS
from capsule.broker.policy import load
from capsule_protocol.errors import ArgumentError
from tests.unit.broker.shapes import DESCRIPTORS, FILES, ask, policy

HEAD = 'version = 1\nname = "p"\n'
GRANT = '[[grants]]\nname = "g"\ncapabilities = ["files.read"]\nscope.roots.data = { path = "/srv" }\n'
"""From line 3 on, when it follows HEAD."""

WRONG = [
    ("", 1, "version: is missing"),
    ("version = 2\n", 1, "version"),
    ("version = 1\nnmae = 'x'\n", 2, "did you mean 'name'"),
    (HEAD + 'pack = "strikt"\n', 3, "'strict'"),
    (HEAD + 'mode = "off"\n', 3, "'enforce' or 'observe'"),
    (HEAD + 'sandbox = "chroot"\n', 3, "'namespaces'"),
    (HEAD + "[budget]\nfaults = 0\n", 4, "budget.faults"),
    (HEAD + "[budget]\nwarn = 90\n", 3, "warn ≤ throttle ≤ isolate"),
    (HEAD + "[audit]\nlevel = 'none'\n", 4, "'power' or 'process'"),
    (HEAD + GRANT + "limits.timeout = 0\n", 7, "grants.g.limits.timeout"),
    (HEAD + GRANT + "limits.timeuot = 1\n", 7, "did you mean 'timeout'"),
    (HEAD + GRANT + "limits.timeout = 601\n", 7, "at most 600, or a higher [ceiling]"),
    (HEAD + GRANT + 'limits.timeout = "none"\n', 7, "is none, above the ceiling"),
    (HEAD + GRANT + 'approval = "sometimes"\n', 7, "'never', 'always', 'first'"),
    (HEAD + GRANT + "approval = { above = { size = 1 } }\n", 7, "allowed: length, offset, request_bytes"),
    (HEAD + GRANT + "approval = { above = { path = 1 } }\n", 7, "no number in a request of files.read"),
    (HEAD + GRANT + "approval = { above = {} }\n", 7, "'never', 'always', 'first'"),
    (HEAD + GRANT + "approval = { above = { offset = true } }\n", 7, "'never', 'always', 'first'"),
    (HEAD + GRANT + "approval_timeout = -1\n", 7, "grants.g.approval_timeout"),
    (HEAD + GRANT + "principals = []\n", 7, "grants.g.principals"),
    (HEAD + GRANT + 'principals = ""\n', 7, "a list of str"),
    (HEAD + GRANT + "[[grants]]\n", 7, "is missing"),
    (HEAD + GRANT + GRANT, 8, "is 'g', as in line 3"),
    (HEAD + '[[grants]]\nname = "g"\ncapabilities = ["files.raed"]\n', 5, "did you mean 'files.read'"),
    (HEAD + '[[grants]]\nname = "g"\ncapabilities = ["ftp.*"]\n', 5, "which no provider of this node has"),
    (HEAD + '[[grants]]\nname = "g"\ncapabilities = ["files.r*"]\n', 5, "grants.g.capabilities.0"),
    (HEAD + '[[denials]]\nname = "d"\ncapabilities = ["files.raed"]\n', 5, "did you mean 'files.read'"),
    (HEAD + '[[grants]]\nname = "g"\ncapabilities = ["files.read"]\n', 3, "grants.g.scope.roots: is missing"),
    (HEAD + GRANT.replace("path", "paht"), 6, "did you mean 'path'"),
    (HEAD + GRANT.replace('"/srv"', '"/srv", mode = "wr"'), 6, "'ro' or 'rw'"),
    (HEAD + '[[grants]]\nname = "g"\ncapabilities = ["*"]\nscope.roots = {}\n', 6, "there are several"),
    ("version = 1\nname = \n", 2, "is not TOML"),
    ("version = 1\n" + "a = " + "[" * 20_000, 0, "is not TOML"),
]


@pytest.mark.parametrize(("text", "line", "told"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        policy(tmp_path, text)
    error = caught.value
    assert error.code == "policy_refused"
    assert error.details["line"] == line
    everything = [
        f"{one['option']}: {one['message']}; allowed: {one['allowed']}" for one in error.details["complaints"]
    ]
    assert told in "\n".join(everything)
    assert (f"policy.toml:{line}: " if line else "policy.toml: ") in error.message


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="and 2 more") as caught:
        policy(tmp_path, HEAD + GRANT + "a = 1\nb = 2\n" + GRANT + "c = 3\n")
    assert [one["line"] for one in caught.value.details["complaints"]] == [7, 8, 13]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(ArgumentError, match="cannot be read") as caught:
            load(path, DESCRIPTORS)
        assert caught.value.code == "policy_refused"


def test_a_file_that_anybody_can_write_is_refused(tmp_path: Path) -> None:
    policy(tmp_path, HEAD)
    (tmp_path / "policy.toml").chmod(0o646)
    with pytest.raises(ArgumentError, match="can be written by anybody") as caught:
        load(tmp_path / "policy.toml", DESCRIPTORS)
    assert caught.value.code == "policy_refused"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is too large"):
        policy(tmp_path, HEAD + "#" * 8 * 2**20)


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b'version = 1\nname = "\xff"\n')
    with pytest.raises(ArgumentError, match="is not TOML") as caught:
        load(tmp_path / "p.toml", DESCRIPTORS)
    assert caught.value.code == "policy_refused"


def test_without_a_name_it_is_called_as_its_file(tmp_path: Path) -> None:
    assert policy(tmp_path, "version = 1").name == "policy"


def test_its_digest_is_of_the_file(tmp_path: Path) -> None:
    one, same, other = (policy(tmp_path, text).digest for text in (HEAD, HEAD, HEAD + "# note\n"))
    assert one == same != other


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_is_where_a_policy_starts(tmp_path: Path, pack: Any) -> None:
    plain = policy(tmp_path, f'version = 1\npack = "{pack}"\n')
    assert plain.pack == PACKS[pack]
    assert (plain.sandbox, plain.budget, plain.audit) == (PACKS[pack].sandbox, PACKS[pack].budget, PACKS[pack].audit)


def test_every_value_of_a_pack_can_be_overridden(tmp_path: Path) -> None:
    text = """
    version = 1
    pack = "hardcore"
    sandbox = "landlock"
    approval = "never"
    approval_timeout = 1
    [ceiling]
    timeout = 99
    per_second = "none"
    [budget]
    faults = 7
    [audit]
    on_failure = "continue"
    [[grants]]
    name = "g"
    capabilities = ["files.write"]
    scope.roots.r.path = "/"
    limits = { timeout = 98, per_second = "none" }
    """
    changed, pack = policy(tmp_path, text), PACKS["hardcore"]
    (grant,) = changed.decide(ask("files.write")).grants
    limits = grant.limits_for(FILES.operations["write"])
    assert (limits.timeout, limits.per_second, limits.concurrent) == (98, None, 2)
    assert (grant.approval.rule, grant.approval.timeout) == ("never", 1)
    assert changed.sandbox == "landlock"
    assert changed.budget == pack.budget.model_copy(update={"faults": 7})
    assert changed.audit == pack.audit.model_copy(update={"on_failure": "continue"})
    assert changed.pack.ceiling == pack.ceiling.model_copy(update={"timeout": 99, "per_second": None})


BOUNDS = [
    ("[budget]\nfaults", ("1", "100_000"), ("0", "100_001")),
    ("[budget]\nwarn", ("0.5",), ("0",)),
    ("[budget]\nisolate", ("100",), ("100.5",)),
    ("[budget]\ndelay", ("0", "60"), ("-0.5", "60.5")),
    ("[audit]\nfile_bytes", ("65_536", "1_099_511_627_776"), ("65_535", "1_099_511_627_777")),
    ("[audit]\nkeep_files", ("1", "100_000"), ("0", "100_001")),
    ("[audit]\nanchor_every", ("1", "1_000_000"), ("0", "1_000_001")),
]


@pytest.mark.parametrize(("key", "within", "beyond"), BOUNDS, ids=[key.split()[-1] for key, _, _ in BOUNDS])
def test_what_a_value_of_a_pack_can_become_has_bounds(
    tmp_path: Path, key: str, within: tuple[str, ...], beyond: tuple[str, ...]
) -> None:
    for value in within:
        policy(tmp_path, HEAD + f"{key} = {value}\n")
    for value in beyond:
        with pytest.raises(ArgumentError) as caught:
            policy(tmp_path, HEAD + f"{key} = {value}\n")
        assert (caught.value.code, caught.value.details["line"]) == ("policy_refused", 4)


def test_a_grant_of_several_providers_has_a_scope_for_each(tmp_path: Path) -> None:
    text = (
        HEAD
        + '[[grants]]\nname = "g"\ncapabilities = ["*"]\n[grants.scope]\nfiles.roots.r.path = "/"\nhttp.hosts = ["h"]\n'
    )
    found = policy(tmp_path, text)
    scopes = [found.decide(ask(one)).grants[0].scope for one in ("files.read", "http.fetch", "system.time")]
    assert [type(scope) for scope in scopes] == [DESCRIPTORS[one].scope for one in ("files", "http", "system")]


def test_a_pack_below_its_sandbox_has_to_be_asked_for() -> None:
    assert {name: pack.sandbox for name, pack in PACKS.items()} == {
        "strict": "landlock",
        "balanced": "landlock",
        "perf": "landlock",
        "hardcore": "namespaces",
    }


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "1e400", "nan", "true", '"*"', '"none"', '"files.*"', "1979-05-27"]),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda found: f"[{', '.join(found)}]")
        | inner.map(lambda value: f"{{ path = {value} }}")
        | inner.map(lambda value: f"{{ above = {value} }}")
    ),
    max_leaves=3,
)
KEYS = ["version", "name", "pack", "mode", "sandbox", "approval", "approval_timeout", "limits", "scope", "capabilities"]
KEYS += ["budget", "audit", "ceiling", "principals", "timeout", "faults", "roots", "grants", "denials", "x"]
LINES = st.one_of(
    st.tuples(st.sampled_from(KEYS), VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.sampled_from(
        ["[[grants]]", "[[denials]]", "[budget]", "[audit]", "[ceiling]", "[grants.scope]", "[grants.limits]"]
    ),
    st.text(max_size=8),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LINES, max_size=8).map("\n".join))
def test_garbage_is_refused_or_is_a_policy(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbage"
    folder.mkdir(exist_ok=True)
    file = folder / f"p-{os.getpid()}.toml"
    file.write_bytes(("version = 1\n" + text).encode("utf-8", "surrogatepass"))
    refused = None
    try:
        load(file, DESCRIPTORS)
    except ArgumentError as error:
        refused = error
    assert refused is None or (refused.code == "policy_refused" and refused.details["complaints"])
