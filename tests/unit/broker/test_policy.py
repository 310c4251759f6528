"""What a policy allows, and by which line."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capsule.broker.consent import Approval
from capsule.broker.patterns import Names, bits
from capsule.broker.policy import Decision, Policy, empty, narrow
from tests.unit.broker.shapes import DESCRIPTORS, FILES, FilesScope, ReadRequest, Root, ask, policy

ALL = [f"{name}.{operation}" for name, descriptor in DESCRIPTORS.items() for operation in descriptor.operations]

PLAIN = """
version = 1
name = "plain"

[[grants]]
name = "data"
capabilities = ["files.read", "files.list"]
scope.roots.data = { path = "/srv/data" }
limits = { timeout = 5, concurrent = 3 }

[[grants]]
name = "team"
capabilities = ["files.*"]
principals = ["team-*", "bob"]
environments = ["science"]
sessions = ["report-[0-9]"]
approval = { above = { request_bytes = 1000 } }
approval_timeout = 7
[grants.scope.roots.out]
path = "/srv/out"
mode = "rw"

[[denials]]
name = "never-mallory"
capabilities = ["*"]
principals = ["mallory"]
reason = "left the house"
"""


@pytest.fixture
def plain(tmp_path: Path) -> Policy:
    return policy(tmp_path, PLAIN)


def test_a_grant_allows_what_it_names_and_its_line_is_told(plain: Policy) -> None:
    decision = plain.decide(ask("files.read"))
    assert decision.allowed
    assert decision.line == 4
    assert decision.why == "line 4: the grant 'data' allows files.read"
    (grant,) = decision.grants
    assert (grant.name, grant.line) == ("data", 4)
    assert grant.scope == FilesScope(roots={"data": Root(path="/srv/data")})


def test_nothing_else_is_allowed(plain: Policy) -> None:
    for capability in (
        "files.write",
        "http.fetch",
        "system.time",
        "files.none",
        "none.none",
        "",
        "files",
        "files.*",
        "*",
    ):
        decision = plain.decide(ask(capability))
        assert not decision.allowed
        assert decision.grants == ()
        assert decision.line == 0
        assert "no line of the policy 'plain' allows" in decision.why


def test_all_of_principal_environment_and_session_must_match(plain: Policy) -> None:
    for principal in ("team-a", "team-", "bob", "alice", "teams"):
        for environment in ("science", "default"):
            for session in ("report-1", "report-x", ""):
                fits = principal in {"team-a", "team-", "bob"} and environment == "science" and session == "report-1"
                assert plain.decide(ask("files.write", principal, environment, session)).allowed == fits


def test_candidates_are_in_the_order_of_the_file(plain: Policy) -> None:
    decision = plain.decide(ask("files.read", "bob", "science", "report-1"))
    assert [grant.name for grant in decision.grants] == ["data", "team"]
    assert decision.line == 4


def test_a_denial_wins_and_says_why(plain: Policy) -> None:
    decision = plain.decide(ask("files.read", "mallory"))
    assert not decision.allowed
    assert decision.grants == ()
    assert decision.line == 22
    assert decision.why == "line 22: the denial 'never-mallory' forbids files.read: left the house"


def test_what_is_granted_can_be_listed(plain: Policy) -> None:
    assert plain.granted("alice", "default", "") == ("files.read", "files.list")
    assert plain.granted("bob", "science", "report-1") == ("files.read", "files.list", "files.write")
    assert plain.granted("mallory", "default", "") == ()


def test_the_empty_policy_denies_everything() -> None:
    for capability in ALL:
        assert not empty().decide(ask(capability)).allowed
    assert empty().granted("alice", "default", "") == ()


def test_a_session_can_only_narrow(plain: Policy) -> None:
    allowed, denied = plain.decide(ask("files.read")), plain.decide(ask("files.write"))
    assert narrow(allowed, None) is allowed
    assert narrow(allowed, ("files.*",)) is allowed
    assert narrow(allowed, ("*",)) is allowed
    assert narrow(denied, ("*",)) is denied
    for patterns in ((), ("files.list",), ("http.*",), ("file*",), ("files.rea?",)):
        narrowed = narrow(allowed, patterns)
        assert not narrowed.allowed
        assert narrowed.grants == ()
        assert "files.read is not among them" in narrowed.why


def test_limits_are_those_of_the_grant_else_of_the_operation_below_the_ceiling(plain: Policy) -> None:
    (grant,) = plain.decide(ask("files.read")).grants
    limits = grant.limits_for(FILES.operations["read"])
    assert (limits.timeout, limits.concurrent) == (5.0, 3)
    assert limits.response_bytes == 2**28  # the operation's own
    assert limits.per_second == 500  # the operation has none, so the ceiling of the pack


def test_an_approval_can_depend_on_the_call(plain: Policy) -> None:
    (grant,) = plain.decide(ask("files.write", "bob", "science", "report-1")).grants
    assert grant.approval.timeout == 7
    assert not grant.approval.needed(None, 1000)
    assert grant.approval.needed(None, 1001) == "request_bytes is 1001, and above 1000"
    assert grant.approval.needed(None, None) == "request_bytes is without a bound, and above 1000"


@pytest.mark.parametrize(
    ("rule", "approved", "why"),
    [
        (Approval("never"), False, ""),
        (Approval("always"), True, "each call needs one"),
        (Approval("first"), False, "it is the first call under this grant"),
        (Approval("first"), True, ""),
        (Approval("above", (("length", 5.0),)), True, "length is without a bound, and above 5"),
        (Approval("above", (("offset", 5.0),)), False, ""),
        (Approval("above", (("offset", -1.0), ("request_bytes", 10))), False, "offset is 0, and above -1"),
        (Approval("above", (("offset", float("nan")),)), False, "offset is 0, and above nan"),
        (Approval("above", (("path", 5.0),)), False, "path is x, and above 5"),  # nobody had looked at it
    ],
)
def test_when_an_approval_is_needed(rule: Approval, approved: bool, why: str) -> None:
    assert rule.needed(ReadRequest(path="x"), 5, approved=approved) == why


# Masks


TEXT = st.text("ab-*?[]!", max_size=5)


SLOWLY = [HealthCheck.too_slow]  # beside other work


@settings(max_examples=500, deadline=None, suppress_health_check=SLOWLY)
@given(st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=12), st.text("ab-*\n", max_size=6))
def test_an_indexed_pattern_matches_as_one_that_is_tried(rows: list[list[str]], value: str) -> None:
    expected = [
        number for number, patterns in enumerate(rows) if any(fnmatchcase(value, pattern) for pattern in patterns)
    ]
    assert list(bits(Names(rows).search(value))) == expected


RULE = st.tuples(
    st.lists(st.sampled_from([*ALL, "files.*", "http.*", "*"]), min_size=1, max_size=2),
    st.lists(st.sampled_from(["*", "a", "b*", "*c", "[ab]?"]), min_size=1, max_size=2),
    st.lists(st.sampled_from(["*", "e", "f"]), min_size=1, max_size=1),
    st.lists(st.sampled_from(["*", "s-*", ""]).filter(bool), min_size=1, max_size=1),
)


def _table(kind: str, number: int, rule: tuple[list[str], ...]) -> str:
    capabilities, principals, environments, sessions = rule
    scope = {"files": '{ roots = { r = { path = "/" } } }'}
    named = {one.partition(".")[0] for one in capabilities}
    single = named == {"files"}
    written = f"scope = {scope['files']}" if single else f"scope.files = {scope['files']}"
    wants = "*" in named or "files" in named
    lines = [f"[[{kind}]]", f'name = "n{number}"', f"capabilities = {capabilities}", f"principals = {principals}"]
    lines += [f"environments = {environments}", f"sessions = {sessions}"]
    return "\n".join([*lines, *([written] if kind == "grants" and wants else []), ""])


def _plainly(rule: tuple[list[str], ...], query: tuple[str, ...]) -> bool:
    capability = any(pattern in {"*", query[0]} or pattern == query[0].split(".")[0] + ".*" for pattern in rule[0])
    return capability and all(
        any(fnmatchcase(value, pattern) for pattern in patterns)
        for patterns, value in zip(rule[1:], query[1:], strict=True)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=SLOWLY)
@given(st.lists(RULE, max_size=6), st.lists(RULE, max_size=3))
def test_decisions_are_those_of_the_plain_reading(
    tmp_path_factory: pytest.TempPathFactory, grants: list[tuple[list[str], ...]], denials: list[tuple[list[str], ...]]
) -> None:
    text = "version = 1\n" + "".join(_table("grants", number, rule) for number, rule in enumerate(grants))
    text += "".join(_table("denials", number, rule) for number, rule in enumerate(denials))
    compiled = policy(tmp_path_factory.mktemp("policy"), text)
    for capability in ALL:
        for principal in ("a", "bx", "xc", "ab", "z"):
            for environment, session in (("e", ""), ("f", "s-1"), ("g", "t")):
                query = ask(capability, principal, environment, session)
                found = [f"n{number}" for number, rule in enumerate(grants) if _plainly(rule, query)]
                if any(_plainly(rule, query) for rule in denials):
                    found = []
                decision: Decision = compiled.decide(query)
                assert [grant.name for grant in decision.grants] == found
                assert decision.allowed == bool(found)
