"""From the tables of a file to grants: capabilities that exist, scopes that their providers understand, bounded limits.

What is wrong is collected, so that all of it can be told.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from capsule.broker.consent import REQUEST_BYTES, Above, Approval
from capsule.broker.grants import Denial, Grant, Granted
from capsule.broker.limits import NONE, exceeds
from capsule.broker.patterns import EVERYTHING, covers
from capsule.broker.shapes import Shape
from capsule.settings.complaints import Complaint, complaints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.broker.consent import Rule
    from capsule.broker.grants import DenialTable, GrantTable
    from capsule.broker.limits import LimitsTable
    from capsule.broker.sdk import Descriptor, ScopeSchema


class Compiler:
    """Makes grants and denials for these providers; `wrong` is what was found."""

    def __init__(
        self, ceiling: LimitsTable, approval: Rule, approval_timeout: float, descriptors: Mapping[str, Descriptor]
    ) -> None:
        self.wrong: list[Complaint] = []
        self._ceiling = ceiling
        self._approval, self._timeout = approval, approval_timeout
        self._descriptors = descriptors
        self._names: dict[tuple[str, str], int] = {}
        self._operations = {
            f"{name}.{operation}": shape
            for name, descriptor in descriptors.items()
            for operation, shape in descriptor.operations.items()
        }

    def grant(self, number: int, table: GrantTable, line: int) -> Granted:
        """A grant, for each provider that its capabilities are of."""
        path = ("grants", str(number))
        self._named(path, table.name, line)
        covered = self._covered(path, table.capabilities)
        self._within_ceiling(path, table.limits)
        approval = self._approve(path, table, covered)
        limits = {name: getattr(table.limits, name) for name in table.limits.model_fields_set}
        made = {
            provider: Grant(table.name, line, scope, limits, self._ceiling, approval, frozenset(covered))
            for provider, scope in self._scopes(path, table, covered).items()
        }
        return Granted(table, line, made)

    def denial(self, number: int, table: DenialTable, line: int) -> Denial:
        """A denial. What it names must exist too: a slip in it would let through what it was to stop."""
        path = ("denials", str(number))
        self._named(path, table.name, line)
        self._covered(path, table.capabilities)
        return Denial(table, line)

    def _tell(self, path: tuple[str, ...], message: str, allowed: str) -> None:
        self.wrong.append(Complaint(path, message, allowed, "policy_refused"))

    def _named(self, path: tuple[str, ...], name: str, line: int) -> None:
        before = self._names.setdefault((path[0], name), line)
        if before != line:
            self._tell((*path, "name"), f"is {name!r}, as in line {before}", "a name that no other has")

    def _covered(self, path: tuple[str, ...], patterns: tuple[str, ...]) -> list[str]:
        """The operations that some of these patterns cover."""
        for pattern in patterns:
            if not any(covers(pattern, operation) for operation in self._operations) and pattern != EVERYTHING:
                known = sorted({*self._operations, *(f"{name}.*" for name in self._descriptors), EVERYTHING})
                close = difflib.get_close_matches(pattern, known, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else ""
                message = f"names {pattern!r}, which no provider of this node has{meant}"
                self._tell((*path, "capabilities"), message, ", ".join(known))
        return [one for one in self._operations if any(covers(pattern, one) for pattern in patterns)]

    def _within_ceiling(self, path: tuple[str, ...], limits: LimitsTable) -> None:
        for name in sorted(limits.model_fields_set):
            value, ceiling = getattr(limits, name), getattr(self._ceiling, name)
            if exceeds(value, ceiling):
                shown = NONE if value is None else f"{value:g}"
                message = f"is {shown}, above the ceiling of the policy"
                self._tell((*path, "limits", name), message, f"at most {ceiling:g}, or a higher [ceiling]")

    def _approve(self, path: tuple[str, ...], table: GrantTable, covered: list[str]) -> Approval:
        rule = self._approval if table.approval is None else table.approval
        timeout = self._timeout if table.approval_timeout is None else table.approval_timeout
        if not isinstance(rule, Above):
            return Approval(rule, timeout=timeout)
        for name, _ in rule.bounds:
            without = next((one for one in covered if name not in self._numbers(one)), None)
            if without is not None:
                allowed = ", ".join(sorted(self._numbers(without)))
                self._tell((*path, "approval"), f"{name!r} is no number in a request of {without}", allowed)
        return Approval("above", rule.bounds, timeout)

    def _numbers(self, operation: str) -> set[str]:
        """What an approval of this operation may depend on."""
        shape = Shape.of(self._operations[operation].request.model_json_schema(by_alias=False))
        return {REQUEST_BYTES, *(name for name in shape.names if shape.field(name).is_number)}

    def _scopes(self, path: tuple[str, ...], table: GrantTable, covered: list[str]) -> dict[str, ScopeSchema]:
        """The scope for each provider. Those of several are in a table for each."""
        providers = list(dict.fromkeys(one.partition(".")[0] for one in covered))
        named = {pattern.partition(".")[0] for pattern in table.capabilities}
        if len(named) == 1 and EVERYTHING not in named:
            found = {name: self._scope((*path, "scope"), name, table.scope) for name in providers}
        else:
            for name in sorted(table.scope.keys() - set(providers)):
                message = "is for no provider of these capabilities, of which there are several"
                self._tell((*path, "scope", name), message, "a table for each of " + ", ".join(providers))
            found = {name: self._scope((*path, "scope", name), name, table.scope.get(name, {})) for name in providers}
        return {name: scope for name, scope in found.items() if scope is not None}

    def _scope(self, path: tuple[str, ...], provider: str, given: Any) -> ScopeSchema | None:
        schema = self._descriptors[provider].scope
        try:
            return schema.model_validate(given)
        except ValidationError as error:
            for one in complaints(schema, error):
                self._tell((*path, *one.path), one.message, one.allowed)
            return None
