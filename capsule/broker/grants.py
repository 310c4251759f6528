"""Grants and denials: as they stand in the file of a policy, and compiled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from capsule.broker.consent import Rule
from capsule.broker.limits import LimitsTable, effective
from capsule.settings.base import Config, Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.broker.consent import Approval
    from capsule.broker.sdk import Limits, Operation, ScopeSchema

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=1000)]


def _capability(value: str) -> str:
    if re.fullmatch(r"\*|[a-z][a-z0-9_]{0,50}\.([a-z][a-z0-9_]{0,50}|\*)", value):
        return value
    allowed = "'PROVIDER.OPERATION', 'PROVIDER.*' or '*'"
    raise PydanticCustomError("contradiction", "{text}", {"text": f"is {value[:80]!r}", "expected": allowed})


Capability = Annotated[str, AfterValidator(_capability)]
Capabilities = Annotated[tuple[Capability, ...], Field(min_length=1, max_length=1000)]


class DenialTable(Config):
    """A table `[[denials]]`: what it matches is denied, whatever is granted. `reason` is told to the code."""

    name: Name
    capabilities: Capabilities
    principals: Patterns = ("*",)
    environments: Patterns = ("*",)
    sessions: Patterns = ("*",)
    reason: Annotated[str, Field(max_length=500)] = ""


class GrantTable(Config):
    """A table `[[grants]]`.

    `scope` is what the provider makes of it; where the capabilities are of several providers it has a table for each.
    Without `approval` and `approval_timeout`, those of the policy hold.
    """

    name: Name
    capabilities: Capabilities
    principals: Patterns = ("*",)
    environments: Patterns = ("*",)
    sessions: Patterns = ("*",)
    scope: dict[str, Any] = Field(default_factory=dict)
    limits: LimitsTable = LimitsTable()
    approval: Rule | None = None
    approval_timeout: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What one table of the file says for one provider. `line` is where the table begins.

    `capabilities`: all that the table covers, of other providers too.
    """

    name: str
    line: int
    scope: ScopeSchema
    limits: Mapping[str, Any]
    ceiling: LimitsTable
    approval: Approval
    capabilities: frozenset[str]

    def limits_for(self, operation: Operation) -> Limits:
        """The limits that hold for its calls."""
        return effective(self.limits, operation.limits, self.ceiling)


@dataclass(frozen=True, slots=True)
class Granted:
    """A table `[[grants]]` with what it is for each provider."""

    table: GrantTable
    line: int
    by_provider: Mapping[str, Grant]


@dataclass(frozen=True, slots=True)
class Denial:
    """A table `[[denials]]`, and where it begins."""

    table: DenialTable
    line: int
