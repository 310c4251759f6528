"""What rounds of killing, or of cutting the power, have shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["lost", "doubled", "changed"]


class Wrong(NamedTuple):
    """What became of an acknowledged fact."""

    kind: Kind
    what: str


@dataclass
class Tally:
    """All rounds of one kind; tallies of several kinds can be added."""

    rounds: int = 0
    facts: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    harmful: int = 0
    """Rounds after which anything was wrong."""
    survived: int = 0
    """Rounds in which nobody died."""
    spoiled: int = 0
    """Rounds after which SQLite found its file corrupt."""

    def add(self, facts: int, wrong: list[Wrong]) -> None:
        """One round."""
        self.rounds += 1
        self.facts += facts
        self.wrong += wrong
        self.harmful += bool(wrong)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.rounds + other.rounds,
            self.facts + other.facts,
            self.wrong + other.wrong,
            self.harmful + other.harmful,
            self.survived + other.survived,
            self.spoiled + other.spoiled,
        )

    def __str__(self) -> str:
        kinds = Counter(each.kind for each in self.wrong)
        counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("lost", "doubled", "changed"))
        return f"{self.rounds:,} rounds, {self.facts:,} acknowledged facts: {counts}"
