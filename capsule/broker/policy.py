"""A policy: which calls are allowed, to whom, in which bounds, and by which line. Immutable; nothing is by default."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, get_args

from capsule.broker.packs import DEFAULT_PACK, PACKS
from capsule.broker.patterns import EVERYTHING, Names, bits, covers
from capsule.broker.policy_file import Head, read
from capsule.settings.environments import Sandbox
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from capsule.broker.grants import Denial, DenialTable, Grant, Granted, GrantTable
    from capsule.broker.packs import AuditSettings, BudgetSettings
    from capsule.broker.sdk import Descriptor
    from capsule.settings.environments import EnvironmentConfig

VERSION = 1
"""Of the form of files."""
REMEMBERED = 4096
"""Decisions that are remembered."""


class Query(NamedTuple):
    """What may be asked of a policy. `session` is the session's name, "" without one."""

    capability: str
    principal: str
    environment: str
    session: str


class Decision(NamedTuple):
    """What a policy says: the grants that allow it in the order of the file, and in `why` the line that counts."""

    allowed: bool
    grants: tuple[Grant, ...]
    why: str
    line: int
    query: Query


class Rules:
    """The tables of one kind, in the order of the file, indexed."""

    def __init__(self, tables: Sequence[GrantTable | DenialTable], capabilities: Iterable[str]) -> None:
        self._capabilities: dict[str, int] = {}
        for capability in capabilities:
            named = (EVERYTHING, capability, f"{capability.partition('.')[0]}.*")
            matching = (
                1 << number for number, table in enumerate(tables) if not set(named).isdisjoint(table.capabilities)
            )
            self._capabilities[capability] = sum(matching)
        self.principals = Names(table.principals for table in tables)
        self.environments = Names(table.environments for table in tables)
        self.sessions = Names(table.sessions for table in tables)

    def matching(self, query: Query) -> int:
        """The rules that match, as a set of numbers."""
        mask = self._capabilities.get(query.capability, 0)
        mask = mask and mask & self.principals.naming(query.principal)
        mask = mask and mask & self.environments.naming(query.environment)
        return mask and mask & self.sessions.naming(query.session)


class Policy:
    """A compiled policy."""

    version = VERSION

    def __init__(
        self,
        head: Head,
        granted: Sequence[Granted] = (),
        denials: Sequence[Denial] = (),
        descriptors: Mapping[str, Descriptor] | None = None,
    ) -> None:
        self.name, self.digest, self.mode, self.pack, self.pack_name = head
        self.sandbox = self.pack.sandbox
        self.rules, self.denials = tuple(granted), tuple(denials)
        self.operations = tuple(
            f"{name}.{operation}"
            for name, descriptor in (descriptors or {}).items()
            for operation in descriptor.operations
        )
        self._grants = Rules([rule.table for rule in self.rules], self.operations)
        self._denied = Rules([rule.table for rule in self.denials], self.operations)
        self.decide: Callable[[Query], Decision] = lru_cache(REMEMBERED)(self.search)
        self._candidates = lru_cache(REMEMBERED)(self._pick)

    @property
    def budget(self) -> BudgetSettings:
        """How many calls may fail."""
        return self.pack.budget

    @property
    def audit(self) -> AuditSettings:
        """How the audit trail is written."""
        return self.pack.audit

    def search(self, query: Query) -> Decision:
        """Whether a call is allowed, before anything is known of its arguments; `decide` remembers."""
        denied = self._denied.matching(query)
        if denied:
            denial = self.denials[next(bits(denied))]
            reason = f": {denial.table.reason}" if denial.table.reason else ""
            why = f"line {denial.line}: the denial {denial.table.name!r} forbids {query.capability}{reason}"
            return Decision(allowed=False, grants=(), why=why, line=denial.line, query=query)
        provider = query.capability.partition(".")[0]
        found = self._candidates(self._grants.matching(query), provider)
        if not found:
            why = f"no line of the policy {self.name!r} allows {query.capability}"
            return Decision(allowed=False, grants=(), why=why, line=0, query=query)
        why = f"line {found[0].line}: the grant {found[0].name!r} allows {query.capability}"
        return Decision(allowed=True, grants=found, why=why, line=found[0].line, query=query)

    def _pick(self, mask: int, provider: str) -> tuple[Grant, ...]:
        return tuple(self.rules[number].by_provider[provider] for number in bits(mask))

    def granted(self, principal: str, environment: str, session: str) -> tuple[str, ...]:
        """The operations that are allowed, by name."""
        queries = (Query(operation, principal, environment, session) for operation in self.operations)
        return tuple(query.capability for query in queries if self.decide(query).allowed)


def narrow(decision: Decision, patterns: Sequence[str] | None) -> Decision:
    """The same within what a session itself wants to have: patterns like `files.*`. None: all that is granted."""
    if patterns is None or not decision.allowed:
        return decision
    capability = decision.query.capability
    if any(covers(pattern, capability) for pattern in patterns):
        return decision
    wanted = ", ".join(patterns) or "none at all"
    why = f"the session was opened with other capabilities only ({wanted[:200]}), and {capability} is not among them"
    return Decision(allowed=False, grants=(), why=why, line=0, query=decision.query)


def load(
    path: str | os.PathLike[str], descriptors: Mapping[str, Descriptor], secrets: Collection[str] | None = None
) -> Policy:
    """The policy of this file, for these providers. Raises ArgumentError `policy_refused`.

    Its `details` have the `line` of the first thing that is wrong, and in `complaints` all of them. With the names of
    a node's `secrets`, it may name no others; else providers look when they are asked whether they can serve a scope.
    """
    head, granted, denials = read(path, descriptors, secrets)
    return Policy(head, granted, denials, descriptors)


def empty() -> Policy:
    """The policy of a node that has none: it denies everything, and asks for no sandbox."""
    pack = PACKS[DEFAULT_PACK].model_copy(update={"sandbox": "none"})
    return Policy(Head("empty", "", "enforce", pack, DEFAULT_PACK))


def check_sandbox(policy: Policy, name: str, environment: EnvironmentConfig) -> None:
    """A policy is worth what keeps the code from going around it. Raises ArgumentError `policy_refused`."""
    levels = get_args(Sandbox)
    if levels.index(environment.sandbox) < levels.index(policy.sandbox):
        text = f"the policy {policy.name!r} needs at least {policy.sandbox!r}, and this one has {environment.sandbox!r}"
        enough = ", ".join(map(repr, levels[levels.index(policy.sandbox) :]))
        hint = "`capsule doctor` tells which can be had; or `sandbox = ...` of the policy asks for less"
        raise ArgumentError(f"environments.{name}.sandbox", f"{text}. {hint}", allowed=enough, code="policy_refused")
