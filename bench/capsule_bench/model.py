"""What a bench is made of: areas, their measures, their contenders, and what a contender hands back."""

from __future__ import annotations

from dataclasses import dataclass, field


class WrongResultError(Exception):
    """A contender was asked for something and did something else; its figure does not count."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much one process measures: `warmup` uncounted samples, then `samples`, each over `size` things.

    A process that takes longer than `seconds` is ended and counts as failed.
    """

    samples: int
    warmup: int = 0
    size: int = 1
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Must:
    """What the first contender's figures have to reach, and by what factor its median has to beat the second one's."""

    median: float | None = None
    p95: float | None = None
    p99: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure. `name` is also the name of the function which every contender's module has for it.

    `alone`: it is measured of the first contender only, because the others have nothing of the kind or take too long.
    """

    name: str
    title: str
    unit: str
    full: Load
    quick: Load
    higher_is_better: bool = False
    must: Must = field(default_factory=Must)
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """Who is measured: a module of plain functions, and the distributions whose versions go on record."""

    name: str
    module: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A set of measures and its contenders; the first contender is held to the musts, the second is its reference."""

    name: str
    title: str
    measures: tuple[Measure, ...]
    contenders: tuple[Contender, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use while the contender was up: the measuring process, and the sums over all its descendants.

    `pss_children` counts a page that n processes share as 1/n in each, so forked processes are not counted twice.
    """

    rss: int = 0
    rss_children: int = 0
    pss_children: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a contender's function returns: its samples in the measure's unit, and the memory it took.

    `repeated`: how many tries gave no sample, for a reason that the measure takes for none of the contender's.
    """

    values: list[float]
    memory: Memory
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a contender has no figure."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Result:
    """One contender's figure for one measure: one JSON line.

    `p95` and `p99` are at the bad end: 99 of 100 samples are at least as good. `rounds` holds the medians of processes.
    """

    area: str
    measure: str
    contender: str
    unit: str
    run: str
    quick: bool
    machine: dict[str, str | int | float]
    commit: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    n: int = 0
    min: float | None = None
    median: float | None = None
    p95: float | None = None
    p99: float | None = None
    rounds: list[float] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    repeated: int = 0
    error: Failure | None = None
